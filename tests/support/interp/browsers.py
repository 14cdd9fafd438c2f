"""A gallery's page in Chromium, with all that it should not do written down."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

TIMEOUT = 8.0  # seconds
MAP = "canvas.points[aria-label^='Map']"
"""The map of latents; the overview has a canvas of points too."""


class Watched:
    """A page with all that it should not do written down."""

    def __init__(self, browser: Any, run: Path, address: str = "", **options: Any) -> None:
        self.faults: list[str] = []
        self.page = browser.new_page(**options)
        self.page.set_default_timeout(1000 * TIMEOUT)
        self.page.on("console", lambda m: self.faults.append(f"console: {m.text}"))
        self.page.on("pageerror", lambda e: self.faults.append(f"error: {e}"))
        self.page.on("dialog", self._dialog)
        self.page.on("request", self._request)
        self.page.goto((run / "gallery/index.html").as_uri() + address)
        self.page.wait_for_selector("#title, .start, [data-view=list] .row")

    def go(self, address: str) -> None:
        latent = address.removeprefix("#/")
        self.page.evaluate("(hash) => { location.hash = hash; }", address)
        self.page.wait_for_selector(f"body[data-shown='{latent}']")

    def until(self, expression: str) -> None:
        """Wait until a JavaScript expression is true.

        Playwright's own `wait_for_function` evaluates it again from a timer of the page, which the
        page's security policy refuses: it passes only where the expression is true at first.
        """
        end = time.monotonic() + TIMEOUT
        while not self.page.evaluate(expression):
            assert time.monotonic() < end, f"not true within {TIMEOUT} s: {expression}"
            self.page.wait_for_timeout(20)

    def _dialog(self, dialog: Any) -> None:
        self.faults.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _request(self, request: Any) -> None:
        if not request.url.startswith(("file:", "data:,")):
            self.faults.append(f"request: {request.url}")


LOADED = """() => Promise.all([...document.querySelectorAll('main img')].map((image) => {
  image.loading = 'eager';
  return image.decode().then(() => image.naturalWidth, () => 0);
}))"""
