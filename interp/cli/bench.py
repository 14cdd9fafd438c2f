"""The sub-command that measures labelers and judges where the truth is known."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Annotated

import typer

from interp.bench.config import BenchConfig, BenchSettings, names_in
from sae.cli import console
from sae.cli.console import ConfigOption, JsonOption
from sae.cli.options import spread


@spread
def bench(
    config_of: BenchConfig,
    settings: BenchSettings,
    models: Annotated[
        str,
        typer.Option(
            help="Explainers: local, local:CLIP, local:linear, oracle:HIT:ALARM, or ids of vision "
            "models; a,b."
        ),
    ] = "local",
    judges: Annotated[str, typer.Option(help="Judges, likewise.")] = "local",
    out: Annotated[Path, console.declare_out("Folder of the bench.")] = Path("results/bench"),
    estimate: Annotated[
        bool,
        typer.Option(
            "--estimate",
            help="Say what the paid models would cost; send nothing.",
            rich_help_panel="Money",
        ),
    ] = False,
    config: ConfigOption = None,
    json: JsonOption = None,
) -> None:
    """Labelers and judges on latents of known meaning: right names, scores against the truth.

    A stopped bench goes on, and nothing is paid twice. `local` and oracles need no key.
    """
    from interp.bench.report import table, titles
    from interp.bench.run import estimate_bench, run_bench

    asked = names_in("--models", models), names_in("--judges", judges)
    if estimate:
        estimates = estimate_bench(out, config_of, settings, *asked)
        for one in estimates:
            console.say(f"{one.stage} with {one.model}; nothing was sent")
            console.print_table(one.table())
        usd = math.fsum(one.usd for one in estimates)
        known = "price unknown" if math.isnan(usd) else f"${usd:.2f}"
        console.say(f"all together: {known}")
        n = sum(one.n_requests for one in estimates)
        n_prompt = math.fsum(one.prompt_tokens * one.n_requests for one in estimates)
        told = {"usd": usd, "n_requests": n, "prompt_tokens": n_prompt / n if n else 0.0}
        console.write_figures(json, told)
        return
    systems, wrote = run_bench(out, config_of, settings, *asked)
    console.print_table(table(systems), titles(systems))
    figures = {
        f"{system.part}/{system.explainer}/{system.judge}/{name}": value
        for system in systems
        for name, value in dataclasses.asdict(system).items()
        if name not in ("part", "explainer", "judge")
    }
    console.write_figures(json, figures)
    console.finish(wrote)
