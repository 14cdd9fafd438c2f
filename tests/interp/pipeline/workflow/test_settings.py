"""Options, a settings file and its tables of steps -> the settings of every step."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path

import pytest

from interp.evidence.config import CollectConfig
from interp.pipeline.judging.settings import JudgingSettings
from interp.pipeline.settings import JudgeSettings, ModelSettings
from interp.pipeline.workflow import names
from interp.pipeline.workflow.assemble import make_settings
from interp.pipeline.workflow.options import AskSettings, ImageSettings, SizeSettings, StepSettings
from interp.pipeline.workflow.settings import Said, Settings
from sae.clip.config import SourceConfig
from sae.core.errors import OK, USAGE, UserError
from sae.data.sources.folders import FolderConfig
from sae.evaluation.config import EvalConfig
from sae.training.config import AUTO_LR, TrainConfig
from tests.support.commands import interp, sae

DOMAINS = ("sketch=a", "photo=b")


def made(
    tables: dict[str, dict[str, object]] | None = None,
    typed: tuple[str, ...] = (),
    asked: AskSettings | None = None,
    domains: tuple[str, ...] = DOMAINS,
    size: SizeSettings | None = None,
    **steps: object,
) -> Settings:
    images = ImageSettings(clip="tiny")
    said = Said("run.toml", tables or {}, typed)
    parts = (asked or AskSettings(model="x/y"), StepSettings(**steps))  # type: ignore[arg-type]
    size = size or SizeSettings()
    return make_settings(Path("o"), domains, images, FolderConfig(), size, *parts, said)


def test_a_table_is_over_the_defaults_and_what_was_typed_is_over_the_table() -> None:
    tables = {"explain": {"reasoning": "low", "max_tokens": 900}, "train": {"k": 3, "seed": 7}}
    asked, size = AskSettings(model="x/y", max_tokens=500), SizeSettings(k=5)
    by_table = made(tables, asked=asked, size=size)
    assert (by_table.explainer.max_tokens, by_table.explainer.reasoning) == (900, "low")
    assert by_table.judge.max_tokens == 500
    assert by_table.training == {"k": 3, "seed": 7, "lr": AUTO_LR}
    by_flag = made(tables, ("max_tokens", "k"), asked, size=size)
    assert (by_flag.explainer.max_tokens, by_flag.explainer.reasoning) == (500, "low")
    assert by_flag.training["k"] == 5


def test_the_judge_has_a_model_and_a_price_of_its_own_or_those_of_the_explainer() -> None:
    asked = AskSettings(model="x/y", price="1,2")
    assert (made(asked=asked).judge.model, made(asked=asked).judge.price) == ("x/y", "1,2")
    other = dataclasses.replace(asked, judge="z/w", judge_price="3,4")
    assert (made(asked=other).judge.model, made(asked=other).judge.price) == ("z/w", "3,4")
    assert made(asked=other).explainer.price == "1,2"
    assert made(asked=AskSettings(model="local:linear")).judge.model == "local"
    table = {"score": {"model": "t/t", "kind": "detect,simulate"}}
    assert made(table, asked=other).judge.model == "t/t"
    assert made(table, ("model",), asked=other).judge.model == "t/t"
    assert made(table, ("judge",), asked=other).judge.model == "z/w"
    assert made(table).judging.kinds == ("detect", "simulate")


@pytest.mark.parametrize(
    ("tables", "error"),
    [
        ({"train": {"n_latent": 3}}, r"\[run.train\] has the unknown key 'n_latent'; did you mean"),
        ({"train": {"k": "many"}}, r"\[run.train\] has 'k' 'many'"),
        ({"collect": {"dense_above": 2.0}}, r"\[run.collect\] does not fit: dense_above is 2.0"),
        ({"score": {"adaptve": True}}, r"\[run.score\] has the unknown key 'adaptve'"),
        ({"embed": {"dtype": "float8"}}, r"\[run.embed\] does not fit: --dtype 'float8'"),
    ],
)
def test_a_wrong_key_or_value_of_a_table_is_named(tables, error) -> None:
    with pytest.raises(UserError, match=error):
        made(tables)


def test_what_is_free_is_done_without_being_asked_for() -> None:
    local = AskSettings(model="local")
    assert made(asked=local).steps[-3:] == ["causal", "transfer", "cards"]
    assert "transfer" not in made().steps
    assert "transfer" in made(transfer="photo,sketch").steps
    assert made(asked=local, domains=("a=1", "b=2", "c=3")).steps[-2:] == ["causal", "cards"]
    assert "transfer" not in made(asked=local, transfer="none").steps
    assert "causal" not in made(asked=local, causal=False).steps
    block = made({"embed": {"layer": "3", "tokens": "patch"}}, asked=local)
    assert "causal" not in block.steps
    assert "import" in made(size=SizeSettings(sae="owner/name")).steps


def test_the_example_is_written_once_and_every_key_in_it_is_known(
    tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    assert interp("init") == OK
    assert "next:     interp run --config run.toml --estimate" in capsys.readouterr().out
    assert interp("init") == USAGE
    assert "run.toml is there already" in capsys.readouterr().err
    text = Path("run.toml").read_text(encoding="utf-8")
    tables = tomllib.loads(text)["run"]
    assert [name for name in tables if name in names.TABLES] == list(names.TABLES)
    shown = tomllib.loads("\n".join(line.removeprefix("# ") for line in _settings_of(text)))
    known = {
        "embed": (SourceConfig, FolderConfig),
        "train": (TrainConfig,),
        "eval": (EvalConfig,),
        "collect": (CollectConfig,),
        "explain": (ModelSettings,),
        "score": (JudgeSettings, JudgingSettings),
    }
    for step, configs in known.items():
        fields = {field.name for config in configs for field in dataclasses.fields(config)}
        assert set(shown["run"][step]) <= fields | {"groups"}
        assert shown["run"][step], step
    own = {key: value for key, value in shown["run"].items() if key not in known}
    Path("all.toml").write_text(_as_toml(own), encoding="utf-8")
    assert interp("run", "--config", "all.toml", "--estimate") == USAGE
    error = capsys.readouterr().err
    assert "data/sketches does not exist" in error  # every key was taken


def _settings_of(text: str) -> list[str]:
    """Lines that are settings, or would be without the # before them."""
    return [
        line
        for line in text.splitlines()
        if " = " in line.partition("  #")[0] or line.startswith("[")
    ]


def _as_toml(values: dict[str, object]) -> str:
    lines = [f"{key} = {_value(value)}" for key, value in values.items() if key != "sae"]
    return "[run]\n" + "\n".join(lines)


def _value(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)


def test_a_table_of_no_step_is_refused(tmp_path, capsys) -> None:
    file = tmp_path / "run.toml"
    file.write_text("[run.trian]\nk = 3\n")
    words = ("--domain", f"a={tmp_path}", "--clip", "tiny", "--model", "local")
    assert interp("run", *words, "--config", file, "--out", tmp_path / "o") == USAGE
    assert "[run] has the unknown key 'trian'; did you mean 'train'?" in capsys.readouterr().err


def test_other_commands_take_no_tables_of_steps(tmp_path, capsys) -> None:
    file = tmp_path / "s.toml"
    file.write_text("[train.embed]\nk = 3\n")
    assert sae("train", tmp_path, "--out", tmp_path / "o", "--config", file) == USAGE
    assert "[train] has the unknown key 'embed'" in capsys.readouterr().err
