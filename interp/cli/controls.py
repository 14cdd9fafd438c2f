"""`interp score --control untrained,random` -> their runs, or what these would cost."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from interp.pipeline.judging.settings import JudgingSettings
from interp.pipeline.settings import ModelSettings, Work
from interp.records.tasks import DETECT
from interp.run.run import Run
from sae.cli import console
from sae.core.errors import OK, UserError, quote


def require_none_chosen(control: str, judging: JudgingSettings, work: Work) -> None:
    """Raise `UserError` for what would choose among the run's latents: a control has its own."""
    if judging.kinds != (DETECT,):
        raise UserError(f"--control {control} is of --kind {DETECT} alone")
    for name in ("latents", "limit", "part"):
        if getattr(work, name):
            raise UserError(
                f"--control {control} asks of latents of its own; leave --{name} out, and say how "
                "many by --control-latents"
            )


def go_through_controls(
    run: Run,
    names: Sequence[str],
    settings: ModelSettings,
    n_latents: int,
    work: Work,
    nulls: str,
    json: Path | None,
) -> int:
    """Run these controls of the pipeline and show them beside the run's own labels."""
    from interp.pipeline.controls import run_control
    from interp.report.labels import write_labels
    from interp.report.nulls.controls import FOLDER, flat, side_by_side, table

    if work.sends_nothing:
        return _preview(run, names, settings, n_latents, nulls, json)
    for name in names:
        run_control(run, name, settings, n_latents, work, nulls)
        write_labels(Run(run.path / FOLDER / name))
    rows = side_by_side(run)
    if rows:
        console.print_table(table(rows))
    console.write_figures(json, flat(rows))
    written = {name: run.path / FOLDER / name for name in names}
    again = f"interp score {settings.typed} --run {quote(run.path)}"
    console.finish({"labels": write_labels(run), **written}, [] if rows else [again])
    return OK


def _preview(
    run: Run, names: Sequence[str], settings: ModelSettings, n: int, nulls: str, json: Path | None
) -> int:
    """Their cost; the requests are not known before the controls are collected."""
    from interp.pipeline.controls import estimate_control

    figures: dict[str, Any] = {}
    for name in names:
        for estimate in estimate_control(run, name, settings, n, nulls):
            console.say(f"{estimate.stage} with {estimate.model}; nothing was sent")
            console.print_table(estimate.table())
            found = dataclasses.asdict(estimate)
            figures |= {f"{estimate.stage}/{key}": value for key, value in found.items()}
    if not figures:
        console.say("these controls ask nobody who is paid")
    console.write_figures(json, figures)
    return OK
