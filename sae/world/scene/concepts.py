"""concepts.csv -> the words of the drawn world: planted concepts, distractors, conjunctions."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import product
from pathlib import Path
from typing import Literal

TABLE = Path(__file__).with_name("concepts.csv")
ARTICLES = ("a", "an", "the", "some")
_DEPICTION = re.compile(
    r"^(?:(?:a|an|the|some) )?(?:[a-z-]+ )?"
    r"(?:sketch|sketche|drawing|photo|photograph|picture|image)s? (?:of|showing|with) "
)
_GENERIC_NOUN = re.compile(r" (?:object|thing|item|shape|pattern)s?$")
_ATTRIBUTE_KINDS = ("size", "orientation", "pattern", "stroke", "colour")
_LONGEST = 4
"""Words of a wording, at most, that is looked for within a label."""
_LITTLE_WORDS = frozenset({*ARTICLES, "and", "with", "object", "objects", "thing", "things"})


@dataclass(frozen=True)
class Concept:
    """One thing that can be true of a scene, or (kind `distractor`) never is."""

    name: str
    kind: str
    """object, count, size, position, orientation, pattern, stroke, colour, background, domain,
    distractor or conjunction."""
    phrase: str
    """How the concept reads on its own: "an apple", "on the left", "striped"."""
    synonyms: tuple[str, ...]
    """Other words for the same concept; no two concepts share one."""
    hypernyms: tuple[str, ...]
    """Wider words, true but not the concept itself: "fruit" for apple."""
    parts: tuple[str, ...] = ()
    """Of a conjunction: the concepts that must all hold for ONE object."""


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
COMMON: tuple[str, ...] = (
    *("circle", "square", "triangle", "star", "heart", "house"),
    *("tree", "cup", "car", "fish", "bell", "umbrella"),
)
"""Objects that a hard world shows more often than others: conjunctions are made with these."""


def _conjunctions() -> Iterator[Concept]:
    """What is planted in a hard world beside single concepts: things true of one object at once."""
    of = {kind: [c.name for c in CONCEPTS if c.kind == kind] for kind in _ATTRIBUTE_KINDS}
    bright, places = ("red", "yellow", "green", "blue"), _names_of("position")
    few = ("circle", "square", "star", "heart", "tree", "cup")
    combined: tuple[tuple[Iterable[str], ...], ...] = (
        (of["colour"], of["pattern"]),
        (of["size"], of["colour"]),
        (of["size"], of["pattern"]),
        (of["orientation"], of["pattern"]),
        (of["colour"], places),
        (of["pattern"], places),
        (bright, COMMON),
        (of["pattern"], COMMON),
        (("small",), [name for name in COMMON if name != "house"]),
        (of["orientation"], ("house", "tree", "cup", "car", "bell", "umbrella")),
        (COMMON, places),
        (("small",), few, places),
    )
    for kinds in combined:
        for parts in product(*kinds):
            yield Concept(_worded(parts), "conjunction", _worded(parts, "phrase"), (), parts, parts)


def _names_of(kind: str) -> list[str]:
    return [c.name for c in CONCEPTS if c.kind == kind]


def _worded(parts: Sequence[str], form: Literal["name", "phrase"] = "name") -> str:
    """ "red striped" by name, "a striped red object" as a phrase, with the adjectives as captions
    have them; "small circle on the left" where a place is said."""
    found = {BY_NAME[part].kind: part for part in parts}
    kinds = ("size", "orientation", "pattern", "colour")
    order = kinds if form == "phrase" else ("size", "orientation", "colour", "pattern")
    words = [found[kind] for kind in order if kind in found]
    noun = found.get("object", "object" if form == "phrase" or "position" in found else "")
    text = " ".join(filter(None, (*words, noun)))
    if form == "phrase":
        text = f"{'an' if text[0] in 'aeiou' else 'a'} {text}"
    return f"{text} {BY_NAME[found['position']].phrase}" if "position" in found else text


BY_NAME: dict[str, Concept] = {c.name: c for c in CONCEPTS}
CONJUNCTIONS: tuple[Concept, ...] = tuple(_conjunctions())
BY_NAME |= {c.name: c for c in CONJUNCTIONS}
Tier = Literal["easy", "hard"]
TIERS: dict[Tier, tuple[Concept, ...]] = {"easy": PLANTED, "hard": (*PLANTED, *CONJUNCTIONS)}
"""What is planted in a world of each tier."""


def names_same_concept(label: str, name: str) -> bool:
    """Whether `label` says the concept called `name`: its name, its phrase or a synonym.

    Case, punctuation, articles, plural and a leading "sketch of" do not count; "red objects" is
    as good as "red", and the words of a conjunction have no order. Raises `KeyError` when the world
    has no concept of that name.
    """
    concept = concept_named(label)
    return concept is not None and concept is BY_NAME[name]


@lru_cache(100_000)
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
    return _conjunction_named(words)


def _conjunction_named(words: str) -> Concept | None:
    """The conjunction whose parts are said in any order, and nothing else: "a red circle that is
    striped" names none, as it says three."""
    rest = _DEPICTION.sub("", words).split()
    said: set[str] = set()
    while rest:
        spans = (rest[:n] for n in range(min(len(rest), _LONGEST), 0, -1))
        found = next(((c, len(s)) for s in spans if (c := _said_exactly(" ".join(s)))), None)
        if found is None and rest[0] not in _LITTLE_WORDS:
            return None
        said |= {found[0].name} if found else set()
        rest = rest[found[1] if found else 1 :]
    return _by_parts().get(frozenset(said))


@cache
def _by_parts() -> dict[frozenset[str], Concept]:
    return {frozenset(concept.parts): concept for concept in CONJUNCTIONS}


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
