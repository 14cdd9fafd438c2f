"""The sub-commands that make pages of a run, take verdicts from them, and hand them over."""
