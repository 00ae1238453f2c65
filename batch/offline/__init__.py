"""History of the feature views in Iceberg tables."""
