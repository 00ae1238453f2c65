"""gRPC edge of the feature server."""
