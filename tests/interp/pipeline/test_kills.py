"""kill -9 at any file event of any stage: the same command again ends as an unbroken run does."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.support.commands import Walk
from tests.support.interp.killing import run_in_child
from tests.support.interp.stages import STAGES, Ground, begin, content, may_not_start_again


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("n_kills", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_a_stage_killed_at_a_file_event_goes_on_to_the_same_files(
    walk: Walk, tmp_path: Path, stage: str, n_kills: int
) -> None:
    command = STAGES[stage]
    unbroken = begin(Ground(walk, tmp_path / "whole"), stage)
    n_events = run_in_child(lambda: command(unbroken), unbroken.at)
    whole = content(unbroken.at)
    assert n_events > 0 or stage == "push --dry-run"
    places = sorted(random.Random(0).sample(range(n_events), min(n_kills - 1, n_events)))
    for place in dict.fromkeys([0, *places]):
        on = begin(Ground(walk, tmp_path / f"at{place}"), stage)
        n_before = run_in_child(lambda: command(on), on.at, kill_at=place)  # noqa: B023
        assert n_before <= place
        if not (may_not_start_again(stage) and content(on.at) == whole):
            run_in_child(lambda: command(on), on.at)  # noqa: B023
        broken = content(on.at)
        assert broken.keys() == whole.keys(), place
        assert [name for name in whole if broken[name] != whole[name]] == [], place
