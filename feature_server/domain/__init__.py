"""What the feature server does, without transport or storage engine."""
