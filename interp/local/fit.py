"""A CLIP, words and images -> what to tell a user whose images the local model cannot name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from interp.local.vocabulary import knows_world
from sae.world.scene.concepts import CONCEPTS, concept_named

MOST_ALIKE = 0.5
"""Length of the mean of unit rows (1: all images are one) above which the tiny CLIP sees too little
difference between images. Measured: .42 to .46 on worlds, .62 on icons, .69 to .99 on crops of a
photo, plain shapes, plain colours and noise."""
BETTER = "another CLIP and its words see more: --clip ViT-B-32/openai --vocabulary general"


def is_world(root: Path) -> bool:
    """Whether a domain's folder belongs to a built-in world."""
    return any((folder / "world.json").is_file() for folder in (root, root.parent))


def misfit(clip: str, words: Sequence[str], from_world: bool, images: Tensor) -> str:
    """What does not fit; "" where nothing speaks against names and scores.

    `words` to name with, or the labels to judge; `images` (n, d) unit rows, an even sample.
    """
    n_known = sum(concept_named(word) is not None for word in words)
    if knows_world(clip) and 2 * n_known < len(words):
        return (
            "the tiny CLIP knows the words of the built-in world alone, which are "
            f"{n_known:,} of these {len(words):,}; {BETTER}"
        )
    if knows_world(clip) and not from_world and float(images.mean(0).norm()) > MOST_ALIKE:
        return (
            "the tiny CLIP has seen the built-in drawn world alone, and these images are not like "
            f"it: its names and scores say little; {BETTER}"
        )
    if not knows_world(clip) and n_known == len(words) == len(CONCEPTS) and not from_world:
        return (
            "--vocabulary world names what the built-in drawn world shows, and these images are "
            "not from it; --vocabulary general names more"
        )
    return ""
