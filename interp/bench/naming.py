"""A label and the truth about a world -> what the label says, of which images it is true, and how
near that comes to what a latent was made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from interp.bench.constructed import Constructed
from interp.bench.kinds import PARTS
from interp.records.types import Explanation
from interp.records.wording import alternatives
from sae.world.scene.concepts import BY_NAME, Concept, concept_named

Naming = Literal["exact", "synonym", "hypernym", "both", "one of two", "wrong", "none"]
"""exact: the concept's name or phrase. hypernym: a wider word, a part of a conjunction, one of
"cup or net". both, one of two: of a latent made of two concepts, by label and second label."""
RIGHT = ("exact", "synonym")
TWO = ("even", "uneven")
_EXCEPT = (" without ", " except ", " but not ")


class WorldTruth:
    """What is true of the images of a store, in its order."""

    def __init__(self, truth: pd.DataFrame, image_ids: Sequence[str]) -> None:
        """`truth` is that of `read_truth`."""
        frame = truth.loc[list(image_ids)]
        flags = frame.select_dtypes(bool)
        self.frame = frame
        self.names: tuple[str, ...] = tuple(map(str, flags.columns))
        self.flags: NDArray[np.bool_] = flags.to_numpy()  # (n_images, concepts)
        self.row_of = {image_id: row for row, image_id in enumerate(image_ids)}

    def where(self, label: str | None) -> NDArray[np.bool_]:
        """(n_images,) where what the label says is true; nowhere, where it says nothing known.

        A wider word ("animal") is true where any of its concepts is, and so is "cup or net".
        """
        if len(parts := alternatives(label or "")) > 1:
            return np.asarray(np.any([self.where(part) for part in parts], axis=0))
        named = said(label)
        words = _plain(label or "")
        columns = [
            place
            for place, name in enumerate(self.names)
            if (named is not None and name == named.name)
            or (named is None and words in BY_NAME[name].hypernyms and not BY_NAME[name].parts)
        ]
        return np.asarray(self.flags[:, columns].any(1))

    def aurocs(self, active: NDArray[np.bool_]) -> NDArray[np.float64]:
        """(concepts,) how well each concept's truth tells active from silent images of all."""
        return auroc_of(self.flags, active)


def auroc_of(flags: NDArray[np.bool_], active: NDArray[np.bool_]) -> NDArray[np.float64]:
    """AUROC of yes-or-no predictions (n_images, ...): half of 1 + true rate - false rate; NaN
    where no image, or every one, is active."""
    if not 0 < active.sum() < len(active):
        return np.full(flags.shape[1:], np.nan)
    hits, alarms = flags[active].mean(0), flags[~active].mean(0)
    return np.asarray((1 + hits - alarms) / 2, dtype=np.float64)


def said(label: str | None) -> Concept | None:
    """The concept that a label says; of "cat without red" the cat."""
    words = label or ""
    for word in _EXCEPT:
        words = words.split(word)[0]
    return concept_named(words)


def grade_names(explanation: Explanation, meaning: Constructed) -> Naming:
    """How the labels of a latent stand to what it was made of; "none" where there is no label."""
    if explanation.label is None:
        return "none"
    if meaning.kind in TWO:
        named = {said(label) for label in _labels(explanation)}
        n_named = sum(BY_NAME[name] in named for name in meaning.concepts)
        if n_named:
            return "both" if n_named == 2 else "one of two"
    targets = meaning.concepts[: 1 if meaning.kind == "absorbed" else None]
    for concept in map(BY_NAME.__getitem__, targets):
        if said(explanation.label) is concept:
            wording = (concept.name.casefold(), concept.phrase)
            return "exact" if _plain(explanation.label) in wording else "synonym"
    wide = any(_is_wider(explanation.label, BY_NAME[name]) for name in targets)
    return "hypernym" if wide else "wrong"


def has_third(explanation: Explanation, meaning: Constructed) -> bool:
    """Whether a label says a concept that the latent was not made of, and none that is wider."""
    of = [BY_NAME[name] for name in meaning.concepts]
    return any(
        said(label) not in of and not any(_is_wider(label, concept) for concept in of)
        for label in _labels(explanation)
    )


def is_flagged(explanation: Explanation) -> bool:
    """Whether more than one thing, or nothing clear, is said to be there."""
    is_single = explanation.verdict == "single" and explanation.second_label is None
    return explanation.label is not None and not is_single


def is_made_of_concepts(kind: str) -> bool:
    """Whether a latent of this kind has a right name."""
    return PARTS.get(kind, 1) > 0


def _labels(explanation: Explanation) -> list[str]:
    labels = (explanation.label, explanation.second_label)
    return [name for label in labels if label for name in alternatives(label)]


def _is_wider(label: str, concept: Concept) -> bool:
    named = said(label)
    if named is None:
        names = [said(part) for part in alternatives(label)]
        return _plain(label) in concept.hypernyms or concept in names
    return {*(named.parts or (named.name,))} < {*concept.parts}


def _plain(label: str) -> str:
    return " ".join(label.casefold().split()).strip(" .")
