"""An image, a latent and a diffusion pipeline -> pictures of the image's embedding after edits."""
