"""What was compared <-> compare.csv, compare.json, match.csv and match.json in a run's folder."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from interp.records.wording import interpretation
from interp.run.run import Run
from sae.core.csv_cells import write_cell
from sae.core.files import FORMAT, read_config, replacing, write_json

if TYPE_CHECKING:
    from interp.report.changes.compare import Compared
    from interp.report.changes.match import Matched

FOLDER = "compare"
CHANGES, CHANGES_INFO = "compare.csv", "compare.json"
MATCHES, MATCHES_INFO = "match.csv", "match.json"
MOST_ROWS = 100_000
"""With more pairs than these only those are written that rise or fall, and all images' rows."""
COLUMNS = (
    *("class", "latent_id", "label", "other_label", "change", "difference", "low", "high"),
    *("p", "q", "n_before", "n_after", "mean_before", "mean_after"),
)
MATCH_COLUMNS = ("kind", "of", "latent_id", "label", "other_latent", "other_label", "correlation")
N_SHOWN = 40
"""Rises, and falls, that compare.json keeps for the gallery: those furthest from chance."""


class Shown(NamedTuple):
    """A latent that rises or falls in a class."""

    latent: int
    class_name: str
    """"" of all images."""
    difference: float
    low: float
    high: float
    q: float


@dataclass(frozen=True, kw_only=True)
class CompareInfo:
    """compare.json: what was compared, and the clearest of what came out."""

    format: int = FORMAT
    before: str
    after: str
    pairing: str
    clip_before: str
    clip_after: str
    n_before: int
    n_after: int
    n_left_out: int
    n_classes: int
    n_tested: int
    """Pairs of class and latent; where no class has enough images, latents over all images."""
    in_classes: bool
    """Which of the two."""
    n_rise: int
    n_fall: int
    """Of them, at q .05 and beyond `least`."""
    least: float
    """Share of a latent's mean activation that the whole interval is beyond."""
    latents_rise: int
    latents_fall: int
    """Distinct latents, in any class."""
    shown: list[Shown]


def write_changes(
    folder: Path, run: Run, other: Run | None, compared: Compared, least: float
) -> CompareInfo:
    """Write both files into `folder`; labels are those of `run` and, where it is one, `other`."""
    found, signs = compared.changes, compared.signs
    by_class = found.classes >= 0
    kept = np.ones(len(signs), bool) if len(signs) <= MOST_ROWS else (signs != 0) | ~by_class
    labels, theirs = _labels(run), _labels(other) if other else {}
    words = {1: "rises", -1: "falls", 0: ""}
    rows = []
    for at in np.flatnonzero(kept).tolist():
        latent, place = int(found.latents[at]), int(found.classes[at])
        name = compared.classes[place] if place >= 0 else ""
        figures = (found.difference, found.low, found.high, found.p, found.q)
        means = (found.before[at], found.after[at])
        texts = (labels.get(latent, ""), theirs.get(latent, ""), words[int(signs[at])])
        counts = [str(int(column[at])) for column in (found.n_before, found.n_after)]
        numbers = [_number(float(column[at])) for column in figures]
        cells = [write_cell(name), str(latent), *map(write_cell, texts), *numbers, *counts]
        rows.append([*cells, *(_number(float(mean)) for mean in means)])
    _write(folder / CHANGES, COLUMNS, rows)
    rise, fall = (compared.is_counted & (signs == sign) for sign in (1, -1))
    info = CompareInfo(
        before=compared.before,
        after=compared.after,
        pairing=compared.pairing,
        clip_before=compared.clips[0],
        clip_after=compared.clips[1],
        n_before=compared.n_before,
        n_after=compared.n_after,
        n_left_out=compared.n_left_out,
        n_classes=len(compared.classes),
        n_tested=int(compared.is_counted.sum()),
        in_classes=bool(by_class.any()),
        n_rise=int(rise.sum()),
        n_fall=int(fall.sum()),
        least=least,
        latents_rise=len(np.unique(found.latents[rise])),
        latents_fall=len(np.unique(found.latents[fall])),
        shown=[*clearest(compared, 1), *clearest(compared, -1)],
    )
    write_json(
        folder / CHANGES_INFO, asdict(info) | {"shown": [one._asdict() for one in info.shown]}
    )
    return info


def clearest(compared: Compared, sign: int, n: int = N_SHOWN) -> list[Shown]:
    """Those that are counted and rise (1) or fall (-1): the bound nearest to 0 is furthest off."""
    found = compared.changes
    places = np.flatnonzero((compared.signs == sign) & compared.is_counted)
    bounds = np.minimum(np.abs(found.low[places]), np.abs(found.high[places]))
    best = places[np.argsort(-bounds, kind="stable")][:n].tolist()
    return [
        Shown(
            int(found.latents[at]),
            compared.classes[found.classes[at]] if found.classes[at] >= 0 else "",
            float(f"{found.difference[at]:.4g}"),
            float(f"{found.low[at]:.4g}"),
            float(f"{found.high[at]:.4g}"),
            float(f"{found.q[at]:.3g}"),
        )
        for at in best
    ]


def read_changes(run_dir: Path) -> CompareInfo | None:
    """What compare.json says; None where nothing was compared. Raises `UserError` when damaged."""
    path = run_dir / FOLDER / CHANGES_INFO
    if not path.exists():
        return None
    return read_config(path, CompareInfo, "run `interp compare` again")


def write_matches(folder: Path, matched: Matched) -> dict[str, float | int | str]:
    """Write both files; the figures of match.json come back."""
    from interp.report.changes.match import KINDS  # which brings torch

    rows = [
        [
            m.kind.replace(" ", "_"),
            m.of,
            str(m.latent),
            write_cell(m.label),
            str(m.other) if m.other >= 0 else "",
            write_cell(m.other_label),
            _number(m.correlation),
        ]
        for m in matched.matches
    ]
    _write(folder / MATCHES, MATCH_COLUMNS, rows)
    figures: dict[str, float | int | str] = {
        "first": matched.first,
        "second": matched.second,
        "n_images": matched.n_images,
        **{f"n_{kind.replace(' ', '_')}": matched.count(kind) for kind in KINDS},
    }
    write_json(folder / MATCHES_INFO, {"format": FORMAT, **figures})
    return figures


def _labels(run: Run) -> dict[int, str]:
    return {n: interpretation(said) for n, said in run.results.newest_explanations().items()}


def _write(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    lines = [",".join(columns), *(",".join(row) for row in rows)]
    with replacing(path) as part:
        text = "".join(f"{line}\n" for line in lines)
        part.write_bytes(text.encode("utf-8-sig", "replace"))


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.4g}"
