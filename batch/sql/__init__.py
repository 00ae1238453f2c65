"""Sources that a SELECT defines, for batch."""
