"""The 59 objects as shapes."""
