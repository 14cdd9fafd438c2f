"""A scene -> pixels."""
