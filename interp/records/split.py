"""The split explain | score: which side an image is on, and the check that none crosses.

Images that belong together (near-duplicates, a burst, a person) are on one side: that of their
group's name, in place of an image's own id.
"""

from __future__ import annotations

from collections.abc import Iterable

from interp.records.types import Example, Side
from sae.core.files import sha256_hex
from sae.data.split import fraction

SELECT_FROM = 0.3
"""With a side `select` it is the part from here to .5 of what else is the explain side."""


def split_of(group_id: str, select: bool = False) -> Side:
    """The same image falls on the same side on every machine: no seed to carry around.

    `group_id`: `Example.group_id`. With `select` two fifths of the explain side become the side
    "select", on which whoever makes several labels of a latent (best of n answers, best of a
    vocabulary) chooses among them: a label that was chosen on the images that it was made from
    looks better than it is, and the score side may not be asked. The score side stays as it is.
    `collect --select` keeps evidence of it: `Evidence.of("select", kind)`.
    """
    part = fraction(group_id, "split")
    if part >= 0.5:
        return "score"
    return "select" if select and part >= SELECT_FROM else "explain"


def name_group(image_ids: Iterable[str]) -> str:
    """What a group of at least two images is called: sha256 of its least image_id, 64 hex digits.

    Not that id itself, which begins with small digits the more often the larger the group is: large
    groups would all be on the explain side.
    """
    return sha256_hex(min(image_ids).encode())


class LeakError(Exception):
    """An image that the explainer may have seen is about to be used as test. Always our bug."""


def check_side(examples: Iterable[Example], side: Side) -> None:
    """Raise `LeakError` for an image that is not on `side` by its record and by its content."""
    for example in examples:
        found = split_of(example.group_id, select=side == "select")
        if example.side != side or found != side:
            raise LeakError(f"{describe_example(example)} is not on the {side} side")


def check_unseen(
    examples: Iterable[Example], shown: Iterable[str], known: Iterable[Example]
) -> None:
    """Raise `LeakError` where one of `examples`, or a twin of it, is among the image ids `shown`.

    `known` are records that tell which images belong together.
    """
    groups = {example.image_id: example.group_id for example in known}
    seen = {group for image_id in shown for group in (image_id, groups.get(image_id, image_id))}
    for example in examples:
        if example.group_id in seen or example.image_id in seen:
            raise LeakError(
                f"{describe_example(example)}, or a near-duplicate of it, was shown to the "
                "explainer and cannot test a label"
            )


def describe_example(example: Example) -> str:
    return f"latent {example.latent}: image {example.image_id[:12]} (row {example.row})"
