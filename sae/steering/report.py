"""What steering did to classes -> metrics.csv, PatchSAE's metrics_wide.csv, recall.png."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from sae.core.csv_cells import write_cell
from sae.core.files import FORMAT, package_version, replacing_folder, write_json
from sae.core.output import require_own
from sae.core.shares import wilson_interval
from sae.data.store import EmbeddingStore
from sae.evaluation.plots import Recalls, plot_recalls
from sae.model.identity import sae_identity
from sae.model.sae import SAE
from sae.steering.classify import Steered
from sae.steering.config import SteerConfig
from sae.steering.plan import CONTROL

JOURNAL = "named.jsonl"
"""What is named so far, in the unfinished folder: a stopped command goes on from it."""
METRICS, WIDE, FIGURE, CONTROLS, INFO = (
    "metrics.csv",
    "metrics_wide.csv",
    "recall.png",
    "controls.parquet",
    "steered.json",
)


@dataclass(frozen=True, kw_only=True)
class SteerInfo(SteerConfig):
    """steered.json."""

    format: int = FORMAT
    version: str
    store_identity: str
    sae_identity: str
    names: list[str]
    """The classes that could be named, in the order of metrics_wide.csv's columns."""
    ks: list[int]


class Metric(NamedTuple):
    """A line of metrics.csv."""

    name: str
    configuration: str
    k: int
    n_images: int
    """Of the class."""
    recall: float
    """Share of them that is named as the class."""
    other_recall: float
    """Share of the images of other classes that is named as their own."""
    low: float
    high: float
    """Wilson's 95% interval of `recall`."""
    n_others: int
    mass: float
    """The part of the activation on the class's images that the latents have."""


def require_steered(out: Path) -> None:
    """Raise `UserError` where `out` holds something else."""
    require_own(out, "result of `sae steer classify`", (out / INFO).exists())


def write_steered(
    out: Path,
    steer: Callable[[Path], Steered],
    how: SteerConfig,
    model: SAE,
    store: EmbeddingStore,
) -> list[Metric]:
    """Write the folder, complete or absent; comes back with the lines of metrics.csv.

    `steer` is given the journal of what a stopped call had done.
    """
    require_steered(out)
    with replacing_folder(out, resume=True) as folder:
        found = steer(folder / JOURNAL)
        metrics = list(list_metrics(found))
        info = SteerInfo(
            **asdict(how),
            version=package_version(),
            store_identity=store.info.identity,
            sae_identity=sae_identity(model),
            names=found.names,
            ks=list(found.sets.chosen),
        )
        table = pd.DataFrame(metrics).rename(columns={"name": "class"})
        write_csv(folder / METRICS, table)
        write_csv(folder / WIDE, _widen(found, metrics))
        plot_recalls(folder / FIGURE, summarise(metrics))
        _list_controls(found).to_parquet(folder / CONTROLS, index=False)
        write_json(folder / INFO, info)
        (folder / JOURNAL).unlink(missing_ok=True)
    return metrics


def list_metrics(found: Steered) -> Iterator[Metric]:
    """A line for each class and configuration."""
    for number in found.steered:
        of_class = found.pairs.classes == number
        own, others = (found.right[of_class & (found.pairs.own == mine)] for mine in (True, False))
        for column, which in enumerate(found.configurations):
            yield Metric(
                found.names[number],
                which.name,
                which.k,
                len(own),
                _share(own[:, column]),
                _share(others[:, column]),
                *wilson_interval(int(own[:, column].sum()), len(own)),
                len(others),
                float(found.sets.share(which)[found.sets.rows[number]]),
            )


def summarise(metrics: list[Metric]) -> dict[str, Recalls]:
    """By "on", "off", "control_on", "control_off" the means over the classes, and "no_sae"."""
    frame = pd.DataFrame(metrics)
    frame["kind"] = frame["configuration"].str.replace(r"_\d+$", "", regex=True)
    curves: dict[str, Recalls] = {}
    for kind, part in frame.groupby("kind", sort=False):
        mean = part.groupby("k")[["recall", "other_recall"]].mean()
        curves[str(kind)] = Recalls(
            mean.index.tolist(), mean["recall"].tolist(), mean["other_recall"].tolist()
        )
    return curves


def _share(right: np.ndarray) -> float:
    return float(right.mean()) if len(right) else np.nan


def _widen(found: Steered, metrics: list[Metric]) -> pd.DataFrame:
    """Percent, a column a class, in PatchSAE's order of lines; empty for one not looked at."""
    own = [m for m in metrics if not m.configuration.startswith(CONTROL)]
    numbers = {name: number for number, name in enumerate(found.names)}
    order = [c.name for c in found.configurations if not c.name.startswith(CONTROL)]
    wide = pd.DataFrame(np.nan, index=order, columns=range(len(found.names)))
    for m in own:
        wide.loc[m.configuration, numbers[m.name]] = 100 * m.recall
    return wide.rename_axis("configuration").reset_index()


def _list_controls(found: Steered) -> pd.DataFrame:
    lines = [
        (found.names[number], k, latent)
        for k, latents in found.sets.control.items()
        for number in found.steered
        for latent in latents[found.sets.rows[number]]
    ]
    columns: Mapping[str, str] = {"class": "str", "k": "int32", "latent": "int32"}
    return pd.DataFrame(lines, columns=list(columns)).astype(columns)


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """A table with a line of names; "" for NaN, and no text that a spreadsheet runs."""
    rows = [map(str, table.columns), *table.itertuples(index=False)]
    lines = [",".join("" if x != x else write_cell(str(x)) for x in row) for row in rows]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
