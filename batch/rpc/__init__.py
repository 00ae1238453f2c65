"""gRPC edge of the jobs."""
