"""Images and edits of latents -> what a network says before and after them."""
