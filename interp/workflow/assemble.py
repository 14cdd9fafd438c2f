"""What was typed, and a settings file -> `Settings`, or one clear error before any work."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from interp.evidence.config import CollectConfig
from interp.pipeline.settings import Work
from interp.records.nulls import BESIDE
from interp.records.tasks import SCORING
from interp.workflow.names import AUTO, COLLECT, EMBED, EVAL, NONE
from interp.workflow.options import AskSettings, ImageSettings, SizeSettings, StepSettings
from interp.workflow.settings import Said, Settings, make_models, make_training
from sae.clip.config import SourceConfig
from sae.core.errors import UserError, quote
from sae.core.files import did_you_mean
from sae.data.sources.folders import FolderConfig, parse_domains
from sae.evaluation.config import EvalConfig

PAID = ("explain", "select", "disambiguate", *SCORING, "score-control", f"score-control{BESIDE}")
PAID += ("transfer-explain", "transfer-score")
"""What questions of a run are filed under in its ledger: one `--max-cost` holds for all of them."""


def make_settings(
    out: Path,
    domains: Sequence[str],
    images: ImageSettings,
    folders: FolderConfig,
    size: SizeSettings,
    asked: AskSettings,
    steps: StepSettings,
    said: Said,
) -> Settings:
    """Of all steps. Raises `UserError` for what is missing, not known or does not fit together."""
    roots = parse_domains(domains)
    _require_sae(size.sae)
    _require_domains(steps.transfer, list(roots))
    folder_names = {field.name for field in dataclasses.fields(FolderConfig)}
    table = said.of(EMBED)
    of_folders = {name: value for name, value in table.items() if name in folder_names}
    of_source = {name: value for name, value in table.items() if name not in folder_names}
    given = dataclasses.asdict(folders)
    explainer, judge, judging = make_models(asked, said)
    collect = said.of(COLLECT)
    groups = collect.pop("groups", None)
    own = said._replace(tables={**said.tables, COLLECT: collect})
    return Settings(
        out=out,
        domains=roots,
        source=_source(images, size.sae, said._replace(tables={EMBED: of_source})),
        folders=said._replace(tables={EMBED: of_folders}).build(FolderConfig, EMBED, given),
        sae=size.sae,
        training=make_training(size, said),
        evaluation=said.build(EvalConfig, EVAL, {}),
        collect=own.build(CollectConfig, COLLECT, {}),
        groups=None if groups is None else Path(groups),
        explainer=dataclasses.replace(explainer, capped_with=PAID),
        judge=dataclasses.replace(judge, capped_with=PAID),
        judging=judging,
        causal=steps.causal,
        transfer=steps.transfer,
        allow_misfit=steps.allow_misfit,
        work=Work(retry_failed=steps.retry_failed, max_failures=steps.max_failures),
    )


def _source(images: ImageSettings, sae: str, said: Said) -> SourceConfig:
    """What was not said is that of the SAE, where it is ours and here."""
    trained = _config_of(sae)
    given: dict[str, Any] = {}
    for name in ("clip", "layer", "tokens"):
        value = getattr(images, name) or trained.get(name, "")
        given |= {name: value} if value else {}
    if trained.get("rows") == "unit":
        given["normalise"] = True
    if "clip" not in given and "clip" not in said.of(EMBED):
        what = "say which CLIP is to look at the images"
        if sae:
            what = f"--sae {quote(sae)} does not tell which CLIP it was trained on; name it"
        raise UserError(
            f"{what}: --clip ViT-B-32/openai, or --clip tiny, which knows the built-in world alone"
        )
    return said.build(SourceConfig, EMBED, given)


def _require_sae(sae: str) -> None:
    """Raise `UserError` where --sae is neither a place on the hub nor there."""
    from sae.core.places import require_sae
    from sae.interchange.locate import hub_place

    if sae and hub_place(sae) is None:
        require_sae(Path(sae))


def _config_of(sae: str) -> dict[str, Any]:
    """What an SAE of ours says that it was trained on; {} for any other."""
    from sae.core.files import read_config
    from sae.model.sae import CONFIG, SAEConfig, is_ours

    if not sae or not (Path(sae) / CONFIG).is_file() or not is_ours(Path(sae)):
        return {}
    return dataclasses.asdict(read_config(Path(sae) / CONFIG, SAEConfig))


def _require_domains(transfer: str, known: list[str]) -> None:
    """Raise `UserError` where --transfer does not name two domains of the run."""
    if transfer in (AUTO, NONE):
        return
    named = transfer.split(",")
    if len(named) != 2 or named[0] == named[1]:
        raise UserError(f"--transfer {transfer!r} is none of {AUTO}, {NONE} and two domains: a,b")
    for name in named:
        if name not in known:
            raise UserError(
                f"--transfer {transfer}: there is no domain {name!r}; "
                f"they are {', '.join(known)}{did_you_mean(name, known)}"
            )
