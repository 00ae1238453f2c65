"""Durable registry on SQLAlchemy Core: SQLite embedded, PostgreSQL at scale."""
