"""Prices, tokens, the cap."""
