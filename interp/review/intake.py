"""Verdicts from a page or a file -> verdicts.jsonl: checked against the run's labels."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from interp.records.codec import from_json, read_records, to_json
from interp.records.wording import interpretation
from interp.run.run import Run
from interp.run.verdicts import (
    Review,
    append_reviews,
    is_fresh,
    newest_reviews,
    read_reviews,
    review_id,
)
from sae.core.errors import UserError


class Refused(UserError):
    """A verdict that is of another run, of no latent, or of a label that is gone."""


@dataclass
class Imported:
    """What a file of verdicts came to."""

    n_new: int = 0
    n_known: int = 0
    """Lines that were in the run already."""
    stale: list[str] = field(default_factory=list)
    """Those of a label that the latent no longer has, in words."""
    foreign: list[str] = field(default_factory=list)
    """Those of another run, or of a latent that there is not."""


class Intake:
    """Takes verdicts for one run, of one thread at a time. State: which lines are there already."""

    def __init__(self, run: Run) -> None:
        info = run.info
        self.id = review_id(info.sae_identity, info.store_identity)
        self._run, self._n_latents = run, info.n_latents
        self._known = {review.id for review in read_reviews(run.path)}
        self._lock = threading.Lock()
        self._is_open = True

    def take(self, values: Mapping[str, Any]) -> Review:
        """Write one verdict, and return it as it stands in the run: on the disk.

        Raises `UserError` where a field is wrong, and `Refused` as `require_fit` does.
        """
        review = from_json(Review, values, "the verdict").tidied(_now())
        with self._lock:
            if not self._is_open:
                raise UserError("`interp review` has ended; start it again")
            if review.id not in self._known:
                self.require_fit(review)
                append_reviews(self._run.path, [review])
                self._known.add(review.id)
        return review

    def current(self) -> list[dict[str, Any]]:
        """The verdicts that count, as the page reads them."""
        with self._lock:
            found = newest_reviews(read_reviews(self._run.path)).values()
        return [to_json(review) for review in found]

    def close(self) -> None:
        """Take no more, once the one that is being written is on the disk."""
        with self._lock:
            self._is_open = False

    def import_file(self, path: Path) -> Imported:
        """Write what fits of a file that a page has exported; the rest is named.

        Raises `UserError`, nothing written, where there is no such file or a line is no verdict.
        """
        if not path.is_file():
            raise UserError(f"there is no file {path}; the gallery's page writes one: Export")
        lines = list(read_records(path, Review))
        if not lines:
            raise UserError(f"{path} holds no verdict")
        made = Imported()
        new: list[Review] = []
        with self._lock:
            for review in lines:
                self._sort(review, new, made)
            append_reviews(self._run.path, new)
        made.n_new = len(new)
        return made

    def _sort(self, review: Review, new: list[Review], made: Imported) -> None:
        if review.id in self._known:
            made.n_known += 1
            return
        try:
            self.require_fit(review)
        except Refused as error:
            is_there = review.run == self.id and 0 <= review.latent < self._n_latents
            (made.stale if is_there else made.foreign).append(str(error))
            return
        self._known.add(review.id)
        new.append(review.tidied(review.at or _now()))

    def require_fit(self, review: Review) -> None:
        """Raises `Refused` for a verdict of another run, on no latent, or on another label."""
        results = self._run.results
        results.forget_outdated()
        if review.run != self.id:
            raise Refused(f"the verdict on latent {review.latent} is of another SAE or store")
        if not 0 <= review.latent < self._n_latents:
            raise Refused(f"there is no latent {review.latent}; the run has {self._n_latents}")
        said = results.explanation(review.latent)
        if not is_fresh(review, said):
            now = interpretation(said)
            has = f"now it is {now!r}" if now else "now it has none"
            raise Refused(f"latent {review.latent}: the verdict is on {review.label!r}, {has}")


def name_some(reasons: Sequence[str], most: int = 10) -> list[str]:
    """The first of them, and how many more there are."""
    rest = len(reasons) - most
    return [*reasons[:most], *([f"... and {rest} more"] if rest > 0 else [])]


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
