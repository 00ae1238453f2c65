"""Tests of headrace.expressions."""
