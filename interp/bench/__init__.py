"""The demo, and what is measured where the truth is known."""
