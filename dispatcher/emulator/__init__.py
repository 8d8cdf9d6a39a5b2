"""An emulator of AWS CodePipeline's ten job-worker calls, over HTTP, for tests and demos."""
