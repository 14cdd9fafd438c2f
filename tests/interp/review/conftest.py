"""A real browser."""

from tests.interp.report.conftest import browser

__all__ = ["browser"]
