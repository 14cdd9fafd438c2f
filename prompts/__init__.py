"""Jinja prompt files; package data, found by `interp.prompts`."""
