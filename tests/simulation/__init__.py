"""Deterministic simulation of the ring."""
