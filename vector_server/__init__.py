"""Similarity search over embeddings; nothing runs here yet."""
