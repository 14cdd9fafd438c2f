"""An SAE and the rest of the network -> what its latents do to classes, edits and masks."""
