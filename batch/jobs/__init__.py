"""Jobs over the lake: what people and the service start, each in a process of its own."""
