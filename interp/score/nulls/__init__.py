"""Labels that say nothing of a latent -> what their score is on the images of its test."""
