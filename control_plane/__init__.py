"""Control plane: the registry of definitions."""
