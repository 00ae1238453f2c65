"""Historical and batch jobs over the lake."""
