"""kill -9 at random moments of any stage: the same command again ends as an unbroken run does."""

from __future__ import annotations

import csv
import json
import math
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.commands import Walk
from tests.support.interp.killing import run_for
from tests.support.interp.stages import (
    MORE,
    PULLED,
    STAGES,
    Ground,
    begin,
    content,
    may_not_start_again,
    stored,
)
from tests.support.sae.hub_parcels import saved
from tests.support.servers.fake_hub import FakeHub
from tests.support.servers.loopback import Loopback

ALL = STAGES | MORE
N_KILLS = 10


@pytest.fixture
def server() -> Iterator[Loopback]:
    with Loopback(latency=0.02) as loopback:
        yield loopback


def is_whole(name: str, data: bytes) -> bool:
    """Whether what a later step writes anew, or adds to, is complete as it stands."""
    if name.endswith(".json"):
        return data.endswith(b"\n") and isinstance(json.loads(data), dict)
    if name.endswith(".jsonl"):  # a torn last line is mended by its reader
        lines = [line for line in data.splitlines(keepends=True) if line.endswith(b"\n")]
        return all(isinstance(json.loads(line), dict) for line in lines)
    if name.endswith("labels.csv"):
        rows = list(csv.reader(data.decode("utf-8-sig").splitlines(keepends=True)))
        return data.endswith(b"\n") and {len(row) for row in rows} == {len(rows[0])}
    return name.endswith(".sqlite")  # `stored` has looked at it


@pytest.mark.slow
@pytest.mark.parametrize("stage", ALL)
def test_a_stage_killed_at_a_random_moment_goes_on_to_the_same_files(
    walk: Walk, hub: FakeHub, server: Loopback, tmp_path: Path, stage: str
) -> None:
    sent = saved(tmp_path / "sent")
    hub.add(PULLED, {path.name: path.read_bytes() for path in sent.iterdir()})
    rng, command = random.Random(stage), ALL[stage]
    warm = begin(Ground(walk, tmp_path / "warm", server, hub), stage)
    assert command(warm) == 0  # what it imports is there from now on: kills strike its work
    spare = begin(Ground(walk, tmp_path / "spare", server, hub), stage)
    slow = run_for(lambda: command(spare), math.inf)
    server.requests.clear()
    unbroken = begin(Ground(walk, tmp_path / "whole", server, hub), stage)
    seconds = min(slow, run_for(lambda: command(unbroken), math.inf))
    whole, n_asked = content(unbroken.at), len(server.chats)
    n_kills = n_runs = 0
    while n_kills < N_KILLS:
        n_runs += 1
        assert n_runs < 3 * N_KILLS
        on = begin(Ground(walk, tmp_path / f"broken{n_runs}", server, hub), stage)
        for until in (rng.uniform(0, seconds), rng.uniform(0, seconds), math.inf):
            if may_not_start_again(stage) and content(on.at) == whole:
                break
            n_stored = len(stored(on.out / "calls.sqlite"))
            server.requests.clear()
            is_killed = run_for(lambda: command(on), until) < 0  # noqa: B023
            n_kills += is_killed
            broken = content(on.at)
            known = {name: data for name, data in broken.items() if name in whole}
            half = [n for n, data in known.items() if data != whole[n] and not is_whole(n, data)]
            assert half == [], until
            if not is_killed:
                assert len(server.chats) == n_asked - n_stored, "paid twice"
                break
        assert content(on.at) == whole
    print(f"{stage}: {n_kills} kills in {n_runs} runs of {seconds:.2f} s")
