"""Events of Kafka into Iceberg, each once."""
