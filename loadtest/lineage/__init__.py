"""Load on the lineage of the control plane."""
