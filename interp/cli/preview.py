"""Stages -> what they would ask and cost, or their first requests as files; nothing is sent."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.pipeline.settings import Work
from interp.records.tasks import CHECKS
from sae.cli import console
from sae.core.errors import OK, quote

if TYPE_CHECKING:
    from interp.llm.cost.estimate import Estimate
    from interp.pipeline.stage import Stage
    from interp.run.run import Run


def preview(run: Run, stages: Sequence[Stage[Any, Any, Any]], work: Work, json: Path | None) -> int:
    """`--estimate` or `--dry-run`. What follows the first stage is a line each, and its share."""
    from interp.pipeline.stage import write_first_requests

    paid = [stage for stage in stages if not stage.is_local] or stages[:1]
    if work.dry_run is not None and not work.estimate:
        return say_written(write_first_requests(run, paid, work.dry_run))
    first, *others = [stage.estimate() for stage in paid]
    nulls = paid[0].estimate_nulls() if paid else None
    say_estimate(first)
    for line in _further_lines(first, others, nulls):
        console.say(line)
    parts = [nulls, *others] if nulls else others
    more = {f"{e.stage}/{k}": v for e in parts for k, v in dataclasses.asdict(e).items()}
    more |= {
        f"in_all/{k}": sum(getattr(e, k) for e in (first, *others)) for k in ("n_requests", "usd")
    }
    console.write_figures(json, {**dataclasses.asdict(first), **more})
    return OK


def preview_in_all(
    estimates: Sequence[Estimate], write: Callable[[int], list[Path]], work: Work, json: Path | None
) -> int:
    """The same of a command whose stages build on each other, under one --max-cost.

    `write`: writes that many first requests as files.
    """
    if work.dry_run is not None and not work.estimate:
        return say_written(write(work.dry_run))
    for estimate in estimates:
        say_estimate(estimate)
    total = sum(estimate.usd for estimate in estimates)
    if len(estimates) > 1:
        console.say(f"in all {_dollars(total)}, under one --max-cost")
    figures = {f"{e.stage}/{k}": v for e in estimates for k, v in dataclasses.asdict(e).items()}
    console.write_figures(json, figures)
    return OK


def say_estimate(estimate: Estimate) -> None:
    console.say(f"{estimate.stage} with {estimate.model}; nothing was sent")
    console.print_table(estimate.table())
    for remark in estimate.remarks():
        console.say(f"  {remark}")


def say_written(requests: list[Path]) -> int:
    console.say(f"{len(requests)} requests written, none sent")
    if requests:
        console.finish({"requests": requests[0].parent}, [f"open {quote(requests[0])}"])
    return OK


def _further_lines(
    first: Estimate, others: Sequence[Estimate], nulls: Estimate | None
) -> list[str]:
    """A line for the first stage's nulls and one for each further stage of a command, with its
    share of what the first costs without nulls."""
    of_nulls = nulls.usd if nulls else 0.0
    bare = first.usd - of_nulls
    lines = [
        f"  {other.stage} with {other.model}: {other.n_requests:,} requests on "
        f"{other.n_latents:,} latents, {_dollars(other.usd)}{_share(other.usd, bare)}"
        for other in others
    ]
    if nulls:
        lines.insert(
            0,
            f"  of it for nulls: labels of other latents in {nulls.n_requests:,} requests on "
            f"{nulls.n_latents:,} latents, {_dollars(nulls.usd)}{_share(nulls.usd, bare)}",
        )
    checks = [other.usd for other in others if other.stage.removeprefix("score-") in CHECKS]
    if others:
        total = first.usd + math.fsum(other.usd for other in others)
        checked = _share(of_nulls + math.fsum(checks), bare) if checks else ""
        what = "nulls and checks of the judge" if nulls else "checks of the judge"
        lines.append(f"  in all {_dollars(total)}" + (f"; {what}{checked}" if checked else ""))
    return lines


def _share(usd: float, of: float) -> str:
    return f" (+{usd / of:.1%})" if of > 0 else ""


def _dollars(usd: float) -> str:
    return "price unknown" if math.isnan(usd) else f"${usd:,.4f}"
