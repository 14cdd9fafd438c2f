"""The benchmark of training steps: its figures on known times, and a small run of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.support.paths import BENCHMARKS

sys.path.append(str(BENCHMARKS))

from train_speed import figures, main, measure, table
from train_systems import Task, dense, ours

TIMES = {"dense": [8.0, 10.0, 12.0], "sparsify": [4.0, 6.0, 5.0], "sparse": [1.0, 2.0, 9.0]}


def test_ratios_are_those_of_the_least_times() -> None:
    found = figures(TIMES)
    assert found["sparse: ms"] == 1
    assert found["sparse: median ms"] == 2
    assert found["sparse: ratio to dense"] == 0.125
    assert found["sparse: ratio to sparsify"] == 0.25


def test_the_table_has_no_column_for_a_peer_that_is_not_there() -> None:
    lines = table({"dense": [8.0], "sparse": [2.0]}).splitlines()
    assert lines[0] == "| system | ms, least | ms, median | / dense |"
    assert lines[-1] == "| sparse | 2.0 | 2.0 | 0.25 |"


def test_systems_take_turns_and_the_first_round_is_not_measured() -> None:
    import torch

    order: list[str] = []
    systems = {name: lambda x, name=name: order.append(name) for name in "ab"}
    times = measure(systems, [torch.zeros(1, 1)], n_rounds=2)
    assert order == ["a", "b"] * 3
    assert [len(of_system) for of_system in times.values()] == [2, 2]


@pytest.mark.parametrize("n_dead", [0, 30])
def test_the_dense_reference_and_the_engines_start_at_the_same_loss(n_dead: int) -> None:
    """AuxK differs below 0 (the reference has a plain ReLU), so only what both call FVU counts."""
    import torch

    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 16, generator=generator)
    dead = torch.arange(100) < n_dead
    task = Task(x, n_latents=100, k=5, dead=dead)
    expected = float(dense(Task(x, 100, 5, torch.zeros(100, dtype=torch.bool)))(x))  # type: ignore[arg-type]
    for backend in ("plain", "sparse"):
        assert float(ours(task, backend)(x).fvu) == pytest.approx(expected, rel=1e-5)  # type: ignore[attr-defined, arg-type]


def test_the_benchmark_runs_and_writes_what_it_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = tmp_path / "speed.json"
    systems = "dense,plain,sparse float32,sparse bfloat16,sparse BatchTopK"
    sizes = [
        "--d",
        "16",
        "--n-latents",
        "64",
        "--k",
        "4",
        "--batch",
        "32",
        "--rounds",
        "2",
        "--n-dead",
        "9",
    ]
    words = [*sizes, "--systems", systems, "--json", str(found)]
    monkeypatch.setattr(sys, "argv", ["train_speed.py", *words])
    main()
    said = capsys.readouterr().out
    figures = json.loads(found.read_text(encoding="utf-8"))
    assert figures["n_dead"] == 9
    assert "version of torch" in figures
    for name in systems.split(","):
        assert f"| {name} | {figures[f'{name}: ms']:.1f} |" in said


def test_an_unknown_system_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["train_speed.py", "--systems", "sparze"])
    with pytest.raises(SystemExit) as refused:
        main()
    assert refused.value.code == 2
    assert "sparze not known, or not installed (extra bench)" in capsys.readouterr().err
