"""Activations of the same images twice, or of two groups of images -> what differs between them."""
