"""A run and the number of a latent -> what its stand-alone card and its notebook card say."""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple

from interp.records.types import Evidence, Example, Score
from interp.records.wording import cut_at_word
from interp.report.gallery.cards import image_row, make_facts
from interp.report.gallery.shown import Shown, ShownReader
from interp.report.nulls.controls import supports_of
from interp.report.nulls.run_nulls import RunNulls
from interp.report.task_words import test_words
from interp.run.run import Run
from interp.run.transfer_file import read_transfer
from interp.run.verdict_table import VerdictTable
from interp.run.verdicts import fresh_reviews
from sae.core.clip_name import without_place

MOST_LETTERS = 600
"""Of any one text on a card: a server's words about a failure can be long."""
MOST_ITEMS = 12
"""Of nulls, classes, and other lists of words."""
Json = Any


class Facts(NamedTuple):
    """All that is known of one latent."""

    evidence: Evidence
    score: Score | None
    """With its verdicts; one of an earlier label is none."""
    images: dict[str, Example]
    """By id; a card's rows name them by their place here."""
    card: dict[str, Json]
    """As `make_facts` makes it, with its images, texts cut; `label` is a person's where there is
    one, `human` is what the person said."""


class FactReader:
    """Reads facts of one latent after another; what they have in common is read once."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.domains = list(run.evidence.store.domains)
        self.clip = without_place(run.evidence.store.info.clip)

    def of(self, latent: int) -> Facts:
        """Raises `UserError` when there is no such latent."""
        results, evidence = self.run.results, self.run.evidence.of(latent)
        said, score = results.explanation(latent), None
        if results.score(latent) is not None:
            score = results.score_with_verdicts(latent)
        shown, images = self._shown(latent, score)
        card = make_facts(
            evidence.stats,
            said,
            score,
            self.domains,
            shown,
            clip=self.clip,
            more={
                "effect": results.effect(latent),
                "support": self._supports.get(latent),
                "crossed": self._crossed.get(latent),
                "tasks": self._words.get(latent, []),
                "nulls": self._nulls.of(score),
            },
        )
        card["images"] = [image_row(one, self.domains) for one in images.values()]
        review = self._reviews.get(latent)
        card["human"] = None
        if review:
            card["human"] = {
                name: getattr(review, name) for name in ("verdict", "better", "note", "guess", "at")
            }
        machine = (card["explanation"] or {}).get("marked_label") or ""
        card |= {"machine": machine, "label": (review.better if review else "") or machine}
        return Facts(evidence, score, images, _cut(card))

    def _shown(self, latent: int, score: Score | None) -> tuple[Shown, dict[str, Example]]:
        """What the card shows, and its images by id."""
        verdicts = VerdictTable()
        verdicts.add(0, score.verdicts if score else ())
        reader = ShownReader(self.run.evidence, verdicts)
        [shown] = reader.of([latent], [verdicts.places(0)])
        images = map(reader.example, shown.images)
        return shown, {one.image_id: one for one in images}

    @cached_property
    def _supports(self) -> Any:
        return supports_of(self.run.results)

    @cached_property
    def _crossed(self) -> Any:
        return read_transfer(self.run.path)

    @cached_property
    def _words(self) -> Any:
        return test_words(self.run.results)

    @cached_property
    def _nulls(self) -> RunNulls:
        return RunNulls(self.run)

    @cached_property
    def bands(self) -> list[dict[str, Json]]:
        """What the labels of the run's controls reach, as the gallery's overview has it."""
        return self._nulls.bands()

    @cached_property
    def _reviews(self) -> Any:
        return fresh_reviews(self.run.path, self.run.results)


def _cut(value: Json) -> Json:
    """The same value, its texts cut at a word; the long lists of a card are of images."""
    if isinstance(value, str):
        return cut_at_word(value, MOST_LETTERS)
    if isinstance(value, dict):
        return {name: _cut(part) for name, part in value.items()}
    return [_cut(part) for part in value] if isinstance(value, list | tuple) else value
