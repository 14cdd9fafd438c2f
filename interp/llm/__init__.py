"""Asking a vision model; knows nothing of latents."""
