"""Lineage: what is made of what, since when, and how that became known."""
