"""A model's text -> checked values."""
