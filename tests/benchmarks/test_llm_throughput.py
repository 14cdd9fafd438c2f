"""The throughput benchmark: its figures on known rows, and both clients against its server."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from typing import Any

import pytest

from tests.support.paths import BENCHMARKS

sys.path.append(str(BENCHMARKS))

from llm_figures import (
    Figures,
    Seen,
    figures,
    in_flight,
    last_percent,
    mean_between,
)
from loopback_llm import MIX, Server, Settings


def row(question: str, arrived: float, ended: float, **changes: Any) -> Seen:
    values = {"digest": question, "status": 200, "completed": True, "usable": True, "usd": 0.5}
    values |= {"early": False, **changes}
    return Seen(question=question, arrived=arrived, ended=ended, **values)


def test_figures_of_four_requests_over_two_places_are_known() -> None:
    rows = [
        row("explain 0.0", 0.0, 2.0),
        row("explain 1.0", 0.0, 1.0),
        row("explain 2.0", 1.5, 2.5),
        row("explain 3.0", 2.5, 3.5),
    ]
    found = figures(rows, 2)
    assert found == Figures(
        n_requests=4,
        n_answered=4,
        req_per_s=4 / 3.5,
        n_most=2,
        mean_share=5.0 / 3.5 / 2,
        steady_share=4.0 / 2.5 / 2,  # from 0, the second request, to 2.5, the last question
        steady_per_s=3 / 2.5,
        last_percent=0.0,
        n_paid_twice=0,
        n_early=0,
        n_throttled=0,
        billed=2.0,
    )


def test_an_answer_paid_twice_a_repair_and_a_throttled_retry_are_told_apart() -> None:
    rows = [
        row("detect 0.1", 0, 1, digest="a"),
        row("detect 0.1", 1, 2, digest="a"),
        row("detect 0.2", 0, 1, digest="b", usable=False),
        row("detect 0.2", 1, 2, digest="b+repair"),
        row("detect 0.3", 0, 1, digest="c", status=429, completed=False, usable=False, usd=0),
        row("detect 0.3", 1, 2, digest="c", early=True),
    ]
    found = figures(rows, 8)
    assert (found.n_answered, found.n_requests, found.billed) == (3, 6, 2.5)
    assert (found.n_paid_twice, found.n_throttled, found.n_early) == (1, 1, 1)


def test_in_flight_steps_and_their_mean() -> None:
    steps = in_flight([row("a", 0, 4), row("b", 1, 3)])
    assert steps == [(0, 1), (1, 2), (3, 1), (4, 0)]
    assert mean_between(steps, 0, 4) == 6 / 4
    assert mean_between(steps, 2, 6) == (2 + 1) / 4
    assert math.isnan(mean_between(steps, 1, 1))


def test_last_percent_is_the_time_from_99_to_100_per_cent() -> None:
    assert last_percent([float(n) for n in range(1, 201)]) == 2.0
    assert last_percent([3.0]) == 0.0
    assert math.isnan(last_percent([]))


def test_the_fault_mix_strikes_a_question_once_and_in_its_shares() -> None:
    server = Server(Settings(faults="mix", seed=3))
    names = [f"detect {n}.1" for n in range(4000)]
    first = [server.plan(name, name, 1e9).fault for name in names]
    for kind, share in MIX:
        assert first.count(kind) / len(names) == pytest.approx(share, abs=0.02)
    assert {server.plan(name, name, 2e9).fault for name in names} == {""}


def test_a_request_before_its_retry_after_is_seen_as_early() -> None:
    server = Server(Settings(rpm=60.0))
    assert server.plan("explain 0.0", "a", 100.0).fault == ""
    turned_away = server.plan("explain 1.0", "b", 100.2)
    assert (turned_away.fault, turned_away.retry_after) == ("429", 1)
    assert server.plan("explain 1.0", "b", 101.0).early
    assert not server.plan("explain 1.0", "b", 103.0).early


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Both clients, 60 small questions with the fault mix."""
    out = tmp_path_factory.mktemp("throughput") / "figures.json"
    options = "--questions 60 --latency 0.02 --picture-kb 4 --concurrency 8 --repeats 1"
    more = ["--faults", "mix", "--timeout", "2", "--json", str(out)]
    script = [sys.executable, str(BENCHMARKS / "llm_throughput.py")]
    subprocess.run([*script, *options.split(), *more], check=True, capture_output=True)
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def test_ours_gets_every_answer_through_the_faults_and_pays_none_twice(
    measured: dict[str, Any],
) -> None:
    assert measured["ours_n_lost"] == 0
    assert measured["ours_n_paid_twice"] == 0
    assert measured["ours_n_early"] == 0
    assert 60 < measured["ours_n_requests"] <= 1.6 * 60
    assert measured["ours_n_most"] <= 8


def test_a_client_of_one_attempt_loses_what_the_faults_hit(measured: dict[str, Any]) -> None:
    assert measured["peer_n_lost"] >= 10
    assert measured["peer_n_requests"] <= 60
