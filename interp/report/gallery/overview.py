"""A run's files -> what the overview tells of it: nulls, cost, failures, settings."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

from interp.records.tasks import TaskScore
from interp.records.types import Explanation, Score
from interp.report.figures import number
from interp.report.nulls.run_nulls import RunNulls
from interp.run.run import Run

Json = Any
N_REASONS = 300
"""Letters kept of a server's words about a failure."""


def make_overview(run: Run, nulls: RunNulls) -> dict[str, Json]:
    """As `overview` in data/index.js; lists are empty where the run has nothing of the kind."""
    scores = [line.score for line in run.results.score_lines]
    records: list[tuple[str, Explanation | Score | TaskScore]] = [
        *(("explain", one) for one in run.results.explanations),
        *(("score", one) for one in scores if not one.control),
        *(("controls", one) for one in scores if one.control),
        *((task.kind, task) for task in run.results.tasks),
    ]
    info = run.info
    return {
        "nulls": nulls.bands(),
        "cost": _costs(records),
        "failures": _failures(run),
        "settings": _settings(info.settings),
        "versions": dict(sorted(info.versions.items())),
        "k": info.k,
    }


def _costs(records: Iterable[tuple[str, Explanation | Score | TaskScore]]) -> list[Json]:
    """A row for each stage and model: stage, model, latents, calls, dollars (null: not known)."""
    latents: dict[tuple[str, str], set[int]] = {}
    sums: dict[tuple[str, str], list[float]] = {}
    for stage, record in records:
        key = (stage, record.model)
        latents.setdefault(key, set()).add(record.latent)
        total = sums.setdefault(key, [0.0, 0.0])
        total[0] += len(record.calls)
        total[1] += record.usd
    return [
        [*key, len(latents[key]), int(calls), None if math.isnan(usd) else number(usd)]
        for key, (calls, usd) in sums.items()
    ]


def _failures(run: Run) -> list[Json]:
    """A row for each kind of failure: stage, kind, latents, what was said about the first."""
    newest = run.results.newest_explanations()
    found = [("explain", e.failure, e.reason) for e in newest.values() if e.failure]
    for latent in newest:
        score = run.results.score(latent)
        if score is not None and score.failure:
            found.append(("score", score.failure, score.reason))
    counts = Counter((stage, kind) for stage, kind, _ in found)
    first: dict[tuple[str, str], str] = {}
    for stage, kind, reason in found:
        first.setdefault((stage, kind), reason[:N_REASONS])
    return [[*key, n, first[key]] for key, n in counts.most_common()]


def _settings(by_stage: Any) -> list[Json]:
    """A row for each setting that is set: stage, name, value as text."""
    return [
        [stage, name, str(value)]
        for stage, values in by_stage.items()
        for name, value in values.items()
        if value not in ("", None, False)
    ]
