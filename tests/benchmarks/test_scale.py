"""The benchmark of ranks and rows runs on little."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT


def measure(tmp_path: Path, *words: object) -> dict[str, object] | list[dict[str, float]]:
    command = [sys.executable, ROOT / "benchmarks" / "scale.py", *words]
    out = ["--folder", tmp_path, "--json", tmp_path / "out.json"]
    subprocess.run([str(w) for w in [*command, *out]], check=True, capture_output=True)
    return json.loads((tmp_path / "out.json").read_text())  # type: ignore[no-any-return]


@pytest.mark.slow
@pytest.mark.parametrize("latents", ["sae", "drawn"])
def test_collect_is_measured_at_each_number_of_rows(tmp_path: Path, latents: str) -> None:
    small = ["--n-latents", 256, "--d", 8, "--k", 4, "--latents", latents]
    found = measure(tmp_path, "collect", "--rows", 500, 1000, *small)
    assert isinstance(found, list)
    assert [figures["n_rows"] for figures in found] == [500, 1000]
    assert all(figures["peak_mb"] > 0 < figures["processor"] for figures in found)


@pytest.mark.slow
def test_two_ranks_are_held_against_one(tmp_path: Path) -> None:
    found = measure(tmp_path, "embed", "--images", 20, "--repeats", 1)
    assert isinstance(found, dict)
    assert found["ratio"] > 0  # type: ignore[operator]
    assert len(found["runs"]) == 3  # type: ignore[arg-type]
