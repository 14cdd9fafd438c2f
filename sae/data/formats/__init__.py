"""How each lab lays embeddings on disk."""
