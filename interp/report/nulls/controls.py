"""A run and the controls in it -> what its labels are held against: which are supported, and rows
of trained, untrained, random and shuffled side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import NamedTuple

from interp.records.support import Support, count_states, find_support
from interp.records.types import Score
from interp.run.results import Results
from interp.run.run import Run
from sae.core.shares import wilson_interval

FOLDER = "controls"
"""In a run: a run of its own for each control of the pipeline."""
PIPELINE = ("untrained", "random")


class Row(NamedTuple):
    """One kind of labels by one judge; NaN where nothing is known."""

    name: str
    """`trained` (the run's own), `untrained`, `random` or `shuffled`."""
    n_scored: int
    auroc: float
    """Mean, and its 95% interval over the latents."""
    auroc_low: float
    auroc_high: float
    n_tested: int
    """Labels that were compared with nulls."""
    supported: float
    """Share of them, and its 95% interval (Wilson)."""
    supported_low: float
    supported_high: float


def supports_of(results: Results, control: str = "") -> dict[int, Support]:
    """Whether each label is supported, from the run's files alone."""
    scores = (line.score for line in results.score_lines)
    return find_support(results.newest_explanations(), scores, control)


def control_scores(run_dir: Path, name: str) -> list[Score]:
    """The scores of a control of the pipeline, each of the label that its latent has now."""
    results = Results(run_dir / FOLDER / name)
    found = map(results.score, results.newest_explanations())
    return [score for score in found if score and score.failure is None]


def side_by_side(run: Run) -> list[Row]:
    """A row for each kind of labels that were scored by the run's newest judge and in its way: the
    means of fixed and of adaptive tests are never mixed."""
    lines = run.results.score_lines
    if not lines:
        return []
    by = _way(lines[-1].score)
    rows = [_row("trained", run.results, "", by)]
    rows += [_row(name, Results(run.path / FOLDER / name), "", by) for name in PIPELINE]
    rows.append(_row("shuffled", run.results, "shuffled", by))
    return [row for row in rows if row.n_scored]


def table(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """For people, with a line of heads."""
    heads = ("labels of", "scored", "mean AUROC", "95%", "supported", "95%")
    return [heads, *map(_cells, rows)]


def flat(rows: Sequence[Row]) -> dict[str, float | int]:
    """The figures as one flat object: trained/auroc, ..."""
    return {
        f"{row.name}/{name}": value
        for row in rows
        for name, value in row._asdict().items()
        if name != "name"
    }


def _way(score: Score) -> tuple[str, str, bool]:
    """Who judged, with which prompt, and whether the test was adaptive."""
    return score.model, score.prompt, score.looks > 0


def _row(name: str, results: Results, control: str, by: tuple[str, str, bool]) -> Row:
    newest = results.newest_explanations()
    last = {
        line.score.latent: line.score
        for line in results.score_lines
        if line.score.control == control and _way(line.score) == by
    }
    areas = [score.auroc for score in last.values() if score.failure is None]
    found = find_support(newest, last.values(), control).values()
    n = count_states(found)["supported"]
    mean = fmean(areas) if areas else math.nan
    half = 1.96 * stdev(areas) / math.sqrt(len(areas)) if len(areas) > 1 else math.nan
    share = wilson_interval(n, len(found))
    supported = n / len(found) if found else math.nan
    return Row(name, len(areas), mean, mean - half, mean + half, len(found), supported, *share)


def _cells(row: Row) -> tuple[str, ...]:
    tested = row.n_tested > 0
    return (
        row.name,
        f"{row.n_scored:,}",
        f"{row.auroc:.3f}",
        f"{row.auroc_low:.3f} to {row.auroc_high:.3f}",
        f"{row.supported:.1%}" if tested else "-",
        f"{row.supported_low:.1%} to {row.supported_high:.1%}" if tested else "-",
    )
