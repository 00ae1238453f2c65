"""Tests of a server in a ring."""
