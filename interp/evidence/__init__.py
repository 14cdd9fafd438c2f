"""One pass over a store -> the evidence of every latent, and its reader."""
