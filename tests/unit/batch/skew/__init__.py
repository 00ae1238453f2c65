"""Tests of skew measurement."""
