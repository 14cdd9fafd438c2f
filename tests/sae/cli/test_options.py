from dataclasses import dataclass
from typing import Annotated

import pytest
import typer

from sae.cli import console
from sae.cli.options import spread


@dataclass(frozen=True, kw_only=True)
class Size:
    width: Annotated[int, typer.Option(help="In pixels.", min=1)]
    height: Annotated[int | None, typer.Option(help="Of the page.")] = None
    hidden: str = "kept"


seen = []
app = typer.Typer()


@app.callback()
def common() -> None:
    """A program."""


@app.command()
@spread
def draw(size: Size, name: Annotated[str, typer.Argument()] = "nobody") -> int:
    """Draw something."""
    seen.append((size, name))
    return 7


def run(*words: str) -> int:
    seen.clear()
    return console.run(app, "program", ["draw", *words])


def test_a_config_becomes_one_option_a_field_and_comes_back_whole():
    assert run("someone", "--width", "3", "--height", "4") == 7
    assert seen == [(Size(width=3, height=4), "someone")]


def test_defaults_stand_in_the_config():
    run("--width", "3")
    assert seen == [(Size(width=3), "nobody")]


@pytest.mark.parametrize("words", [[], ["--width", "0"], ["--width", "3", "--hidden", "x"]])
def test_what_the_config_does_not_allow_is_a_usage_error(words):
    assert run(*words) == 2
    assert seen == []


def test_help_of_the_fields_is_shown(capsys):
    assert run("--help") == 0
    shown = capsys.readouterr().out
    assert "In pixels." in shown
    assert "Draw something." in shown
