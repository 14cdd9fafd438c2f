"""Latents that were found by words or by an image -> a table, JSON and a page of cards."""

EXPLAINED = "explained"
"""In a run: what `interp explain-image` writes."""
