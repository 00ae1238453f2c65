"""Our online server beside Redis and Feast: same machine, rows, keys and run."""
