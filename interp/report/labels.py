"""The run's files -> `labels.csv`: one row per latent, for spreadsheets and pandas."""

from __future__ import annotations

import codecs
import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from interp.records.circular import is_circular
from interp.records.effect import CausalEffect
from interp.records.support import Support
from interp.records.tasks import MORE, TASKS, TaskScore
from interp.records.types import Explanation, LatentStats, Score
from interp.records.wording import interpretation, marked_label
from interp.report.nulls.baseline import against_linear
from interp.report.nulls.controls import control_scores, supports_of
from interp.report.nulls.specificity import specificities
from interp.run.run import Run
from interp.run.transfer_file import read_transfer
from interp.run.verdicts import Review, fresh_reviews
from sae.core.csv_cells import write_cell
from sae.core.errors import UserError, quote
from sae.core.files import replacing
from sae.core.label_table import COUNT_COLUMNS, read_label_table
from sae.core.lock import hold

if TYPE_CHECKING:
    import pandas as pd

FILE = "labels.csv"
WAIT = 60.0
"""Seconds that another process gets which is just writing the same file."""

HUMAN_COLUMNS = (
    *("human_verdict", "human_label", "human_note"),
    *("human_auroc", "human_auroc_low", "human_auroc_high"),
)
EFFECT_COLUMNS = tuple(
    f"{edit}{bound}" for edit in ("ablate", "boost") for bound in ("", "_low", "_high")
)
COLUMNS = (
    "latent_id",
    "interpretation",
    "label",
    "second_label",
    "description",
    "verdict",
    "confidence",
    *HUMAN_COLUMNS,
    "auroc",
    "auroc_low",
    "auroc_high",
    "auroc_easy",
    "auroc_hard",
    "auroc_strong",
    "rho",
    "rho_low",
    "rho_high",
    "precision_at_base_rate",
    "balanced_accuracy",
    "spearman",
    *COUNT_COLUMNS,
    "supported",
    "gain",
    "gain_low",
    "gain_high",
    "best_null",
    "p",
    "p_adjusted",
    "gain_over_untrained",
    "specificity",
    "beats_linear",
    "frequency",
    "token_frequency",
    "mean_activation",
    "max_activation",
    "sketch_share",
    "class_entropy",
    "status",
    "reason",
    "note",
    "stopped",
    "domain",
    "provenance",
    "explainer",
    "scorer",
    "circular",
    "causal",
    *EFFECT_COLUMNS,
    "transfer",
    "dollars",
)
"""All but `share_DOMAIN`, one for each domain of the store, which stand after `sketch_share`."""

Cell = str | int | float


def write_labels(run: Run) -> Path:
    """Write `labels.csv` of a run and return its path. The same files give the same bytes.

    Every latent has a row, dead ones too. `interpretation` is what a person wrote in place of the
    label; else the label with its mark where it is unclear and with the second one, "" without one;
    `status` says why: "dead", "dense", "failed: KIND" of the explainer, "unscored: KIND" of the
    scorer.
    """
    results, clip = run.results, run.info.clip
    supports = supports_of(results)
    untrained = control_scores(run.path, "untrained")
    asked = {task.kind for task in results.tasks}
    columns = columns_of(run.evidence.info.domains, [kind for kind in TASKS if kind in asked])
    crossed, baselines = read_transfer(run.path), against_linear(results)
    specific, reviews = specificities(results), fresh_reviews(run.path, results)
    edited = {line.score.latent: line.score for line in run.edited.score_lines}
    lines = [",".join(map(write_cell, columns))]
    for latent in range(run.evidence.info.n_latents):
        stats = run.evidence.stats(latent)
        score = results.score(latent)
        cells = _cells(stats, results.explanation(latent), score, clip)
        cells |= _effect_cells(results.effect(latent))
        cells |= _support_cells(supports.get(latent), score, untrained)
        human = (reviews.get(latent), edited.get(latent))
        cells |= _human_cells(*human, cells["interpretation"])
        tasks = results.tasks_of(latent)
        cells |= _task_cells(tasks) | {"dollars": _dollars(cells["dollars"], tasks)}
        cells["transfer"] = crossed[latent].kind if latent in crossed else ""
        cells["specificity"] = specific[latent].share if latent in specific else math.nan
        beaten = baselines[latent].is_beaten if latent in baselines else None
        cells["beats_linear"] = "" if beaten is None else _yes_or_no(beaten)
        lines.append(",".join(_written(cells[name]) for name in columns))
    path = run.path / FILE
    lock = path.with_name(f"{FILE}.lock")
    with closing(hold(lock, wait=WAIT)), replacing(path) as part:
        # The mark at the start has Excel show accents.
        text = "".join(f"{line}\n" for line in lines).encode("utf-8", "replace")
        part.write_bytes(codecs.BOM_UTF8 + text)
    return path


def columns_of(domains: Sequence[str], tasks: Sequence[str] = ()) -> tuple[str, ...]:
    """The columns for a store of these domains; `sketch_share` only where one is "sketch".

    Those of judging tasks stand before `frequency`, for each task that was asked.
    """
    figures = [name for kind in tasks for name in _task_columns(kind)]
    at = COLUMNS.index("sketch_share")
    sketch = COLUMNS[at : at + 1] if "sketch" in domains else ()
    first = COLUMNS.index("frequency")
    before = (*COLUMNS[:first], *figures, *COLUMNS[first:at])
    return (*before, *sketch, *map("share_{}".format, domains), *COLUMNS[at + 1 :])


def read_labels(path: Path | str) -> pd.DataFrame:
    """`labels.csv` as a table with the labels as they were: "NA" is a label, "" is none.

    `path` may be the run. Numbers that are missing are NaN (counts: <NA>). Raises `UserError` when
    there is no such file.
    """
    path = Path(path) / FILE if Path(path).is_dir() else Path(path)
    again = f"run `interp cards --run {quote(path.parent)}` to write it"
    if not path.is_file():
        raise UserError(f"{path} is missing; {again}")
    try:
        return read_label_table(path.read_bytes(), str(path))
    except UserError as error:
        raise UserError(f"{error}; {again} anew") from None


def _cells(
    stats: LatentStats, explanation: Explanation | None, score: Score | None, clip: str
) -> dict[str, Cell]:
    usd = (explanation.usd if explanation else 0.0) + (score.usd if score else 0.0)
    return {
        "latent_id": stats.latent,
        "interpretation": interpretation(explanation),
        "label": marked_label(explanation),
        "second_label": (explanation.second_label if explanation else None) or "",
        "description": explanation.description if explanation else "",
        "verdict": explanation.verdict if explanation else "",
        "confidence": _known(explanation.confidence if explanation else None),
        **_score_cells(score),
        "frequency": stats.frequency,
        "token_frequency": stats.token_frequency,
        "mean_activation": stats.mean_act,
        "max_activation": stats.max_act,
        "sketch_share": stats.sketch_share,
        **{f"share_{domain}": share for domain, share in stats.domain_share.items()},
        "class_entropy": stats.class_entropy,
        "status": _status(stats.status, explanation, score),
        "reason": _reason(explanation, score),
        "note": score.note if score else "",
        "stopped": score.stopped if score else "",
        "domain": explanation.domain if explanation else "",
        "provenance": explanation.provenance if explanation else "",
        "explainer": explanation.model if explanation else "",
        "scorer": score.model if score else "",
        "circular": _yes_or_no(is_circular(score.model, clip)) if score else "",
        "dollars": usd if explanation else math.nan,
    }


def _score_cells(score: Score | None) -> dict[str, Cell]:
    names = COLUMNS[COLUMNS.index("auroc") : COLUMNS.index("supported")]
    return {name: math.nan if score is None else getattr(score, name) for name in names}


def _human_cells(review: Review | None, edited: Score | None, machine: Cell) -> dict[str, Cell]:
    """What a person said; the figures are of the person's own label, where it was scored."""
    label = review.better if review else ""
    score = edited if edited and edited.label == label else None
    figures = ("auroc", "auroc_low", "auroc_high")
    return {
        "interpretation": label or machine,
        "human_verdict": review.verdict if review else "",
        "human_label": label,
        "human_note": review.note if review else "",
        **{f"human_{name}": getattr(score, name, math.nan) for name in figures},
    }


def _effect_cells(effect: CausalEffect | None) -> dict[str, Cell]:
    figures = {name: getattr(effect, name, math.nan) for name in EFFECT_COLUMNS}
    return {"causal": effect.shown_by if effect else "", **figures}


def _support_cells(
    support: Support | None, score: Score | None, untrained: Sequence[Score]
) -> dict[str, Cell]:
    """`untrained`: scores of an untrained SAE's labels; those by the same judge are compared."""
    figures = ("gain", "gain_low", "gain_high", "p", "p_adjusted")
    null = [
        s.auroc for s in untrained if score and (s.model, s.prompt) == (score.model, score.prompt)
    ]
    return {
        "supported": support.state if support else "",
        "best_null": support.best if support else "",
        **{name: getattr(support, name) if support else math.nan for name in figures},
        "gain_over_untrained": score.auroc - fmean(null) if score and null else math.nan,
    }


def _task_columns(kind: str) -> list[str]:
    return [kind, f"{kind}_low", f"{kind}_high", *(f"{kind}_{name}" for name in MORE[kind])]


def _task_cells(tasks: Mapping[str, TaskScore]) -> dict[str, Cell]:
    cells: dict[str, Cell] = {}
    for kind in TASKS:
        cells |= dict.fromkeys(_task_columns(kind), math.nan)
        task = tasks.get(kind)
        if task is not None:
            figures = {"chance": task.chance, **task.more}
            cells |= {kind: task.value, f"{kind}_low": task.low, f"{kind}_high": task.high}
            cells |= {f"{kind}_{name}": figures.get(name, math.nan) for name in MORE[kind]}
    return cells


def _dollars(usd: Cell, tasks: Mapping[str, TaskScore]) -> float:
    """With what judging tasks cost; NaN where nothing was asked of the latent."""
    paid = math.fsum(task.usd for task in tasks.values())
    known = 0.0 if isinstance(usd, str) or (math.isnan(usd) and tasks) else usd
    return known + paid


def _status(status: str, explanation: Explanation | None, score: Score | None) -> str:
    if explanation is not None and explanation.failure is not None:
        return f"failed: {explanation.failure}"
    if score is not None and score.failure is not None:
        return f"unscored: {score.failure}"
    return status


def _reason(explanation: Explanation | None, score: Score | None) -> str:
    """Why there is no label, or why answers about it are missing."""
    if explanation is not None and explanation.failure is not None:
        return explanation.reason
    return score.reason if score is not None else ""


def _written(cell: Cell) -> str:
    """Floats with 4 significant digits; text so that no spreadsheet takes it for a formula."""
    if isinstance(cell, float):
        return "" if math.isnan(cell) else f"{cell:.4g}"
    if isinstance(cell, int):
        return str(cell)
    return write_cell(cell)


def _known(value: int | None) -> Cell:
    return math.nan if value is None else value


def _yes_or_no(value: bool) -> str:
    return "yes" if value else "no"
