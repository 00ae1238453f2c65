"""Registry logic, free of storage and transport."""
