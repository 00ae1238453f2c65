"""Open-loop gRPC load on the online service by Locust, with a service level gate."""
