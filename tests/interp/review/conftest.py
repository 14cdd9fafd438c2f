"""A real browser."""

from tests.interp.report.conftest import browser, chromium

__all__ = ["browser", "chromium"]
