"""A store and masks -> a head on patches, and what edits of latents do to what it says."""
