"""A line of scores.jsonl as it is held: the score without its verdicts, and where they lie."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from interp.records.types import Score
from sae.core.files import sha256_hex


class ScoreLine(NamedTuple):
    """A line of scores.jsonl without its verdicts, which are most of it."""

    score: Score
    """Its `verdicts` are empty."""
    images: str
    """`digest_of` the ids of the images that tested the label."""
    span: tuple[int, int]
    """Where the line lies in the file: its first byte, and the one behind its last."""


def digest_of(image_ids: Iterable[str]) -> str:
    """sha256 (64 hex digits) of a set of images, whatever their order."""
    return sha256_hex(" ".join(sorted(image_ids)).encode())
