"""Lineage as servers and clients both know it."""
