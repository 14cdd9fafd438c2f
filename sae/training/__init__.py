"""A store -> an SAE folder."""
