"""The engine behind `headrace.history`: historical joins in the caller's own process."""
