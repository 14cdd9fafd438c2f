"""What a step's own command would say -> the same in words of `interp run`."""

from __future__ import annotations

import dataclasses
import functools
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast, get_type_hints

from interp.evidence.config import CollectConfig
from interp.pipeline.best_of.settings import BestOfSettings
from interp.pipeline.judging.settings import JudgingSettings
from interp.pipeline.settings import JudgeSettings, ModelSettings
from interp.pipeline.workflow.names import COLLECT, EMBED, EVAL, EXPLAIN, SCORE, TRAIN
from interp.pipeline.workflow.options import AskSettings, ImageSettings, SizeSettings, StepSettings
from sae.clip.config import SourceConfig
from sae.core.errors import Notice, UserError
from sae.data.sources.folders import FolderConfig
from sae.evaluation.config import EvalConfig
from sae.training.config import TrainConfig

_OF_RUN = (ImageSettings, AskSettings, SizeSettings, StepSettings, FolderConfig)
_OF_TABLES: Mapping[str, tuple[type[Any], ...]] = {
    EMBED: (FolderConfig, SourceConfig),
    TRAIN: (TrainConfig,),
    EVAL: (EvalConfig,),
    COLLECT: (CollectConfig,),
    EXPLAIN: (ModelSettings, BestOfSettings),
    SCORE: (JudgeSettings, JudgingSettings),
}
_OPTION = re.compile(r"(`(?:sae|interp) [^`]*`[^,;:()]*)|(?<![\w-])--[a-z][a-z0-9-]*")
"""Another command, with the words to it, which stays as it is; or an option."""
_TABLE = re.compile(r"\[run\.(\w+)\] (?:does not fit|has|lacks)\b")
"""The table of a settings file that is refused."""


@contextmanager
def in_words_of_run(step: str = "", store: Path | None = None) -> Iterator[None]:
    """Notices and a `UserError` of what is done inside are said as `say_for_run` does; a step that
    would have its `store` deleted is begun from again.
    """
    shown: Callable[..., None] = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *rest: Any) -> None:
        if issubclass(category, Notice):
            message = say_for_run(str(message), step)
        shown(message, category, *rest)

    warnings.showwarning = cast(Any, show)
    try:
        yield
    except UserError as error:
        said = str(error).replace(f"choose another --out, or delete {store}", f"--from {step}")
        raise UserError(say_for_run(said, step), error.exit_code) from None
    finally:
        warnings.showwarning = shown


def say_for_run(text: str, step: str = "") -> str:
    """With what does the same in `interp run` in the place of options that it lacks: a key of a
    step's table in the settings file, or --from.
    """
    named = _TABLE.search(text)
    tables = set[str]()

    def replace(found: re.Match[str]) -> str:
        if found[1]:
            return found[1]
        option = found[0]
        if option == "--overwrite" and step:
            return f"--from {step}"
        table, key = _find_key(option, named[1] if named else step, is_named=bool(named))
        if not table:
            return option
        tables.add(table)
        return key if named and table == named[1] else f"[run.{table}] {key}"

    said = _OPTION.sub(replace, text)
    new = sorted(f"[run.{table}]" for table in tables if not named or table != named[1])
    return f"{said} ({', '.join(new)}: a table of --config FILE)" if new else said


def _find_key(option: str, step: str, is_named: bool) -> tuple[str, str]:
    """The table, that of `step` where it has it, and the key in it; "" for an option of the run,
    unless the text names the table of `step`, or of no step.
    """
    for name, end in ((option, ""), (re.sub("^--no-", "--", option), " = false")):
        if name in _options_of_run() and not (is_named and name in _keys(step)):
            return "", ""
        for table in sorted(_OF_TABLES, key=lambda table: table != step):
            if name in _keys(table):
                return table, _keys(table)[name] + end
    return "", ""


@functools.cache
def _keys(table: str) -> dict[str, str]:
    """The fields of a step's settings by their options."""
    found = {} if table != COLLECT else {"--groups": "groups"}
    for cls in _OF_TABLES[table]:
        found |= _options(cls)
    return found


@functools.cache
def _options_of_run() -> frozenset[str]:
    whole = {option for cls in _OF_RUN for option in _options(cls, typed=True)}
    return frozenset(whole | {"--out", "--config", "--json"})


def _options(cls: type[Any], typed: bool = False) -> dict[str, str]:
    """Field by option: the one that its name makes, and those that are declared. With `typed` only
    of fields that can be typed.
    """
    hints, found = get_type_hints(cls, include_extras=True), dict[str, str]()
    for field in dataclasses.fields(cls):
        told = getattr(hints[field.name], "__metadata__", ())
        names = ["--" + field.name.replace("_", "-")] if told or not typed else []
        for option in told:  # typer takes the first declared name for a default
            names += map(str, (option.default, *(option.param_decls or ())))
        found |= {name: field.name for name in names if name.startswith("--")}
    return found
