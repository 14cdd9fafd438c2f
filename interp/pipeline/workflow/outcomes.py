"""What each step of a run came to: one record a step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from interp.evidence.config import CollectInfo
    from interp.pipeline.best_of.naming import Named
    from interp.pipeline.causal.stage import CausalSummary
    from interp.pipeline.judging.plan import Judging
    from interp.pipeline.settings import ModelSettings
    from interp.pipeline.transfer import Made
    from interp.run.run import Run
    from interp.score.run import ScoreSummary
    from interp.score.tasks import TaskSummary
    from sae.data.store_format import StoreInfo
    from sae.evaluation.report import EvalReport
    from sae.training.train import TrainResult


@dataclass(frozen=True)
class Embedded:
    info: StoreInfo
    n_files: int


@dataclass(frozen=True)
class Trained:
    result: TrainResult


@dataclass(frozen=True)
class Imported:
    n_latents: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Evaluated:
    figures: dict[str, float | int | None]
    report: EvalReport | None
    """None where eval.json was there, or no image is held out."""
    missing: str = ""
    """Why there are no figures."""


@dataclass(frozen=True)
class Collected:
    info: CollectInfo


@dataclass(frozen=True)
class Explained:
    run: Run
    settings: ModelSettings
    named: Named


@dataclass(frozen=True)
class Scored:
    run: Run
    plan: Judging
    summary: ScoreSummary | None
    """None where other tasks alone were asked."""
    tasks: Sequence[TaskSummary]
    """Of the other stages of `plan`: checks of the judge, and judging tasks."""
    refusals: Sequence[str]


@dataclass(frozen=True)
class Edited:
    summary: CausalSummary


@dataclass(frozen=True)
class Crossed:
    run: Run
    made: Made


@dataclass(frozen=True)
class Carded:
    labels: Path
    gallery: Path


Outcome = (
    Embedded
    | Trained
    | Imported
    | Evaluated
    | Collected
    | Explained
    | Scored
    | Edited
    | Crossed
    | Carded
)
Tell = Callable[[Outcome], None]
