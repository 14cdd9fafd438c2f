"""One question over HTTP, and every way it can fail."""
