"""The JSON Lines files of a run -> records; each file is read once and never written.

The last line on a latent counts. A torn last line, which another process may be writing just now,
is passed over: only the process that holds the run's lock mends it, before it appends.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from interp.records.codec import from_json, read_records
from interp.records.effect import CausalEffect
from interp.records.score_line import ScoreLine, digest_of
from interp.records.tasks import CHECKS, TaskScore
from interp.records.types import Explanation, Score
from sae.core.errors import UserError
from sae.core.files import JsonLine, parse_object, walk_jsonl

if TYPE_CHECKING:
    from interp.run.verdict_table import VerdictTable

EXPLANATIONS = "explanations.jsonl"
SCORES = "scores.jsonl"
CAUSAL = "causal.jsonl"
TASKS = "tasks.jsonl"
VERDICTS = "verdicts.jsonl"
"""What people said of labels; `verdicts.py` reads and writes it."""


class Results:
    """What was said and measured of the latents of one run so far."""

    def __init__(self, run_dir: Path) -> None:
        """A file is read when it is first asked for; a missing one is empty."""
        self._explanations = run_dir / EXPLANATIONS
        self._scores = run_dir / SCORES
        self._causal = run_dir / CAUSAL
        self._tasks = run_dir / TASKS
        self._known: dict[Path, int] = {}  # bytes of a file when it was read or added to

    @cached_property
    def explanations(self) -> list[Explanation]:
        """Every line of explanations.jsonl, oldest first."""
        self._known[self._explanations] = _size(self._explanations)
        return list(read_records(self._explanations, Explanation))

    @cached_property
    def score_lines(self) -> list[ScoreLine]:
        """Every line of scores.jsonl, oldest first, without the verdicts."""
        self._known[self._scores] = _size(self._scores)
        return [self._without_verdicts(line) for line in walk_jsonl(self._scores)]

    def read_verdicts(self) -> VerdictTable:
        """The verdicts of every line of scores.jsonl; `score_lines` come of the same reading."""
        from interp.run.verdict_table import VerdictTable

        table, lines = VerdictTable(), []
        self._known[self._scores] = _size(self._scores)
        for line in walk_jsonl(self._scores):
            lines.append(self._without_verdicts(line))
            if not table.add_json(line.span[0], line.values["verdicts"]):
                place = f"{self._scores}, line {line.number},"
                table.add(line.span[0], from_json(Score, line.values, place).verdicts)
        self.__dict__.pop("_measured", None)
        self.__dict__["score_lines"] = lines
        return table

    @cached_property
    def effects(self) -> list[CausalEffect]:
        """Every line of causal.jsonl, oldest first."""
        self._known[self._causal] = _size(self._causal)
        return list(read_records(self._causal, CausalEffect))

    @cached_property
    def tasks(self) -> list[TaskScore]:
        """Every line of tasks.jsonl, oldest first."""
        self._known[self._tasks] = _size(self._tasks)
        return list(read_records(self._tasks, TaskScore))

    def tasks_of(self, latent: int) -> dict[str, TaskScore]:
        """By task, the last result of the label that the latent has now, or that needed none."""
        label = self.label(latent)
        found = self._judged.get(latent, {})
        return {kind: task for kind, task in found.items() if task.label in ("", label)}

    def explanation(self, latent: int) -> Explanation | None:
        """The last word of an explainer on the latent, a failure too."""
        return self._said.get(latent)

    def label(self, latent: int) -> str | None:
        """The latent's label; None when there is none (yet)."""
        explanation = self.explanation(latent)
        return explanation.label if explanation else None

    def newest_explanations(self) -> dict[int, Explanation]:
        """The last explanation of every latent that has one, in the order of the latents."""
        return dict(sorted(self._said.items()))

    def score(self, latent: int) -> Score | None:
        """The score, without verdicts, of the label that the latent has now; no control.

        A score of an earlier label is none.
        """
        line = self.score_line(latent)
        return line.score if line else None

    def score_line(self, latent: int) -> ScoreLine | None:
        """The same with the images that tested it."""
        line = self._measured.get(latent)
        return line if line and line.score.label == self.label(latent) else None

    def score_with_verdicts(self, latent: int) -> Score | None:
        """The last score of the latent, be it of an earlier label; its line is read again."""
        line = self._measured.get(latent)
        return self.with_verdicts(line) if line else None

    def newest_score_line(self, latent: int) -> ScoreLine | None:
        """Of the last score of the latent, be it of an earlier label; no control."""
        return self._measured.get(latent)

    def scores_with_verdicts(self) -> Iterator[Score]:
        """Every score and control, oldest first."""
        return map(self.with_verdicts, self.score_lines)

    def with_verdicts(self, line: ScoreLine) -> Score:
        """The whole score of one of `score_lines`; its line is read again."""
        start, end = line.span
        with self._scores.open("rb") as file:
            file.seek(start)
            place = f"{self._scores}, byte {start},"
            return from_json(Score, parse_object(file.read(end - start), place), place)

    def effect(self, latent: int) -> CausalEffect | None:
        """What editing the latent does to the label that it has now, no control; None when that was
        not measured."""
        effect = self._own_effects.get(latent)
        return effect if effect and effect.label == self.label(latent) else None

    def add(self, record: Explanation | Score | TaskScore) -> None:
        """Take in a record that this process has just appended to its file.

        Raises `RuntimeError` when the file was not read before.
        """
        if isinstance(record, Explanation):
            self._require_read(self._explanations)
            self.explanations.append(record)
            self._said[record.latent] = record
            self._known[self._explanations] = _size(self._explanations)
            return
        if isinstance(record, TaskScore):
            self._require_read(self._tasks)
            self.tasks.append(record)
            self._known[self._tasks] = _size(self._tasks)
            self.__dict__.pop("_judged", None)
            return
        self._require_read(self._scores)
        start = self.score_lines[-1].span[1] if self.score_lines else 0
        self._known[self._scores] = _size(self._scores)
        images = digest_of(verdict.image_id for verdict in record.verdicts)
        bare = dataclasses.replace(record, verdicts=())
        line = ScoreLine(bare, images, (start, self._known[self._scores]))
        self.score_lines.append(line)
        if not record.control:
            self._measured[record.latent] = line

    def forget_outdated(self) -> bool:
        """Forget all that was read when another process has added to a file since; True if so."""
        if all(_size(path) == n_bytes for path, n_bytes in self._known.items()):
            return False
        for name in (
            "explanations",
            "score_lines",
            "tasks",
            "effects",
            "_said",
            "_measured",
            "_judged",
            "_own_effects",
        ):
            self.__dict__.pop(name, None)
        self._known.clear()
        return True

    @cached_property
    def _said(self) -> dict[int, Explanation]:
        return {explanation.latent: explanation for explanation in self.explanations}

    @cached_property
    def _measured(self) -> dict[int, ScoreLine]:
        own = (line for line in self.score_lines if not line.score.control)
        return {line.score.latent: line for line in own}

    @cached_property
    def _own_effects(self) -> dict[int, CausalEffect]:
        return {effect.latent: effect for effect in self.effects if not effect.control}

    @cached_property
    def _judged(self) -> dict[int, dict[str, TaskScore]]:
        found: dict[int, dict[str, TaskScore]] = {}
        for task in self.tasks:
            if task.kind not in CHECKS:
                found.setdefault(task.latent, {})[task.kind] = task
        return found

    def _require_read(self, path: Path) -> None:
        if path not in self._known:
            raise RuntimeError(f"{path} was not read before a record was added")

    def _without_verdicts(self, line: JsonLine) -> ScoreLine:
        """Verdicts are most of a line: only which images they are of is looked at."""
        place = f"{self._scores}, line {line.number},"
        score = from_json(Score, {**line.values, "verdicts": []}, place)
        try:
            images = digest_of(verdict["image_id"] for verdict in line.values["verdicts"])
        except (KeyError, TypeError):
            raise UserError(f"{place} has verdicts without image_id") from None
        return ScoreLine(score, images, line.span)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
