"""What is on a picture, and its words."""
