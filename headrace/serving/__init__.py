"""What every gRPC server of Headrace shares: principals, permissions, telemetry, health and drain."""
