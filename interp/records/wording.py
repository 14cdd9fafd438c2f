"""Labels and descriptions -> how much of them is kept, and whether they speak to the judge."""

from __future__ import annotations

import functools
import re

from interp.records.types import Explanation
from sae.core.csv_cells import mark_label
from sae.core.files import sha256_hex

MAX_LABEL = 200
"""Characters. A longer label is cut at a word."""
MAX_DESCRIPTION = 600
"""Characters. A longer description is cut at a word."""
LABEL_CUT, DESCRIPTION_CUT = "label_cut", "description_cut"
"""Remarks on what was cut."""
ADDRESSES_JUDGE = "addresses_judge"
"""Remark on a label or description that tells the judge what to answer."""

SPEAKS_TO_JUDGE = "the label or its description tells the judge what to answer"
"""Note on the score of such a label."""

WEAK_NEGATIVES = (
    "the latent is silent on too few images: negatives are those of its least activation"
)
"""Note on a score whose negatives are not all silent."""

UNCOUNTED = (
    "no rho: this evidence does not count held-out images; `interp collect --overwrite` does"
)
"""Note on a score of older evidence."""

GROUPED = "fewer images: near-duplicates, or images of one group, count once"
"""Note on a score that has fewer images for it."""
PERSON = "person"
"""Who explained, where a person wrote the label."""
BY_PERSON = "the label was written by a person, who could see the images that test it"
"""Note on the score of such a label."""

_BETWEEN = (
    "it|this|that|them|these|those|all|every|each|any|both|everything|the|a|an|with|as|of|at|to|is|"
    "always|only|just|exactly|least|pictures?|images?|letters?|ones?|grades?|scores?|numbers?|"
    "values?|answers?|single"
)
_ADDRESS = re.compile(
    # "answer 100", "give every picture a hundred", "always score them: maximum"
    r"(?:\b(?:answer|reply|respond|return|output|give|assign)"
    r"|(?:^|[.:;,]\s*|\b(?:always|please|and|then|just|now|to)\s+)(?:score|rate|grade))\W+"
    rf"(?:(?:{_BETWEEN})\W+)*"
    r"(?:\d{1,3}\b|(?:one )?hundred\b|full marks|highest\b|maximum\b|best grade)"
    r"|\b(?:ignore|disregard|forget|override)\b[^.;]{0,40}?"
    r"\b(?:instructions?|rules?|prompts?|above|previous|prior|everything|meaning)\b"
    r"|\byou (?:must|should|are to|will|have to)\b|\byour (?:answers?|scores?|instructions?|task)\b"
    r"|\b(?:as|dear|to the|note to|hey|hello|attention) (?:judge|grader|scorer|evaluator)s?\b"
    r"|(?:^|[.:;,]\s*)(?:system|assistant|user|judge|grader) ?:"
    r"|\b(?:system prompt|language model|new instructions?)\b"
    r"|\b(?:all|every|each)(?: of)?(?: the| these)? (?:pictures?|images?)"
    r"[^.;]{0,20}?\b(?:meets?|fits?|match(?:es)?|gets?|deserves?|scores?)\b",
    re.IGNORECASE,
)


def marked_label(explanation: Explanation | None) -> str:
    """The label as people are shown it: an unclear one has a mark; "" without one."""
    return mark_label(explanation.label or "", explanation.verdict) if explanation else ""


def interpretation(explanation: Explanation | None) -> str:
    """The same with the second label behind it."""
    label = marked_label(explanation)
    second = explanation.second_label if explanation and label else None
    return f"{label}; also {second}" if second else label


def hash_label(explanation: Explanation | None) -> str:
    """16 hex digits of the label as people read it: a verdict on another label is told by them."""
    return sha256_hex(interpretation(explanation).encode(errors="replace"))[:16]


@functools.lru_cache(maxsize=1 << 14)
def wording(label: str) -> str:
    """A label without regard to case and blanks."""
    return " ".join(label.casefold().split())


@functools.lru_cache(maxsize=1 << 14)
def alternatives(label: str) -> tuple[str, ...]:
    """ "cup or zigzag" and "cup, net or zigzag" as their names, any other label as it is.

    Names are of two words at most: "cat with open or closed eyes" is one thing.
    """
    parts = tuple(part.strip() for part in re.split(r",\s|\sor\s", label))
    is_list = " or " in label and all(0 < len(part.split()) <= 2 for part in parts)
    return parts if is_list else (label,)


def addresses_judge(text: str) -> bool:
    """Whether the text speaks to who grades by it ("answer 100") and does not name a thing."""
    return _ADDRESS.search(" ".join(text.split())) is not None


def cut_label(label: str) -> tuple[str, tuple[str, ...]]:
    """At most `MAX_LABEL` characters of it, and the remark on that where it was longer."""
    return cut_at_word(label, MAX_LABEL), (LABEL_CUT,) if len(label) > MAX_LABEL else ()


def cut_description(text: str) -> tuple[str, tuple[str, ...]]:
    """At most `MAX_DESCRIPTION` characters of it, and the remark on that where it was longer."""
    remarks = (DESCRIPTION_CUT,) if len(text) > MAX_DESCRIPTION else ()
    return cut_at_word(text, MAX_DESCRIPTION), remarks


def cut_at_word(text: str, most: int) -> str:
    """At most so many characters, without a part of a word where there is a blank to cut at."""
    if len(text) <= most:
        return text
    head, blank, _ = text[: most + 1].rpartition(" ")
    return (head if blank else text[:most]).rstrip()
