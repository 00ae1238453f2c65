"""Placement of shards on feature servers, leases, and the ring that follows from them."""
