"""Latents -> stand-alone cards: one HTML file each, images inside, for a mail or a paper."""

from interp.report.single.write import MOST_BYTES, write_singles

__all__ = ["MOST_BYTES", "write_singles"]
