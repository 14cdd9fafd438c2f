"""A latent's label and the network -> whether editing the latent moves images as the label says."""
