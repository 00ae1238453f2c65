"""Contracts of every Headrace service; generated stubs lie beside their .proto files."""
