"""The run folder, and what was said and measured in it."""
