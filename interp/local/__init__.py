"""Explainer and judge without a key: CLIP."""
