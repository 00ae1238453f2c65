"""Migrations of the registry database, oldest first; a released one is never edited."""
