"""What was typed, and a settings file -> `Settings`, or one clear error before any work."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.evidence.config import CollectConfig
from interp.pipeline.best_of.settings import require_apart
from interp.pipeline.settings import Work
from interp.pipeline.workflow.discard import is_thrown_away
from interp.pipeline.workflow.names import AUTO, COLLECT, EMBED, EVAL, IMPORT, NONE
from interp.pipeline.workflow.options import AskSettings, ImageSettings, SizeSettings, StepSettings
from interp.pipeline.workflow.settings import (
    IMPORTED,
    Said,
    Settings,
    make_models,
    make_training,
    split_table,
)
from interp.records.nulls import BESIDE
from interp.records.tasks import SCORING
from sae.clip.config import SourceConfig
from sae.core.errors import UserError, quote
from sae.core.files import did_you_mean
from sae.data.sources.folders import FolderConfig, parse_domains
from sae.data.tokens import tokens_named
from sae.evaluation.config import EvalConfig

if TYPE_CHECKING:
    from sae.interchange import Looked

PAID = ("explain", "select", "disambiguate", *SCORING, "score-control", f"score-control{BESIDE}")
PAID += ("transfer-explain", "transfer-score")
"""What questions of a run are filed under in its ledger: one `--max-cost` holds for all of them."""
_OF_VECTORS = ("clip", "layer", "tokens")
"""Options that say which vectors are made of the images."""


def make_settings(
    out: Path,
    domains: Sequence[str],
    images: ImageSettings,
    folders: FolderConfig,
    size: SizeSettings,
    asked: AskSettings,
    steps: StepSettings,
    said: Said,
    fetch: bool = False,
) -> Settings:
    """Of all steps. `fetch` what --sae names on the hub, so that its own files can be asked.

    Raises `UserError` for what is missing, not known or does not fit together."""
    roots = parse_domains(domains)
    _require_sae(size.sae)
    _require_domains(steps.transfer, list(roots))
    of_folders, of_source = split_table(said.of(EMBED), FolderConfig)
    given = dataclasses.asdict(folders)
    explainer, choice, judge, judging = make_models(asked, said)
    if choice.best_of > 1:
        choice.judge_for(explainer)
    if steps.disambiguate:
        require_apart(explainer)
    collect = {"select": choice.best_of > 1, **said.of(COLLECT)}
    if choice.best_of > 1 and not collect["select"]:
        raise UserError(
            f"{said.file}: [run.collect] select = false, and --best-of {choice.best_of} chooses on "
            "the images that are kept by it; leave one of both out"
        )
    groups = collect.pop("groups", None)
    named = _named(images, said._replace(tables={EMBED: of_source}))
    looked = _look(size, out, steps.from_step, named, fetch)
    own = said._replace(tables={**said.tables, COLLECT: collect})
    return Settings(
        out=out,
        domains=roots,
        source=_source(images, looked, size.sae, said._replace(tables={EMBED: of_source})),
        folders=said._replace(tables={EMBED: of_folders}).build(FolderConfig, EMBED, given),
        sae=size.sae,
        looked=looked,
        registry=size.registry,
        training=make_training(size, said),
        evaluation=said.build(EvalConfig, EVAL, {}),
        collect=own.build(CollectConfig, COLLECT, {}),
        groups=None if groups is None else Path(groups),
        explainer=dataclasses.replace(explainer, capped_with=PAID),
        best_of=choice,
        disambiguate=steps.disambiguate,
        judge=dataclasses.replace(judge, capped_with=PAID),
        judging=judging,
        causal=steps.causal,
        transfer=steps.transfer,
        allow_misfit=steps.allow_misfit,
        work=Work(retry_failed=steps.retry_failed, max_failures=steps.max_failures),
    )


def _source(images: ImageSettings, looked: Looked | None, sae: str, said: Said) -> SourceConfig:
    """What was not said is that of the SAE, where its files or the registry tell."""
    given: dict[str, Any] = {}
    for name in _OF_VECTORS:
        value = getattr(images, name) or (looked.origin[name] if looked else "")
        given |= {name: value} if value else {}
    if looked and looked.origin["rows"] == "unit":
        given["normalise"] = True
    if "clip" not in given and "clip" not in said.of(EMBED):
        what = "say which CLIP is to look at the images"
        if looked:
            known = f" (known: {looked.origin.line()})" if looked.origin.facts else ""
            what = f"--sae {quote(sae)} does not tell which CLIP it was trained on{known}; name it"
            what += f" ({looked.origin.remedy()})"
            if not looked.d:
                what += ", or leave --estimate out: its own files are then fetched and asked"
        raise UserError(
            f"{what}: --clip ViT-B-32/openai, or --clip tiny, which knows the built-in world alone"
        )
    return said.build(SourceConfig, EMBED, given)


def _look(
    size: SizeSettings, out: Path, from_step: str, named: Mapping[str, str], fetch: bool
) -> Looked | None:
    """What is known of --sae, or of what it was brought here as."""
    if not size.sae:
        return None
    from sae.interchange.load import look_at
    from sae.model.sae import is_ours

    brought = out / IMPORTED
    if is_ours(brought) and not is_thrown_away(IMPORT, from_step):
        return look_at(str(brought), size.registry, named)
    return look_at(size.sae, size.registry, named, fetch)


def _named(images: ImageSettings, said: Said) -> dict[str, str]:
    """Where the user says that the SAE was trained: what the images are to be embedded by."""
    table = said.of(EMBED)
    named: dict[str, str] = {}
    for name in _OF_VECTORS:
        value, in_table = getattr(images, name), table.get(name)
        if in_table and not (value and name in said.typed):
            value = in_table
        named |= {name: str(value)} if value else {}
    if "tokens" in named:
        named["tokens"] = tokens_named(named["tokens"])
    if "normalise" in table:
        named["rows"] = "unit" if table["normalise"] else "raw"
    return named


def _require_sae(sae: str) -> None:
    """Raise `UserError` where --sae is neither a place on the hub nor there."""
    from sae.core.places import require_sae
    from sae.interchange.locate import hub_place

    if sae and hub_place(sae) is None:
        require_sae(Path(sae))


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
