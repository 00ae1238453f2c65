"""Events of Kafka on their way to served rows."""
