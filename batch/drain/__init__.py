"""Brings the rows that feature servers committed into the offline store, each once."""
