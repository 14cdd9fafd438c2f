"""Labels in the place of a first one: the best of several, or one that tells a latent apart."""
