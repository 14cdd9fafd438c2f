"""Pixels and text -> vectors; a list of images -> a store."""
