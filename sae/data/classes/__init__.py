"""Classes: the names of folders, and which latents of an SAE belong to each."""
