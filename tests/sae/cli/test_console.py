"""Errors as one line with the documented exit code; settings from a file."""

from __future__ import annotations

import json
import os
import signal
import warnings
from pathlib import Path

import pytest
import typer

from sae.cli import console
from sae.cli.app import app
from sae.core.errors import Notice
from tests.support.commands import Walk, interp, sae


def test_user_error_is_one_line_and_exits_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sae("train", tmp_path / "none", "--out", tmp_path / "sae") == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_unknown_option_exits_2_and_names_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert sae("train", "store", "--out", "x", "--latents", "3") == 2
    assert "--latents" in (errors := capsys.readouterr().err)
    assert "sae train --help" in errors
    assert sae("train", "store") == 2
    assert capsys.readouterr().err == "sae: Missing option '--out'; see `sae train --help`\n"


def test_bug_exits_1_and_shows_its_traceback_only_on_debug(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(**_: object) -> None:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr("sae.world.write_world", lambda *_, **__: broken())
    assert sae("world", "--out", "nowhere") == 1
    assert "Traceback" not in capsys.readouterr().err
    assert sae("--debug", "world", "--out", "nowhere") == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_notice_is_one_line_and_other_warnings_stay_as_they_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def noticed(*_: object, **__: object) -> None:
        warnings.warn("the sea is rough", Notice, stacklevel=1)
        warnings.warn("a library is old", FutureWarning, stacklevel=1)

    monkeypatch.setattr("sae.world.write_world", noticed)
    with pytest.warns(FutureWarning, match="a library is old") as others:
        assert sae("world", "--out", "nowhere") == 0
    assert [w.category for w in others] == [FutureWarning]
    assert "sae: the sea is rough\n" in capsys.readouterr().err


@pytest.mark.parametrize("error", [KeyboardInterrupt, typer.Abort])
def test_interrupt_exits_130_and_prints_the_words_typed_as_the_way_on(
    error: type[BaseException], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("sae.world.write_world", interrupted)
    assert sae("--debug", "world", "--n", 12, "--out", "my world") == 130
    again = "sae --debug world --n 12 --out 'my world'"
    assert capsys.readouterr().err == f"sae: interrupted; to go on: {again}\n"


def test_sigterm_ends_a_command_as_ctrl_c_does_and_exits_143(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(
        "sae.world.write_world", lambda *_, **__: signal.raise_signal(signal.SIGTERM)
    )
    assert sae("world", "--out", "mine") == 143
    assert capsys.readouterr().err == "sae: interrupted; to go on: sae world --out mine\n"
    assert signal.getsignal(signal.SIGTERM) is before
    monkeypatch.setattr("sae.world.write_world", lambda *_, **__: signal.raise_signal(2))
    assert sae("world", "--out", "mine") == 130  # the next command is not told of the last


@pytest.mark.parametrize(
    ("number", "word"),
    [(28, "no room left; make room"), (30, "read-only"), (13, "permission"), (36, "too long")],
)
def test_what_a_disk_refuses_is_one_line_and_exits_2(
    number: int, word: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), "some/file")

    monkeypatch.setattr("sae.world.write_world", refused)
    assert sae("world", "--out", "mine") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert word in line
    assert "some/file" in line


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        ("https://ann:s3cret@host:8000/v1", "'https://***@host:8000/v1'"),
        ("--base-url=http://ann:s3@cret@host/v1", "'--base-url=http://***@host/v1'"),
        ("https://host/v1/@cf/model?at=a@b", "'https://host/v1/@cf/model?at=a@b'"),
        ("ann@host", "ann@host"),
    ],
)
def test_the_way_on_masks_a_login_in_a_url_and_nothing_else(
    word: str, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    stopped = typer.Typer()

    @stopped.command()
    def stop(words: list[str]) -> None:
        raise KeyboardInterrupt

    assert console.run(stopped, "interp", ["--", word]) == 130
    assert capsys.readouterr().err == f"interp: interrupted; to go on: interp -- {shown}\n"


def test_config_file_sets_what_flags_do_not(
    tmp_path: Path, walk: Walk, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "settings.toml"
    config.write_text('[train]\nn-latents = 10\nk = 3\n[embed]\nclip = "tiny"\n')
    out = tmp_path / "sae"
    assert sae("train", walk.store, "--out", out, "--config", config, "--k", 2) == 0
    settings = json.loads((out / "config.json").read_text())
    assert (settings["n_latents"], settings["k"]) == (10, 2)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[train]\nn_latent = 10\n", ["'n_latent'", "did you mean 'n_latents'?"]),
        ("[trian]\nk = 10\n", ["[trian]", "did you mean 'train'?"]),
        ("k = 10\n", ["[k]"]),
        ("[train\n", ["not valid TOML"]),
    ],
)
def test_config_file_with_an_unknown_word_is_refused_by_name(
    tmp_path: Path, text: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "settings.toml"
    config.write_text(text)
    assert sae("train", "store", "--out", tmp_path / "x", "--config", config) == 2
    errors = capsys.readouterr().err
    assert all(word in errors for word in words), errors


def test_run_that_does_not_exist_is_refused_with_the_runs_that_do(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert interp("cards", "--run", "nothing") == 2
    assert "none yet" in capsys.readouterr().err
    assert interp("cards") == 2
    assert "interp demo" in capsys.readouterr().err


def test_program_without_a_command_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert console.run(app, "sae", []) == 2
    shown = capsys.readouterr()
    assert "train" in shown.out
    assert shown.err == ""
