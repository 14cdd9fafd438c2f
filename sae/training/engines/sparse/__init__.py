"""TopK and BatchTopK on a CPU."""
