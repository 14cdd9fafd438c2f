"""Judging tasks of `interp score`: settings -> the stages that ask, and checks of the judge."""
