"""What is known of all latents -> data/cNNNN.js, a shard of cards a file; and the index's rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from interp.records.support import Support
from interp.records.transfer import Transfer
from interp.records.types import Example, Explanation, LatentStats, Score
from interp.report.gallery.cards import More, frame_box, image_row, make_facts
from interp.report.gallery.index import SHARD_CARDS, Row, make_row
from interp.report.gallery.provenance import ReadCalls, make_provenance
from interp.report.gallery.related import Related
from interp.report.gallery.script import escape, to_text, write_call, write_script
from interp.report.gallery.shown import Shown, ShownReader
from interp.report.gallery.thumbs import Thumbs
from interp.report.nulls.run_nulls import RunNulls
from interp.run.run import Run
from interp.run.verdict_table import VerdictTable
from sae.core.clip_name import without_place
from sae.core.progress import Progress


class Known(NamedTuple):
    """What the run's files say of all its latents, read before the first card is made."""

    verdicts: VerdictTable
    supports: Mapping[int, Support]
    crossed: Mapping[int, Transfer]
    words: Mapping[int, list[str]]
    nulls: RunNulls
    related: Related


def write_shards(
    run: Run,
    known: Known,
    thumbs: Thumbs,
    folder: Path,
    progress: Progress | None,
    read_calls: ReadCalls | None,
) -> list[Row]:
    """Write every shard of cards and of the calls behind them; returns the rows of the index."""
    n_latents = run.evidence.info.n_latents
    cards = _Cards(run, known, thumbs)
    rows: list[Row] = []
    for k, start in enumerate(range(0, n_latents, SHARD_CARDS)):
        latents = range(start, min(start + SHARD_CARDS, n_latents))
        stats = [run.evidence.stats(latent) for latent in latents]
        said = [run.results.explanation(latent) for latent in latents]
        lines = [run.results.newest_score_line(latent) for latent in latents]
        scores = [line and line.score for line in lines]
        judged = [line and known.verdicts.places(line.span[0]) for line in lines]
        shown = cards.shown.of(latents, judged)
        text = ",".join(cards.write(stats, said, scores, shown))
        write_script(folder / f"c{k:04d}.js", f"G.shard({k},[{escape(text)}]);")
        calls = read_calls and make_provenance(list(zip(said, scores, strict=True)), read_calls)
        if calls:
            write_call(folder / f"p{k:04d}.js", "calls", k, calls)
        for counted, one, score, of in zip(stats, said, scores, shown, strict=True):
            support = known.supports.get(counted.latent)
            row = make_row(counted, one, score, of.strongest, thumbs.there)
            rows.append(row | {"supported": support.state if support else None})
        if progress:
            progress(latents.stop, n_latents)
    return rows


class _Cards:
    """Cards as text, each with the list of its images, which are most of it. State: the texts of
    the images so far; of each the text is made once."""

    def __init__(self, run: Run, known: Known, thumbs: Thumbs) -> None:
        self._run, self._known_of_run, self._thumbs = run, known, thumbs
        self._reader = run.evidence
        self._domains = list(run.evidence.store.domains)
        self._clip = without_place(run.evidence.store.info.clip)
        self.shown = ShownReader(run.evidence, known.verdicts)
        self._known: dict[int, Example] = {}
        self._plain: dict[int, str] = {}
        self._boxed: dict[int, str] = {}

    def write(
        self,
        stats: Sequence[LatentStats],
        said: Sequence[Explanation | None],
        scores: Sequence[Score | None],
        shown: Sequence[Shown],
    ) -> list[str]:
        """The JSON of each card; pictures that it shows are made."""
        keys, places = chain(*(of.keys for of in shown)), chain(*(of.images for of in shown))
        self._add(dict(zip(keys, places, strict=True)))
        texts = self._plain | self._with_boxes(shown)
        found = []
        for counted, one, score, of in zip(stats, said, scores, shown, strict=True):
            more = self._more(counted.latent, score)
            facts = make_facts(counted, one, score, self._domains, of, self._clip, more)
            images = ",".join([texts[key] for key in of.keys])
            found.append(f'{to_text(facts)[:-1]},"images":[{images}]}}')
        return found

    def _add(self, used: Mapping[int, int]) -> None:
        """Make pictures and texts of images that no card before has shown."""
        new = {
            key: self.shown.example(number)
            for key, number in used.items()
            if key not in self._known
        }
        self._known |= new
        self._thumbs.ensure(new.values())
        self._plain |= {key: self._text(example) for key, example in new.items()}

    def _with_boxes(self, shown: Sequence[Shown]) -> dict[int, str]:
        """Texts of images that these cards have a heat map of, with the place of its patches."""
        if not self._reader.info.grid:
            return {}
        pairs = (
            (key, number) for of in shown for key, number in zip(of.keys, of.images, strict=True)
        )
        boxed = {key: number for key, number in pairs if self.shown.has_heat(number)}
        for key in boxed.keys() - self._boxed.keys():
            example = self.shown.example(boxed[key])
            if example.image_id in self._thumbs.there and (heat := self._reader.heat(example)):
                box = frame_box(self._reader.size(example), heat)
                self._boxed[key] = self._text(self._known[key], box)
        return {key: self._boxed[key] for key in boxed.keys() & self._boxed.keys()}

    def _text(self, one: Example, box: Sequence[float] | None = None) -> str:
        is_there = one.image_id not in self._thumbs.missing
        return to_text(image_row(one, self._domains, is_there, box))

    def _more(self, latent: int, score: Score | None) -> More:
        known = self._known_of_run
        return {
            "effect": self._run.results.effect(latent),
            "support": known.supports.get(latent),
            "crossed": known.crossed.get(latent),
            "tasks": known.words.get(latent, []),
            "nulls": known.nulls.of(score),
            "related": known.related.of(latent),
        }
