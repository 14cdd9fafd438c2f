"""A vocabulary's name or file -> terms; a label -> the texts that CLIP reads for it."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from sae.core.clip_name import split_adapter
from sae.core.errors import UserError
from sae.world.scene.concepts import (
    COLOURS,
    CONCEPTS,
    CONJUNCTIONS,
    OBJECTS,
    Concept,
    concept_named,
)

TERMS_FILE = Path(__file__).with_name("vocabulary.txt")
WORLD_CLIPS = ("tiny", "tiny-conv")
"""Names of the built-in CLIPs, which know the words of the drawn world and no others. They share no
weights, no training images and no architecture of the image tower: each may judge the other's."""

TEMPLATES = ("a photo of {}", "a sketch of {}", "{}")


class Term(NamedTuple):
    """One name that a latent may get."""

    name: str
    texts: tuple[str, ...]
    """What CLIP reads for it; the embeddings of these are averaged."""


def knows_world(clip_name: str) -> bool:
    """Whether it is one of the built-in CLIPs, with or without an adapter on it."""
    return split_adapter(clip_name)[0] in WORLD_CLIPS


def load_vocabulary(source: str, clip_name: str) -> list[Term]:
    """The terms of `source`: "auto", "world", "hard", "general" or a file with one term a line.

    "auto" is the drawn world's concepts for a tiny CLIP, otherwise `vocabulary.txt` and the class
    names of ImageNet; "hard" is the drawn world's with the conjunctions of its hard tier. Raises
    `UserError` when the file is missing, not text or holds no two terms.
    """
    chosen = ("world" if knows_world(clip_name) else "general") if source == "auto" else source
    if chosen in ("world", "hard"):
        concepts = (*CONCEPTS, *CONJUNCTIONS) if chosen == "hard" else CONCEPTS
        return [Term(concept.name, _texts_of_concept(concept)) for concept in concepts]
    if chosen == "general":
        names = [*read_terms(TERMS_FILE), *_imagenet_names()]
    else:
        names = read_terms(Path(chosen))
    return [Term(name, texts_of(name, clip_name)) for name in _distinct(names)]


def texts_of(label: str, clip_name: str) -> tuple[str, ...]:
    """What CLIP reads for a label: a concept's own wording where a tiny CLIP was taught it."""
    concept = concept_named(label) if knows_world(clip_name) else None
    if concept is not None:
        return _texts_of_concept(concept)
    return tuple(template.format(label) for template in TEMPLATES)


class Place(NamedTuple):
    """Where a name stands among those of which a thing, or an image, has one."""

    kind: str
    """A key of `RIVALS`."""
    number: int
    """Place there; -1 for an object that the world never shows."""


RIVALS: Mapping[str, tuple[str, ...]] = {
    "object": OBJECTS,
    "colour": COLOURS,
    "domain": tuple(concept.name for concept in CONCEPTS if concept.kind == "domain"),
}
"""The world's names of which one alone is true of a drawn thing, or of an image, by kind."""


@functools.cache
def place_among_rivals(label: str) -> Place | None:
    """Which of the world's objects, colours or media a label names; None for anything else."""
    concept = concept_named(label)
    if concept is not None and concept.kind == "distractor":
        return Place("object", -1)
    if concept is None or concept.kind not in RIVALS:
        return None
    return Place(concept.kind, RIVALS[concept.kind].index(concept.name))


def read_terms(path: Path) -> list[str]:
    """One term a line; blank lines and what follows `#` are left out. Order is kept."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, IsADirectoryError):
        raise UserError(
            f"--vocabulary {path} is no file; give a text file with one term a line, "
            "or one of: auto, world, hard, general"
        ) from None
    except UnicodeDecodeError as error:
        raise UserError(f"--vocabulary {path} is not UTF-8 text: {error}") from None
    terms = _distinct(line.partition("#")[0] for line in text.splitlines())
    if len(terms) < 2:
        raise UserError(f"--vocabulary {path} holds {len(terms)} terms; a choice needs at least 2")
    return terms


def _texts_of_concept(concept: Concept) -> tuple[str, ...]:
    if concept.kind in ("object", "distractor"):
        return tuple(template.format(concept.phrase) for template in TEMPLATES)
    return (concept.phrase,)


def _imagenet_names() -> Sequence[str]:
    from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES

    names: Sequence[str] = IMAGENET_CLASSNAMES
    return names


def _distinct(names: Iterable[str]) -> list[str]:
    """The first of each name, whatever its case, with single blanks."""
    first: dict[str, str] = {}
    for name in names:
        words = " ".join(name.split())
        if words:
            first.setdefault(words.casefold(), words)
    return list(first.values())
