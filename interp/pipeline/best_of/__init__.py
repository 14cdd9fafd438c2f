"""`interp explain --best-of`: several labels of a latent, and the choice among them."""
