"""Many SAEs on one pass over the data."""
