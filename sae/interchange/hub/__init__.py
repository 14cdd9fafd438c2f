"""Push and pull on the Hugging Face hub."""
