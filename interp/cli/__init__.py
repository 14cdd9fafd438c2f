"""The command `interp`, a file per group of sub-commands."""
