"""What was found on masks -> results.csv, changes.csv, head/ and, last, segment.json."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sae.core.csv_cells import write_cell
from sae.core.files import FORMAT, package_version, replacing, write_json
from sae.core.output import require_own
from sae.core.shares import wilson_interval
from sae.data.store import EmbeddingStore
from sae.evaluation.intervals import mean_interval
from sae.model.identity import sae_identity
from sae.model.sae import SAE
from sae.steering.segment.config import SegmentConfig
from sae.steering.segment.run import Segmented
from sae.steering.segment.steer import METHODS

REPORT, RESULTS, CHANGES, HEAD = "segment.json", "results.csv", "changes.csv", "head"


class Result(NamedTuple):
    """A line of results.csv: a method, over the classes."""

    method: str
    target_change: float
    """Mean over the classes of the share of patches predicted as the class that change."""
    target_std: float
    """Their standard deviation, as saev has it (divided by n)."""
    other_change: float
    """The same of all other patches."""
    other_std: float
    target_low: float
    """95% interval of the mean (Student's t over the classes)."""
    target_high: float
    other_low: float
    other_high: float
    n_classes: int
    """That the mean is over: those of which held-out patches are predicted."""


class Change(NamedTuple):
    """A line of changes.csv: a method on a class, in the held-out images that show it."""

    number: int
    name: str
    method: str
    latent: int
    """That is set; of `random-vector` the one whose edit is as long."""
    threshold: float
    """Of the class's own latent, as a share of its maximum; then its F1 on both parts."""
    f1_train: float
    f1: float
    iou: float
    n_images: int
    n_target: int
    """Patches predicted as the class before; how many change, their share, its 95% interval."""
    target_changed: int
    target_change: float
    target_low: float
    target_high: float
    n_other: int
    other_changed: int
    other_change: float
    other_low: float
    other_high: float


@dataclass(frozen=True, kw_only=True)
class SegmentReport:
    """segment.json."""

    format: int = FORMAT
    sae: str
    """Identity of the SAE, and of the store."""
    store: str
    settings: dict[str, float]
    n_train: int
    """Images."""
    n_test: int
    n_classes: int
    """That are reported on."""
    miou: float | None
    """Of the head without an edit, over held-out images, without class 0."""
    mean_f1_train: float
    mean_f1: float
    version: str = field(default_factory=package_version)


def list_changes(found: Segmented) -> list[Change]:
    """By class, then method."""
    numbers = list(found.names)
    lines = []
    for place, (one, plan) in enumerate(zip(found.chosen, found.plans, strict=True)):
        for number, method in enumerate(METHODS):
            n_target, target, n_other, other = found.counts.patches[number, place].tolist()
            lines.append(
                Change(
                    one.number,
                    found.names[one.number],
                    method,
                    plan.random_latent.latent if method == "random-latent" else one.latent,
                    one.threshold,
                    one.f1,
                    found.f1[place],
                    float(found.iou[numbers.index(one.number)]),
                    int(found.counts.n_images[place]),
                    n_target,
                    target,
                    *_share(target, n_target),
                    n_other,
                    other,
                    *_share(other, n_other),
                )
            )
    return lines


def list_results(changes: Sequence[Change]) -> list[Result]:
    """By method; a class of which no patch is predicted has no share, and counts for nothing."""
    results = []
    for method in METHODS:
        mine = [change for change in changes if change.method == method and change.n_target]
        target = np.array([change.target_change for change in mine])
        other = np.array([change.other_change for change in mine if change.n_other])
        intervals = (*mean_interval(target), *mean_interval(other))
        means = (*_mean_and_std(target), *_mean_and_std(other))
        results.append(Result(method, *means, *intervals, len(target)))
    return results


def require_report(out: Path) -> None:
    """Raise `UserError` where something else lies in the folder to be written."""
    require_own(out, "segmentation", any((out / name).exists() for name in (REPORT, RESULTS)))


def write_report(
    out: Path, found: Segmented, config: SegmentConfig, model: SAE, store: EmbeddingStore
) -> list[Result]:
    """Comes back with the lines of results.csv."""
    (out / REPORT).unlink(missing_ok=True)
    changes = list_changes(found)
    results = list_results(changes)
    if found.head.info is not None:
        found.head.save(out / HEAD)
    _write_csv(out / CHANGES, Change._fields, changes)
    _write_csv(out / RESULTS, Result._fields, results)
    f1_train = float(np.mean([one.f1 for one in found.chosen]))
    report = SegmentReport(
        sae=sae_identity(model),
        store=store.info.identity,
        settings=dataclasses.asdict(config),
        n_train=found.n_train,
        n_test=found.n_test,
        n_classes=len(found.chosen),
        miou=None if math.isnan(found.miou) else found.miou,
        mean_f1_train=f1_train,
        mean_f1=float(np.mean(found.f1)),
    )
    write_json(out / REPORT, report)
    return results


def _share(n_changed: int, n: int) -> tuple[float, float, float]:
    """With its 95% interval (Wilson's); NaN where there is nothing."""
    return (n_changed / n if n else math.nan, *wilson_interval(n_changed, n))


def _mean_and_std(values: NDArray[np.float64]) -> tuple[float, float]:
    if not len(values):
        return math.nan, math.nan
    return float(values.mean()), float(values.std())


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[tuple[object, ...]]) -> None:
    """Numbers in full; NaN is an empty cell."""
    with replacing(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        for row in (header, *rows):
            file.write(",".join(map(_cell, row)) + "\n")


def _cell(value: object) -> str:
    if isinstance(value, str):
        return write_cell(value)
    return "" if isinstance(value, float) and math.isnan(value) else str(value)
