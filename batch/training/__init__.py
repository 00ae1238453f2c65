"""Frozen results of historical joins, and the proof of what they hold."""
