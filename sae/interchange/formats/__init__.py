"""One file a format: `detect`, `read`, and `write` where ours go out."""
