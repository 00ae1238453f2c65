"""Historical and batch jobs over the lake; nothing runs here yet."""
