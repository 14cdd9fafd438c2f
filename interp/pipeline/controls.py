"""A run and a control -> a run inside it, of an SAE that has learned nothing, explained and scored.

`controls/untrained` and `controls/random` have all files of a run, so every command works on them.
What lies there already is used again.
"""

from __future__ import annotations

import dataclasses
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from interp.evidence.collect import collect
from interp.evidence.config import FOLDER as COLLECTED
from interp.evidence.config import GROUPS, CollectConfig
from interp.evidence.control_saes import CONTROLS, control_sae
from interp.evidence.dense_latents import open_subject
from interp.llm.ledger.report import totals
from interp.pipeline.explain import ExplainStage
from interp.pipeline.score import ScoreStage, newest_explanations
from interp.pipeline.settings import AUTO, ModelSettings, Work
from interp.records.nulls import BESIDE
from interp.run.latents import choose_latents
from interp.run.run import Run
from interp.score.run import ScoreSummary
from sae.core.clip_name import is_private
from sae.core.errors import UserError
from sae.core.files import did_you_mean, replacing
from sae.core.progress import bar

if TYPE_CHECKING:
    from interp.llm.cost.estimate import Estimate

FOLDER = "controls"
SHUFFLED = "shuffled"
N_LATENTS = 64
"""Latents of a control that are explained and scored."""


def read_controls(text: str) -> list[str]:
    """The controls of the pipeline in a comma list; none for "" and "shuffled", which make no run.

    Raises `UserError` for a name that is not known, and for shuffled beside others.
    """
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    known = (SHUFFLED, *CONTROLS)
    for name in names:
        if name not in known:
            near = did_you_mean(name, known)
            raise UserError(f"--control {name!r} is not known; one of {', '.join(known)}{near}")
    if SHUFFLED in names and len(names) > 1:
        raise UserError(f"--control {text}: shuffled makes no run of its own; score it by itself")
    return [name for name in names if name != SHUFFLED]


def run_control(
    run: Run, kind: str, settings: ModelSettings, n_latents: int, work: Work, nulls: str = ""
) -> ScoreSummary:
    """Make the control's run where it is missing, explain and score `n_latents` of its latents.

    The explainer is that of the run's own labels, `settings` are the judge's. `--max-cost` is for
    all that the controls of the run ask. Raises `UserError` as the stages do.
    """
    explain = explainer_of(run, settings)
    inner = make_control(run, kind, settings.device)
    latents = _sample(inner, n_latents)
    again = Work(retry_failed=work.retry_failed)
    ExplainStage(inner, _capped(run, inner, "explain", explain), latents, again).run(
        f"{kind}: explain"
    )
    capped = _capped(run, inner, "score", settings)
    tests = [e for e in newest_explanations(inner).values() if e.latent in latents]
    return ScoreStage(inner, capped, tests, work=again, nulls=nulls).run(f"{kind}: score")


def make_control(run: Run, kind: str, device: str) -> Run:
    """The control's run with its evidence, collected with the run's own settings."""
    from sae.clip.live_store import with_embeddings
    from sae.clip.model import resolve_device

    path, reader, on = run.path / FOLDER / kind, run.evidence, resolve_device(device)
    store = with_embeddings(reader.store, on)
    written = not run.sae.exists()  # latents that were written down
    trained = None if written else open_subject(run.sae, store)[1]
    model = control_sae(kind, trained, reader, store)
    names = [field.name for field in dataclasses.fields(CollectConfig)]
    config = CollectConfig(**{name: getattr(reader.info, name) for name in names})
    if not (run.path / COLLECTED / GROUPS).exists():  # collected before there were groups
        config = dataclasses.replace(config, no_groups=True)
    groups = _groups_of(run)
    with closing(Run(path).hold()), bar(f"{kind}: collect", "images") as progress:
        inner = Run.create(path, path / "made here", model, store)
        collect(store, model, path, config, on, progress, groups=groups)
        inner.remember("collect", dataclasses.asdict(config))
    return inner


def estimate_control(
    run: Run, kind: str, settings: ModelSettings, n_latents: int, nulls: str = ""
) -> list[Estimate]:
    """What explaining and scoring would cost, with latents of the run in the control's place."""
    stages = []
    explain, labelled = explainer_of(run, settings), newest_explanations(run).values()
    latents = _sample(run, n_latents)
    if not explain.is_local:
        stages.append(ExplainStage(run, explain, latents).estimate(latents))
    if not settings.is_local:
        tests = [e for e in labelled if e.label is not None][:n_latents]
        stages.append(ScoreStage(run, settings, tests, nulls=nulls).estimate(tests))
    return [dataclasses.replace(one, stage=f"{kind}: {one.stage}") for one in stages]


def explainer_of(run: Run, settings: ModelSettings) -> ModelSettings:
    """Who named the run's own latents, as run.json has it, asked in the way of `settings`."""
    recorded = run.info.settings.get("explain", {})
    model = recorded.get("model", settings.model)
    words, clip = recorded.get("vocabulary", AUTO), recorded.get("clip", "")
    known = words in (AUTO, "world", "general", "hard")
    return dataclasses.replace(
        settings,
        model=model,
        base_url=recorded.get("base_url") or settings.base_url,
        price=settings.price if model == settings.model else "",
        clip="" if is_private(clip) else clip,
        vocabulary=words if known else AUTO,
    )


def _groups_of(run: Run) -> Path | None:
    """The run's groups as a file for `collect`, where the user has named some: the same split."""
    if not run.evidence.info.groups_sha256:
        return None
    import pandas as pd

    found = pd.read_parquet(run.path / COLLECTED / GROUPS)
    table = pd.DataFrame({"path": found["domain"] + "/" + found["path"], "group": found["group"]})
    path = run.path / FOLDER / "groups.csv"
    with replacing(path) as part:
        table.to_csv(part, index=False)
    return path


def _sample(run: Run, n: int) -> list[int]:
    """Live latents, evenly spread over their numbers."""
    live = choose_latents(run.evidence, None)
    places = np.unique(np.linspace(0, len(live) - 1, min(n, len(live))).round().astype(int))
    return [live[place] for place in places]


def _capped(run: Run, inner: Run, stage: str, settings: ModelSettings) -> ModelSettings:
    """The same with what the other stages of the controls have left of the cap."""
    if settings.max_cost is None:
        return settings
    spent = 0.0
    for ledger in sorted((run.path / FOLDER).glob("*/calls.sqlite")):
        for total in totals(ledger):
            own = total.stage.removesuffix(BESIDE) in (stage, "preflight")
            if not (ledger == inner.ledger and own):
                spent += total.usd
    return dataclasses.replace(settings, max_cost=max(settings.max_cost - spent, 0.0))
