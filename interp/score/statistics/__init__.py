"""Grades of a sample of images -> what they say of all held-out images, and how surely."""
