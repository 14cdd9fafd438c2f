"""Names with blanks and signs of all languages: work ends, and what is printed can be typed."""

import io
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import typer

from sae.cli import console
from sae.core.errors import quote
from tests.support.commands import sae
from tests.support.paths import ROOT
from tests.support.sae.small_clip import write_images


def test_a_name_that_stdout_cannot_show_ends_no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    app = typer.Typer()
    app.command()(lambda: console.finish({"store": Path("wörld 日本")}, ["sae train 日本"]))
    shown = {}
    for encoding in ("cp1252", "ascii", "utf-8"):
        buffer = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(buffer, encoding=encoding))
        assert console.run(app, "sae", []) == 0
        shown[encoding] = buffer.getvalue().decode(encoding).splitlines()
    assert shown["utf-8"] == ["store:    wörld 日本", "next:     sae train 日本"]
    assert shown["cp1252"] == [
        "store:    wörld \\u65e5\\u672c",
        "next:     sae train \\u65e5\\u672c",
    ]
    assert shown["ascii"][0] == "store:    w\\xf6rld \\u65e5\\u672c"


def test_a_name_that_is_no_text_is_the_users_to_mend(capsys: pytest.CaptureFixture[str]) -> None:
    app = typer.Typer()
    app.command()(lambda: "photo\udcff".encode())
    assert console.run(app, "sae", []) == 2
    assert "not valid UTF-8; rename" in capsys.readouterr().err


def test_under_the_c_locale_without_utf8_mode_images_are_embedded(tmp_path: Path) -> None:
    write_images(tmp_path / "wörld 日本" / "Kätzchen", 3)
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("LC_", "LANG", "PYTHON"))}
    env = plain | {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "sae", "embed", "--domain", "p=wörld 日本", "--out", "st 日本"],
        cwd=tmp_path,
        env=env | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    images = pd.read_parquet(tmp_path / "st 日本" / "images.parquet")
    assert images["label"].tolist() == ["Kätzchen"] * 3
    assert done.stdout.decode().splitlines()[-1] == ("next:     sae train 'st 日本' --out work/sae")


def test_toml_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    write_images(tmp_path / "p", 2)
    (tmp_path / "c.toml").write_text('\ufeff[embed]\ndtype = "float32"\nworkers = 0\n', "utf-8")
    store = tmp_path / "store"
    options = ("--out", store, "--config", tmp_path / "c.toml")
    assert sae("embed", "--domain", f"p={tmp_path / 'p'}", *options) == 0
    assert '"dtype": "float32"' in (store / "store.json").read_text()


def test_the_next_command_can_be_typed_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path("my work; $(touch x) 'a'")
    write_images(folder / "pictures of *", 12)
    settings = ("--workers", 0, "--dtype", "float32")
    assert sae("embed", "--domain", f"p={folder}", "--out", folder / "a store", *settings) == 0
    typed = capsys.readouterr().out.splitlines()[-1].removeprefix("next:").split("\n")[0]
    words = shlex.split(typed)
    assert words == ["sae", "train", f"{folder}/a store", "--out", f"{folder}/sae"]
    assert sae(*words[1:], "--n-latents", 8, "--k", 2, "--n-tokens", 600) == 0
    said = capsys.readouterr().out.splitlines()
    for line, command in zip(said[-2:], (["sae", "eval"], ["interp", "collect"]), strict=True):
        assert shlex.split(line.removeprefix("next:")) == [*command, words[4], words[2]]
    assert sae("eval", "no such", folder / "a store") == 2
    assert "'no such'" in capsys.readouterr().err
    assert not Path("x").exists()


def test_only_what_needs_it_is_quoted() -> None:
    assert quote(Path("work/sae")) == "work/sae"
    assert quote("a b") == "'a b'"


@pytest.mark.parametrize("name", ["sae", "interp"])
def test_a_folder_that_hides_a_package_is_warned_about(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    world = ("world", "--n", 2, "--workers", 1, "--out")
    assert sae(*world, name) == 0
    assert f"sae: {name} can hide the package" in (said := capsys.readouterr().err)
    assert f"work/{name}" in said
    assert sae(*world, f"work/{name}") == 0
    assert "hide" not in capsys.readouterr().err
