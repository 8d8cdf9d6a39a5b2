"""Redis: the ledger of jobs, and who is there to work on them. Answers facts; decides nothing."""
