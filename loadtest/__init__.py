"""Load tests: our servers beside their peers, and open-loop scenarios with service level gates."""
