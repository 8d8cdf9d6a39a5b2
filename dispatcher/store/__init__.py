"""Redis: the ledger of jobs, and who is there to work on them. Stores and answers facts; decides nothing."""
