"""The sub-command that edits latents and looks whether images move as the labels say."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from interp.cli.ask import RunOption, open_run
from interp.run.latents import choose_latents
from sae.cli import console
from sae.cli.console import ConfigOption, DeviceOption, JsonOption
from sae.core.errors import quote


def causal(
    run: RunOption = None,
    latents: Annotated[
        str | None, typer.Option(help="Only these: 3,17,100-120.", show_default=False)
    ] = None,
    control: Annotated[
        str, typer.Option(help='"shuffled" tests other latents\' labels: the floor.')
    ] = "",
    device: DeviceOption = "auto",
    config: ConfigOption = None,
    json: JsonOption = None,
) -> None:
    """Edit each latent in its CLIP: do images move from and to its label? No key, no judge.

    A latent is taken out of held-out images that have it and put into some that do not, with the
    SAE's error kept. What counts is the change of similarity to the label's text beyond what other
    latents of equal strength do, and beyond other texts. A stopped run goes on.
    """
    from interp.pipeline.causal.stage import run_causal
    from interp.report.labels import write_labels
    from sae.core.progress import bar

    opened = open_run(run)
    chosen = choose_latents(opened.evidence, latents) if latents else None
    with bar("causal", unit="latents") as progress:
        summary = run_causal(opened, device, chosen, control, progress)
    for line in summary.lines():
        console.say(line)
    console.write_figures(json, dataclasses.asdict(summary))
    written = {"labels": write_labels(opened), "effects": opened.causal}
    console.finish(written, [f"interp cards --run {quote(opened.path)}"])
