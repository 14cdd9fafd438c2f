"""A run's CLIP -> what stands in for a vision model, and what finds latents."""
