"""A store -> training tokens in random order, at any size."""
