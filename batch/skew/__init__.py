"""Skew: whether features are served as training saw them, by row parity and by distribution."""
