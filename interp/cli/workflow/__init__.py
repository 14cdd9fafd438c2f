"""`interp run`: its command line, and what it prints."""
