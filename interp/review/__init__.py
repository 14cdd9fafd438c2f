"""Verdicts of people: taken from the page or from a file, checked, and written into the run."""
