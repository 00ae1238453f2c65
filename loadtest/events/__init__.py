"""Seeded streams of events."""
