"""A run's files -> labels.csv, gallery, sheets, Python view."""
