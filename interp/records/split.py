"""The split explain | score: which side an image is on, and the check that none crosses."""

from __future__ import annotations

from collections.abc import Iterable

from interp.records.types import Example, Side
from sae.data.split import fraction


def split_of(image_id: str) -> Side:
    """The same image falls on the same side on every machine: no seed to carry around."""
    return "explain" if fraction(image_id, "split") < 0.5 else "score"


class LeakError(Exception):
    """An image that the explainer may have seen is about to be used as test. Always our bug."""


def check_side(examples: Iterable[Example], side: Side) -> None:
    """Raise `LeakError` for an image that is not on `side` by its record and by its content."""
    for example in examples:
        if example.side != side or split_of(example.image_id) != side:
            raise LeakError(f"{describe_example(example)} is not on the {side} side")


def describe_example(example: Example) -> str:
    return f"latent {example.latent}: image {example.image_id[:12]} (row {example.row})"
