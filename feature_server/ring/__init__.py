"""A feature server's part in the ring: the ring it holds, its copies of shards, and reads across its peers."""
