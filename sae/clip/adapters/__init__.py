"""Checkpoints of adapters, and a CLIP of open_clip -> the CLIP with the adapter on it."""
