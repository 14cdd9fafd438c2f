"""Sweeps: an SAE for every combination of some settings, on one pass over the data.

DIR/
    lr0.001-k16/ ...     each a full SAE folder, the same as that of a training of its own
    sweep.csv            a line for each, measured on the images that were held out
    sweep.png            their FVU against their L0
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from sae.core import distributed
from sae.core.errors import UserError
from sae.core.files import replacing
from sae.core.lock import LOCK, hold
from sae.core.output import is_new, require_own
from sae.data.split import holdout_rows
from sae.data.store import EmbeddingStore
from sae.evaluation.evaluate import evaluate
from sae.evaluation.plots import Point, plot_pareto
from sae.evaluation.reconstruction import Fit
from sae.model.sae import CONFIG
from sae.training import folder
from sae.training.config import TrainConfig
from sae.training.context import TrainContext
from sae.training.loop import NotFinite
from sae.training.sweep.grid import Value, Variant, variants_of
from sae.training.train import TrainResult, train_all

TABLE = "sweep.csv"
PLOT = "sweep.png"
MEASURED_TOKENS = 1 << 16
FIGURES = ("fvu", "l0", "dead", "almost_dead", "dense")


@dataclass(frozen=True)
class SweepRow:
    """What became of a variant."""

    variant: Variant
    lr: float
    """As it was given, or chosen; 0 where none could be chosen."""
    fit: Fit | None
    """None exactly when `failure` says why."""
    failure: str = ""


@dataclass(frozen=True)
class Sweep:
    """All that a sweep found."""

    out: Path
    rows: list[SweepRow]
    n_trained: int
    """The others were there already, or failed."""
    n_held_out: int
    """Images that the figures are measured on; 0: training images, as none was held out."""

    def front(self) -> list[bool]:
        """Of each row: whether no other has a lower FVU without a higher L0, nor the reverse."""
        fits = [row.fit for row in self.rows]
        return [
            fit is not None and not any(_is_better(other, fit) for other in fits) for fit in fits
        ]

    def failures(self) -> dict[str, str]:
        """Why the SAEs that are not there are not, by name."""
        return {row.variant.name: row.failure for row in self.rows if row.failure}

    def best(self) -> Path | None:
        """The SAE with the lowest FVU."""
        fits = {row.variant.name: row.fit for row in self.rows if row.fit}
        return self.out / min(fits, key=lambda name: fits[name].fvu) if fits else None

    def files(self) -> dict[str, Path]:
        """What stands beside the SAEs."""
        plot = {"plot": self.out / PLOT} if self.best() else {}
        return {"SAEs": self.out, "table": self.out / TABLE, **plot}

    def measured_on(self) -> str:
        """For the headline of the table."""
        if self.n_held_out:
            return f"measured on {self.n_held_out:,} images that training has not seen"
        return "measured on training images: none was held out"

    def cells(self) -> Iterator[dict[str, Value | bool]]:
        """The lines of sweep.csv; figures are empty where training failed."""
        for row, on_front in zip(self.rows, self.front(), strict=True):
            figures = {name: getattr(row.fit, name) if row.fit else "" for name in FIGURES}
            values = row.variant.values | {"lr": row.lr or ""}
            yield {"sae": row.variant.name, **values, **figures} | {
                "on_front": on_front,
                "failure": row.failure,
            }

    def flat(self) -> dict[str, Value | bool]:
        """One flat object: "lr0.001-k16/fvu" and so on."""
        return {
            f"{line['sae']}/{name}": value
            for line in self.cells()
            for name, value in line.items()
            if name != "sae" and value != ""
        }

    def table(self) -> tuple[list[tuple[str, ...]], tuple[str, ...]]:
        """Rows and header to print; a star marks the front."""
        rows = []
        for row, on_front in zip(self.rows, self.front(), strict=True):
            figures = [f"{getattr(row.fit, name):.4f}" if row.fit else "" for name in FIGURES]
            rows.append((row.variant.name, f"{row.lr:.3g}", *figures, "*" if on_front else ""))
        return rows, ("", "lr", *FIGURES, "best")


def run_sweep(
    store: EmbeddingStore,
    out: Path,
    base: TrainConfig,
    words: Sequence[str],
    context: TrainContext = TrainContext(),
) -> Sweep:
    """Train an SAE in `out` for each combination that `words` ask for; `base` has all else.

    Those of one seed share every batch; another seed is another pass. What `training.train` says
    of a single SAE holds of each: a stopped sweep goes on, finished ones are left as they are. One
    whose loss is not finite is a line with a failure, and the others go on.
    """
    variants = variants_of(words, base)
    if (out / CONFIG).exists():
        raise UserError(f"{out} holds an SAE; give the sweep a folder of its own")
    require_own(out, "sweep", _is_own(out))
    if context.log not in ("", "tensorboard"):
        raise UserError(
            f"--log {context.log} follows one SAE at a time; with --sweep use tensorboard"
        )
    with distributed.join_processes(torch.device(context.device)) as group, ExitStack() as held:
        group.do_first(lambda: _hold(out, held))
        results: dict[str, TrainResult | NotFinite] = {}
        for same in _by_seed(variants):
            jobs = {out / variant.name: variant.config for variant in same}
            trained = train_all(store, jobs, context)
            results |= dict(zip([variant.name for variant in same], trained, strict=True))
        rows, are_held_out = _measured_rows(store, base.holdout, _calibration(results.values()))
        found = [_row(v, results[v.name], store, rows, group.device) for v in variants]
        n_trained = sum(isinstance(r, TrainResult) and r.trained for r in results.values())
        sweep = Sweep(out, found, n_trained, len(rows) * are_held_out)
        if group.is_first:
            _write(sweep)
        group.wait()
    return sweep


def _is_own(out: Path) -> bool:
    """Whether nothing but SAEs and what is said of them is there."""
    paths = (
        [path for path in out.iterdir() if path.name not in (TABLE, PLOT)] if out.is_dir() else []
    )
    return all(path.is_dir() and (folder.is_own(path) or is_new(path)) for path in paths)


def _hold(out: Path, held: ExitStack) -> None:
    held.enter_context(closing(hold(out / LOCK)))


def _by_seed(variants: Sequence[Variant]) -> list[list[Variant]]:
    """The order of the data follows from the seed: those of one seed share a pass."""
    seeds = dict.fromkeys(variant.config.seed for variant in variants)
    return [[v for v in variants if v.config.seed == seed] for seed in seeds]


def _calibration(results: Iterable[TrainResult | NotFinite]) -> float:
    """The largest share of images on which one of the SAEs has set its threshold."""
    models = [result.model for result in results if isinstance(result, TrainResult)]
    return max((model.config.calibration for model in models), default=0.0)


def _measured_rows(
    store: EmbeddingStore, holdout: float, calibration: float
) -> tuple[NDArray[np.int64], bool]:
    """Images of about `MEASURED_TOKENS` tokens, spread over all; and whether they are held out."""
    rows = np.flatnonzero(holdout_rows(store.images, holdout, calibration))
    are_held_out = len(rows) > 0
    if not are_held_out:
        rows = np.arange(store.info.n_images)
    step = max(1, len(rows) * store.info.tokens_per_image // MEASURED_TOKENS)
    return rows[::step], are_held_out


def _row(
    variant: Variant,
    result: TrainResult | NotFinite,
    store: EmbeddingStore,
    rows: NDArray[np.int64],
    device: torch.device,
) -> SweepRow:
    if isinstance(result, NotFinite):
        return SweepRow(variant, variant.config.lr, None, str(result))
    lr = result.choice.lr if result.choice else variant.config.lr
    return SweepRow(variant, lr, evaluate(result.model, store, rows, device).overall)


def _is_better(one: Fit | None, other: Fit) -> bool:
    if one is None:
        return False
    is_no_worse = one.fvu <= other.fvu and one.l0 <= other.l0
    return is_no_worse and (one.fvu < other.fvu or one.l0 < other.l0)


def _write(sweep: Sweep) -> None:
    lines = list(sweep.cells())
    with replacing(sweep.out / TABLE) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    points = [
        Point(row.fit.l0, row.fit.fvu, row.variant.name, on_front)
        for row, on_front in zip(sweep.rows, sweep.front(), strict=True)
        if row.fit
    ]
    if points:
        plot_pareto(sweep.out / PLOT, points)
