"""The demonstration on a year of real flights."""
