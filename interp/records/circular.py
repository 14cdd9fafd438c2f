"""A scorer's name and the store's CLIP -> whether the judge looks with what made the SAE."""

from __future__ import annotations

CIRCULAR = "circular: the judge looks with the CLIP that the SAE is made of, so its scores run high"
"""What a summary says of such a judge."""


def is_circular(scorer: str, clip: str) -> bool:
    """Whether the scorer is the local judge with the CLIP `clip`, on whose embeddings the SAE is.

    It then tells active images from silent ones also where nothing of the label is to be seen.
    """
    kind, _, looked_with = scorer.partition(":")
    return kind == "local" and bool(clip) and _weights(looked_with) == _weights(clip)


def _weights(clip: str) -> str:
    # open_clip has some of its weights under two names.
    return clip.replace("-quickgelu/", "/")
