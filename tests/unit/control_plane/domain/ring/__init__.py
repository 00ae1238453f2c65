"""Tests of the ring in the control plane."""
