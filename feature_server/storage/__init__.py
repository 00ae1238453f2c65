"""Rows on disk: one RocksDB per shard."""
