"""What the dispatcher asks of AWS, as adapters of the ports of the engine."""
