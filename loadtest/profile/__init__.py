"""Where the microseconds of a read go: samples of the native loop under load, by stage and as a flame graph."""
