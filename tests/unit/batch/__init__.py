"""Tests of the historical jobs."""
