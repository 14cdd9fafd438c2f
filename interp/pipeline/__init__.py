"""Stages from files to files: settings, estimate, dry run, run."""
