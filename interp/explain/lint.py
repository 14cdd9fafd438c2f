"""A label or description -> the same, cleaned, and what is wrong with it, whoever wrote it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable
from typing import NamedTuple

from interp.records.wording import ADDRESSES_JUDGE, addresses_judge, cut_description, cut_label

MAX_WORDS = 8
MAX_CHARACTERS = 64
MAX_DESCRIPTION_WORDS = 40
MAX_DESCRIPTION_CHARACTERS = 280


class Linted(NamedTuple):
    """A label after cleaning, and what is still wrong with it (or was stripped)."""

    label: str
    remarks: tuple[str, ...]
    """Codes, e.g. "too_long", "medium_word"; sorted, without repeats."""


_MEDIUM = r"sketch(?:es)?|drawings?|illustrations?|photos?|photographs?|pictures?|images?"
_PAGE = rf"{_MEDIUM}|tiles?|panels?"
_HEDGE = "often|usually|sometimes|especially|particularly|typically|generally|mostly|etc"
_VAGUE = "various|different|multiple|general|miscellaneous|diverse"
_JARGON = (
    "feature|features|neuron|neurons|latent|latents|detector|detectors|activation|activations|"
    "concept|concepts"
)
_BLAND = frozenset(
    re.split(
        r"\W+",
        "a an the of in on at with and or background backgrounds object objects thing things shape "
        "shapes line lines pattern patterns texture textures something item items element elements "
        "detail details",
    )
)
_COUNTS = "three|four|five|six|seven|eight|nine|ten|eleven|twelve|dozen"


def _words(alternatives: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w-])(?:{alternatives})(?![\w-])")


# A grid of windows, three wheels and a sketch are what is seen; these say it of the pictures shown.
_RULES: tuple[tuple[str, re.Pattern[str]], ...] = (
    (
        "page_word",
        re.compile(
            rf"\b(?:grid|collage|set|row|series|collection)s? of (?:[\w-]+ )?(?:{_PAGE})\b|"
            r"\b(?:this|these|each|every|all|both|most|shown|first|second)(?: of)?"
            rf"(?: the| these)? (?:[\w-]+ )?(?:{_PAGE}|grid|collage)\b"
        ),
    ),
    ("count", re.compile(rf"\b(?:{_COUNTS})(?: of)?(?: the| these)? (?:{_PAGE})\b")),
    ("hedge", _words(_HEDGE)),
    ("vague", _words(_VAGUE)),
    ("jargon", _words(_JARGON)),
    ("digits", re.compile(r"\d")),
    ("markup", re.compile(r"https?:|www\.|[<>{}`|\\]|\]\(")),
)
_MEDIUM_WORD = re.compile(
    rf"\b(?:{_MEDIUM}) (?:of|showing|depicting)\b|"
    rf"\b(?:in|on|from|as|across) (?:an? |the )?(?:[\w-]+ )?(?:{_MEDIUM})$|"
    r"(?<![\w-])(?:sketched|hand-drawn|photographed|pictured|illustrated)\b"
)
"""For the medium, beside what is shown in it."""
_OVERLAY = _words("magenta|outline|outlines|outlined|faded")
_TILE_LETTER = re.compile(r"(?<![\w'])[A-HJ-NPR-Z](?![\w'-])")
_MEDIUM_NOUN = "sketched|drawn|hand-drawn|photographed|pictured|illustrated|sketch|photo"
# "sketch of a dog", "sketched dog"; but not "picture frame", where the word is part of the thing.
_MEDIUM_BEFORE = re.compile(
    r"^(?:an? |the )?(?:(?:simple|rough|detailed|black and white) )?"
    rf"(?:(?:line )?(?:{_MEDIUM}) (?:of|showing|with|depicting)|{_MEDIUM_NOUN}) "
    r"(?:an? |the )?(?=\w)"
)


def lint_label(
    label: str,
    class_names: Collection[str] = (),
    *,
    outlined: bool = False,
    medium_allowed: bool = False,
) -> Linted:
    """Clean a label and list what is wrong with it.

    Cleaning: control characters, quotes and a final stop go, all is lower case, a word for the
    medium in front of a noun is stripped ("sketched dog" -> "dog", remark "medium_stripped"), and
    what is beyond `MAX_LABEL` characters is cut at a word ("label_cut").
    `outlined`: the model saw our magenta outlines, so words for them are remarked ("overlay").
    `medium_allowed`: the latent is bound to one domain, so words for the medium stay unremarked.
    `class_names`: a label equal to one of them (lower case) is remarked, not forbidden.
    """
    plain = _plain(label)
    remarks = {"tile_letter"} if _TILE_LETTER.search(_without_first_word(plain)) else set()
    cleaned = plain.lower()
    stripped = cleaned if medium_allowed else _MEDIUM_BEFORE.sub("", cleaned)
    if stripped != cleaned and not _is_bland(stripped):
        remarks.add("medium_stripped")
        cleaned = stripped
    cleaned, was_cut = cut_label(cleaned)
    remarks.update(was_cut)
    remarks.update(code for code, pattern in _RULES if pattern.search(cleaned))
    if not medium_allowed and _MEDIUM_WORD.search(cleaned):
        remarks.add("medium_word")
    remarks.update(_shape_remarks(cleaned))
    if outlined and _OVERLAY.search(cleaned):
        remarks.add("overlay")
    if cleaned in class_names:
        remarks.add("class_name")
    if addresses_judge(plain):
        remarks.add(ADDRESSES_JUDGE)
    return Linted(cleaned, tuple(sorted(remarks)))


def lint_description(description: str) -> Linted:
    """Clean a description (its case and stops stay), cut it at `MAX_DESCRIPTION` characters, and
    say when it is too long or speaks to the judge."""
    plain = _plain(description, ends="")
    long = len(plain.split()) > MAX_DESCRIPTION_WORDS or len(plain) > MAX_DESCRIPTION_CHARACTERS
    text, was_cut = cut_description(plain)
    remarks = {ADDRESSES_JUDGE: addresses_judge(plain), "description_long": long}
    found = (*was_cut, *(code for code in remarks if remarks[code]))
    return Linted(text, tuple(sorted(found)))


def _plain(text: str, ends: str = " .\"'“”‘’") -> str:
    visible = "".join(c if unicodedata.category(c)[0] != "C" else " " for c in text)
    return " ".join(visible.split()).strip(ends or None)


def _without_first_word(label: str) -> str:
    # A capital at the start may be a one-letter article ("A dog").
    return label.partition(" ")[2]


def _is_bland(label: str) -> bool:
    return all(word in _BLAND for word in re.findall(r"[\w-]+", label))


def _shape_remarks(label: str) -> Iterable[str]:
    if not label:
        yield "empty"
    elif _is_bland(label):
        yield "bland"
    if len(label.split()) > MAX_WORDS or len(label) > MAX_CHARACTERS:
        yield "too_long"
    if label.count(",") > 1 or len(re.findall(r"\b(?:and|or)\b", label)) > 1:
        yield "joined"
