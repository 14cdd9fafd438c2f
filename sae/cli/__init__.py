"""The command `sae`, a file per group of sub-commands."""
