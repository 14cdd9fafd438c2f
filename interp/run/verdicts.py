"""verdicts.jsonl of a run: what people said of its labels; read by latent, appended durably.

The last line of a latent counts, and only while the latent has the label that was judged.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from interp.records.codec import read_records, to_json
from interp.records.types import Explanation
from interp.records.wording import MAX_LABEL, PERSON, hash_label, interpretation
from interp.run.results import VERDICTS, Results
from sae.core.files import append_jsonl, repair_jsonl, sha256_hex
from sae.core.lock import hold

Word = Literal["right", "partly", "wrong", "unclear", "withdrawn"]
WORDS: tuple[Word, ...] = ("right", "partly", "wrong", "unclear")
WITHDRAWN = "withdrawn"
"""In the place of a verdict that was taken back."""
MAX_NOTE = 2000
"""Characters of a note."""
WAIT = 10.0
"""Seconds that another process gets which is just writing a verdict."""


@dataclass(frozen=True)
class Review:
    """What a person said of the label of one latent: a line of verdicts.jsonl."""

    id: str
    """8 to 64 hex digits, drawn by the page: the same line that comes twice is one verdict."""
    run: str
    """`review_id` of the run."""
    latent: int
    label: str
    """As the person read it; "" where the latent had none."""
    label_hash: str
    """`hash_label` of it."""
    verdict: Word
    better: str = ""
    """The person's own label, in place of the machine's; "" for none."""
    note: str = ""
    guess: str = ""
    """What the person typed before the label was shown; "" where it was shown at once."""
    at: str = ""
    """UTC, as 2026-01-31T12:00:00Z."""

    def __post_init__(self) -> None:
        for name, pattern in (
            ("id", "[0-9a-f]{8,64}"),
            ("run", "[0-9a-f]{16}"),
            ("label_hash", "[0-9a-f]{16}"),
            ("at", r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)?"),
        ):
            if not re.fullmatch(pattern, getattr(self, name), re.ASCII):
                raise ValueError(f"{name} is {getattr(self, name)[:80]!r}; it must fit {pattern}")
        for name, most in (("better", MAX_LABEL), ("guess", MAX_LABEL), ("note", MAX_NOTE)):
            if len(getattr(self, name)) > most:
                raise ValueError(f"{name} has more than {most} characters")

    def tidied(self, at: str) -> Review:
        """With the time `at`, and without blanks around its texts; a label is one line."""
        better, guess = (" ".join(text.split()) for text in (self.better, self.guess))
        return dataclasses.replace(self, at=at, note=self.note.strip(), better=better, guess=guess)


def review_id(sae_identity: str, store_identity: str) -> str:
    """16 hex digits of the SAE and the store: verdicts of one run fit another one of the same."""
    return sha256_hex(f"{sae_identity}\n{store_identity}".encode())[:16]


def read_reviews(run_dir: Path) -> list[Review]:
    """Every line, oldest first; [] where nobody has reviewed. Raises `UserError` when damaged."""
    return list(read_records(run_dir / VERDICTS, Review))


def newest_reviews(reviews: Iterable[Review]) -> dict[int, Review]:
    """The last of each latent that was not taken back, in the order of the latents."""
    last = {review.latent: review for review in reviews}
    return {n: review for n, review in sorted(last.items()) if review.verdict != WITHDRAWN}


def fresh_reviews(run_dir: Path, results: Results) -> dict[int, Review]:
    """Those of them that are of the label which the latent has now."""
    found = newest_reviews(read_reviews(run_dir))
    return {n: review for n, review in found.items() if is_fresh(review, results.explanation(n))}


def is_fresh(review: Review, explanation: Explanation | None) -> bool:
    """Whether the label that was judged is the one that the latent has now."""
    return review.label_hash == hash_label(explanation)


def append_reviews(run_dir: Path, reviews: Iterable[Review]) -> None:
    """Append them under the file's own lock, so that a long `interp score` is no hindrance.

    When this returns they are on the disk. Raises `UserError` where another process keeps the lock,
    or the file cannot be written.
    """
    path = run_dir / VERDICTS
    lock = path.with_name(f"{VERDICTS}.lock")
    with closing(hold(lock, f"the verdicts of {run_dir}", wait=WAIT)):
        repair_jsonl(path)
        append_jsonl(path, map(to_json, reviews), durable=True)


def edited_explanations(
    reviews: Mapping[int, Review], explanations: Mapping[int, Explanation]
) -> dict[int, Explanation]:
    """The labels that people wrote, as explanations that can be scored, by latent."""
    return {
        latent: _by_person(review, explanations.get(latent))
        for latent, review in reviews.items()
        if review.better
    }


def _by_person(review: Review, explanation: Explanation | None) -> Explanation:
    said = f"written by a person in place of {interpretation(explanation)!r}"
    return Explanation(
        latent=review.latent,
        label=review.better,
        second_label=None,
        description="",
        verdict="single",
        level="",
        confidence=None,
        failure=None,
        lint=(),
        model=PERSON,
        provider=None,
        prompt="",
        codes={},
        candidates=(),
        calls=(),
        usd=0.0,
        provenance=said if interpretation(explanation) else "written by a person",
    )
