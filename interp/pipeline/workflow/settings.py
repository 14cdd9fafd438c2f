"""Options and a settings file of `interp run` -> the settings of each of its steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, get_type_hints

from interp.evidence.config import CollectConfig
from interp.pipeline.best_of.settings import BestOfSettings, NamingSettings
from interp.pipeline.judging.settings import JudgingSettings
from interp.pipeline.settings import JudgeSettings, ModelSettings, Work
from interp.pipeline.workflow.names import (
    AUTO,
    CAUSAL,
    EXPLAIN,
    IMPORT,
    NONE,
    ORDER,
    SCORE,
    TRAIN,
    TRANSFER,
)
from interp.pipeline.workflow.options import AskSettings, SizeSettings
from interp.records.family import LINEAR, LOCAL
from sae.clip.config import SourceConfig
from sae.core.errors import UserError
from sae.core.files import build_strictly
from sae.data.sources.folders import FolderConfig
from sae.evaluation.config import EvalConfig
from sae.training.config import AUTO_LR, TrainConfig, learning_rate

if TYPE_CHECKING:
    from sae.interchange import Looked

IMPORTED = "sae-imported"
"""The folder of an SAE that --sae names."""
_OF_JUDGE = {"judge": "model", "judge_price": "price", "judge_clip": "clip"}
"""Options of the judge, and the fields of its settings that they are."""
Config = TypeVar("Config")


class Said(NamedTuple):
    """What was said of single steps: in the tables of a settings file, and on the command line."""

    file: str = ""
    tables: Mapping[str, Mapping[str, Any]] = {}
    typed: Collection[str] = ()
    """Names of the options that were typed: they win over any table."""

    def of(self, step: str) -> dict[str, Any]:
        """What the step's table says."""
        return dict(self.tables.get(step, {}))

    def build(self, cls: type[Config], step: str, given: Mapping[str, Any]) -> Config:
        """The settings of a step: its table over `given`, and what was typed over both.

        Raises `UserError` for an unknown key, a wrong type, and a number that no option takes.
        """
        table = {k: v for k, v in self.of(step).items() if k not in self.typed or k not in given}
        place = f"{self.file}: [run.{step}]"
        made = build_strictly(cls, {**given, **table}, place)
        hints = get_type_hints(cls, include_extras=True)
        for name in table:
            _require_in_range(table[name], hints[name], f"{place} has {name!r}")
        return made


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Of every step of one run."""

    out: Path
    """The run's folder; store and SAE lie in it."""
    domains: Mapping[str, Path]
    source: SourceConfig
    folders: FolderConfig
    sae: str = ""
    """PATH_OR_HUB_ID of an SAE that is there; "": one is trained."""
    looked: Looked | None = None
    """What is known of it before it is brought here."""
    registry: Path | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    """What was said of the fields of `TrainConfig`; the rest follows from the images."""
    evaluation: EvalConfig = field(default_factory=EvalConfig)
    collect: CollectConfig = field(default_factory=CollectConfig)
    groups: Path | None = None
    explainer: ModelSettings
    best_of: BestOfSettings = field(default_factory=BestOfSettings)
    disambiguate: bool = False
    judge: JudgeSettings
    judging: JudgingSettings = field(default_factory=JudgingSettings)
    causal: bool | None = None
    transfer: str = AUTO
    allow_misfit: bool = False
    work: Work = field(default_factory=Work)

    @property
    def device(self) -> str:
        """Where everything is computed."""
        return self.explainer.device

    @property
    def store(self) -> Path:
        return self.out / "store"

    @property
    def sae_dir(self) -> Path:
        """The SAE that the run is about; the run keeps a copy of it in `sae/`."""
        return self.out / (IMPORTED if self.sae else "sae-trained")

    @property
    def is_paid(self) -> bool:
        """Whether anything is asked of a model elsewhere."""
        return self.naming.is_paid or not self.judge.is_local

    @property
    def naming(self) -> NamingSettings:
        """Of the step explain."""
        return NamingSettings(self.explainer, self.best_of, self.disambiguate, self.work)

    @property
    def pair(self) -> str:
        """The two domains of the step transfer, "a,b"; "" without that step."""
        if self.transfer == AUTO:
            return ",".join(self.domains) if len(self.domains) == 2 and not self.is_paid else ""
        return "" if self.transfer == NONE else self.transfer

    @property
    def steps(self) -> list[str]:
        """The names of the steps, in their order."""
        edits = self.source.layer == "projected" if self.causal is None else self.causal
        left_out = {TRAIN if self.sae else IMPORT}
        left_out |= set() if edits else {CAUSAL}
        left_out |= set() if self.pair else {TRANSFER}
        return [name for name in ORDER if name not in left_out]


def _require_in_range(value: Any, hint: Any, place: str) -> None:
    """Raise `UserError` for a number that the option, which annotates its type, does not take."""
    for option in getattr(hint, "__metadata__", ()):
        if option.min is not None and value < option.min:
            raise UserError(f"{place} {value!r}: it must be at least {option.min:g}")
        if option.max is not None and value > option.max:
            raise UserError(f"{place} {value!r}: it must be at most {option.max:g}")


def make_models(
    asked: AskSettings, said: Said
) -> tuple[ModelSettings, BestOfSettings, JudgeSettings, JudgingSettings]:
    """The explainer, how many labels it makes, the judge, and what the judge is asked to do."""
    choosing, given = split_table(dataclasses.asdict(asked), BestOfSettings)
    judge = asked.judge or (LOCAL if asked.model == LINEAR else asked.model)
    own = {name: given.pop(name) for name in _OF_JUDGE}
    of_choice, of_explainer = split_table(said.of(EXPLAIN), BestOfSettings)
    explainer = said._replace(tables={EXPLAIN: of_explainer}).build(ModelSettings, EXPLAIN, given)
    choice = said._replace(tables={EXPLAIN: of_choice}).build(BestOfSettings, EXPLAIN, choosing)
    graded = {"clip": own["judge_clip"], "model": judge}
    if judge != asked.model:
        graded["price"] = own["judge_price"]
    of_tasks, of_judge = split_table(said.of(SCORE), JudgingSettings)
    typed = set(said.typed) - set(_OF_JUDGE.values())
    typed |= {field for option, field in _OF_JUDGE.items() if option in said.typed}
    judging = said._replace(tables={SCORE: of_judge}, typed=typed)
    return (
        explainer,
        choice,
        judging.build(JudgeSettings, SCORE, {**given, **graded}),
        said._replace(tables={SCORE: of_tasks}).build(JudgingSettings, SCORE, {}),
    )


def split_table(table: Mapping[str, Any], cls: type) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is said of the fields of `cls`, and the rest."""
    names = {one.name for one in dataclasses.fields(cls)}
    own = {name: value for name, value in table.items() if name in names}
    return own, {name: value for name, value in table.items() if name not in names}


def make_training(size: SizeSettings, said: Said) -> dict[str, Any]:
    """What was said of a training; the names of fields of `TrainConfig`."""
    table = said.of(TRAIN)
    if "lr" in table:
        table["lr"] = learning_rate(table["lr"])
    own: dict[str, Any] = {"lr": AUTO_LR if isinstance(size.lr, str) else size.lr}
    own |= {name: n for name in ("n_latents", "k", "epochs") if (n := getattr(size, name))}
    whole = {**table, **{k: v for k, v in own.items() if k in said.typed or k not in table}}
    build_strictly(TrainConfig, whole, f"{said.file}: [run.{TRAIN}]")  # before any work
    return whole
