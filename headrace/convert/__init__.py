"""Converters between the values of headrace and the messages of the contracts."""
