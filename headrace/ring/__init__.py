"""The ring: which servers hold which shards, in numbered epochs."""
