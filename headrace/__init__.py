"""Headrace for its users: definitions, types, errors and the client."""
