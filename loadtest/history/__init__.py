"""Load on the historical service, with a gate."""
