"""The lines and figures of a bench -> bench.csv, summary.csv, bench.png and a table in bench.md."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from pathlib import Path

from interp.bench.figures import Figures, Line, names_of
from sae.core.csv_cells import write_cell
from sae.core.files import replacing

LINES, SUMMARY, FIGURE, TABLE = "bench.csv", "summary.csv", "bench.png", "bench.md"
ROWS: Mapping[str, str] = {
    "n_latents": "latents",
    "named": "pure: named with the concept or a synonym",
    "named_hypernym": "pure: a wider word, or a part",
    "named_noisy": "noisy: named",
    "named_absorbed": "absorbed: named",
    "even_flagged": "even pair: flagged",
    "even_both": "even pair: both names",
    "even_one": "even pair: one of two",
    "even_third": "even pair: a third name",
    "uneven_flagged": "uneven pair: flagged",
    "uneven_both": "uneven pair: both names",
    "domain_said": "bound to a domain: said",
    "supported": "pure, named right: believed",
    "false_supported": "of the labels believed: false",
    "false_noise": "noise: believed",
    "false_shuffled": "shuffled: believed",
    "false_random": "random direction: believed",
    "false_third": "even pair: a third name believed",
    "spearman": "Spearman(score, truth)",
    "spearman_all": "Spearman(score, truth on all images)",
    "error": "mean of score - truth, without sign",
    "cover": "truth within the interval",
    "score": "mean score",
    "truth": "mean truth",
    "regret": "regret against the best concept",
    "usd_explain": "USD to explain",
    "usd_score": "USD to score",
}
"""The fields of `Figures` that people are shown, and how."""


def write_report(out: Path, lines: Sequence[Line], systems: Sequence[Figures]) -> dict[str, Path]:
    """Write all four; gives them by name."""
    from sae.evaluation.plots import plot_against_truth

    _write_csv(out / LINES, names_of(Line), lines)
    _write_csv(out / SUMMARY, names_of(Figures), systems)
    points = {}
    for system in systems:
        own = [line for line in lines if _key(line) == _key(system)]
        known = [line for line in own if not math.isnan(line.score + line.truth)]
        truth, score = [line.truth for line in known], [line.score for line in known]
        points[_title(system, ", ")] = (truth, score)
    plot_against_truth(out / FIGURE, points)
    with replacing(out / TABLE) as part:
        part.write_text(markdown(systems), encoding="utf-8")
    return {"lines": out / LINES, "figures": out / SUMMARY, "figure": out / FIGURE}


def markdown(systems: Sequence[Figures]) -> str:
    """The figures as a table for a README: a column for each part, explainer and judge."""
    header = ["", *(_title(system, "<br>") for system in systems)]
    rows = [header, ["---"] * len(header), *table(systems)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def table(systems: Sequence[Figures]) -> list[tuple[str, ...]]:
    """Rows for people; those that no system has a figure for are left out."""
    rows = []
    for name, words in ROWS.items():
        values = [getattr(system, name) for system in systems]
        if not all(math.isnan(value) for value in values):
            rows.append((words, *map(_shown, values)))
    return rows


def titles(systems: Sequence[Figures]) -> tuple[str, ...]:
    """What stands above the columns of `table`."""
    return ("", *(_title(system, ", ") for system in systems))


def _key(record: Line | Figures) -> tuple[str, str, str]:
    return record.part, record.explainer, record.judge


def _title(system: Figures, between: str) -> str:
    return between.join(_key(system))


def _shown(value: float) -> str:
    if math.isnan(value):
        return "–"
    return str(value) if isinstance(value, int) else f"{value:.3f}"


def _write_csv(
    path: Path, names: Sequence[str], records: Sequence[Line] | Sequence[Figures]
) -> None:
    with replacing(path) as part:
        rows = [names, *(map(_cell, astuple(record)) for record in records)]
        text = "".join(f"{','.join(map(write_cell, row))}\n" for row in rows)
        part.write_text(text, encoding="utf-8", newline="")


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return str(value)
