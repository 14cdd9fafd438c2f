"""Images -> pictures for a model."""
