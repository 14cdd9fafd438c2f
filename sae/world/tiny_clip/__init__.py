"""How the built-in tiny CLIP was made."""
