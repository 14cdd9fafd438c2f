"""Controls of the pipeline: which there are."""

from __future__ import annotations

import pytest

from interp.pipeline.controls import read_controls
from sae.core.errors import UserError
from tests.support.commands import Walk, interp


def test_controls_are_a_comma_list_and_each_is_run_once() -> None:
    assert read_controls(" untrained,random, untrained") == ["untrained", "random"]
    assert read_controls("") == read_controls("shuffled") == []
    with pytest.raises(UserError, match="shuffled makes no run"):
        read_controls("untrained,shuffled")


def test_an_unknown_control_is_named_with_the_nearest_one() -> None:
    with pytest.raises(UserError, match=r"'randm' is not known.*did you mean 'random'"):
        read_controls("shuffled,randm")


@pytest.mark.parametrize("words", [("--latents", "3"), ("--limit", 2), ("--part", "1/2")])
def test_a_control_of_another_sae_takes_no_choice_among_the_runs_latents(
    words: tuple[object, ...], walk: Walk, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("--control", "untrained,random", "--model", "local", *words)
    assert interp("score", "--run", walk.run, *asked) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert f"leave {words[0]} out" in line
    assert "--control-latents" in line


def test_a_control_of_another_sae_is_of_the_task_detect(
    walk: Walk, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("--control", "random", "--model", "local", "--kind", "fuzz")
    assert interp("score", "--run", walk.run, *asked) == 2
    assert "--control random is of --kind detect alone" in capsys.readouterr().err
