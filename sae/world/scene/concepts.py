"""concepts.csv -> the words of the drawn world: all planted concepts and the distractors."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

TABLE = Path(__file__).with_name("concepts.csv")
ARTICLES = ("a", "an", "the", "some")
_DEPICTION = re.compile(
    r"^(?:(?:a|an|the|some) )?(?:[a-z-]+ )?"
    r"(?:sketch|sketche|drawing|photo|photograph|picture|image)s? (?:of|showing|with) "
)
_GENERIC_NOUN = re.compile(r" (?:object|thing|item|shape|pattern)s?$")
_ATTRIBUTE_KINDS = ("size", "orientation", "pattern", "stroke", "colour")


@dataclass(frozen=True)
class Concept:
    """One thing that can be true of a scene, or (kind `distractor`) never is."""

    name: str
    kind: str
    """object, count, size, position, orientation, pattern, stroke, colour, background, domain or
    distractor."""
    phrase: str
    """How the concept reads on its own: "an apple", "on the left", "striped"."""
    synonyms: tuple[str, ...]
    """Other words for the same concept; no two concepts share one."""
    hypernyms: tuple[str, ...]
    """Wider words, true but not the concept itself: "fruit" for apple."""


def _read_table(path: Path) -> tuple[Concept, ...]:
    with path.open(encoding="utf-8", newline="") as file:
        return tuple(
            Concept(
                *(row["name"], row["kind"], row["phrase"]),
                *(_words_of(row["synonyms"]), _words_of(row["hypernyms"])),
            )
            for row in csv.DictReader(file)
        )


def _words_of(cell: str) -> tuple[str, ...]:
    return tuple(word for word in cell.split(";") if word)


CONCEPTS: tuple[Concept, ...] = _read_table(TABLE)
PLANTED: tuple[Concept, ...] = tuple(c for c in CONCEPTS if c.kind != "distractor")
OBJECTS: tuple[str, ...] = tuple(c.name for c in CONCEPTS if c.kind == "object")
COLOURS: tuple[str, ...] = tuple(c.name for c in CONCEPTS if c.kind == "colour")
BY_NAME: dict[str, Concept] = {c.name: c for c in CONCEPTS}


def names_same_concept(label: str, name: str) -> bool:
    """Whether `label` says the concept called `name`: its name, its phrase or a synonym.

    Case, punctuation, articles, plural and a leading "sketch of" do not count; "red objects" is
    as good as "red". Raises `KeyError` when the world has no concept of that name.
    """
    concept = concept_named(label)
    return concept is not None and concept is BY_NAME[name]


def concept_named(label: str) -> Concept | None:
    """The one concept that `label` says, or None."""
    words = _plain(label)
    for wording in dict.fromkeys((words, _DEPICTION.sub("", words))):
        found = _said_exactly(wording)
        if found is not None:
            return found
        found = _said_exactly(_GENERIC_NOUN.sub("", wording))
        if found is not None and found.kind in _ATTRIBUTE_KINDS:
            return found
    return None


def _said_exactly(words: str) -> Concept | None:
    exact, singular = _index()
    bare = _without_article(words)
    # "ring" is a distractor and "rings" an object: the exact form decides before the singular.
    return exact.get(bare) or singular.get(_singular(bare))


@cache
def _index() -> tuple[dict[str, Concept], dict[str, Concept]]:
    exact: dict[str, Concept] = {}
    singular: dict[str, Concept] = {}
    for concept in CONCEPTS:
        for wording in (concept.name, concept.phrase, *concept.synonyms):
            bare = _without_article(_plain(wording))
            if exact.setdefault(bare, concept) is not concept:
                raise ValueError(f"{TABLE.name}: {wording!r} names {exact[bare].name} already")
            singular.setdefault(_singular(bare), concept)
    return exact, singular


def _plain(label: str) -> str:
    kept = re.sub(r"[^a-z' -]", " ", label.casefold())
    return " ".join(kept.split())


def _without_article(words: str) -> str:
    first, _, rest = words.partition(" ")
    return rest if rest and first in ARTICLES else words


def _singular(words: str) -> str:
    """The words with the last one in the singular; regular plurals and -ves only."""
    for ending, replacement in (("ies", "y"), ("ves", "f"), ("men", "man")):
        if words.endswith(ending):
            return words[: -len(ending)] + replacement
    if re.search(r"(?:s|x|z|ch|sh)es$", words):
        return words[:-2]
    if words.endswith("s") and not words.endswith(("ss", "us")):
        return words[:-1]
    return words
