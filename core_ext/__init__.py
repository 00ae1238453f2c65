"""Compiled cores under the servers: codecs, rules, the row table and the request core."""
