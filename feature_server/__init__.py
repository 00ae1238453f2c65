"""Online reads and writes of feature values over shards."""
