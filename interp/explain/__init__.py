"""Evidence -> label."""
