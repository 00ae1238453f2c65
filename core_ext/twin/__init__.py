"""Plain Python twins of the compiled cores, used as oracles by the tests."""
