"""`--help` and `--version` of both command lines, every command, all in one process."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import typer

from interp.cli.app import app as interp_app
from sae.cli.app import app as sae_app
from sae.core.files import package_version
from tests.support import commands

PROGRAMS: dict[str, tuple[typer.Typer, Callable[..., int]]] = {
    "sae": (sae_app, commands.sae),
    "interp": (interp_app, commands.interp),
}


def test_the_help_of_every_command_is_shown_as_it_is_written(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    shown = 0
    for program, (app, run) in PROGRAMS.items():
        group = typer.main.get_command(app)
        places = [[], *([name] for name in group.commands)]  # type: ignore[attr-defined]
        places += [
            [name, inner]
            for name, one in group.commands.items()  # type: ignore[attr-defined]
            for inner in getattr(one, "commands", {})
        ]
        for place in places:
            assert run(*place, "--help") == 0, (program, place)
            out, err = capsys.readouterr()
            assert err == ""
            assert "bool" not in out, (program, place)
            assert "--help" in out
            shown += 1
    assert shown >= 20
    assert commands.sae("import", "--help") == 0
    text = re.sub(r"[\s│]+", "", capsys.readouterr().out)
    assert "hf:owner/name[@revision][/folder]onthehub" in text


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_version_is_told(program: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert PROGRAMS[program][1]("--version") == 0
    assert capsys.readouterr().out == f"{program} {package_version()}\n"
