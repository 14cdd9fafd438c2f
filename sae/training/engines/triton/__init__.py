"""TopK on a GPU."""
