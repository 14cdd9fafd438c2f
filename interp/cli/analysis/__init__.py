"""The sub-commands that ask something of a finished run, each a file."""
