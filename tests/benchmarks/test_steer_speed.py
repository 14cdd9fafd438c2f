"""The benchmark of steering runs, and counts PatchSAE's configurations."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT


@pytest.mark.slow
def test_steering_is_measured_against_plain_passes(tmp_path: Path) -> None:
    out = tmp_path / "steer.json"
    script = str(ROOT / "benchmarks" / "steer_speed.py")
    small = ("--clip", "tiny", "--images", "2", "--repeats", "1", "--n-latents", "64", "--k", "4")
    command = [sys.executable, script, *small, "--json", str(out)]
    subprocess.run(command, check=True, capture_output=True)
    figures = json.loads(out.read_text())
    assert figures["layer"] == "4"  # the last but one of six
    assert figures["n_configurations"] == 1 + 2 * 6  # 1, 2, 5, 10, 50 and all 64
    assert figures["plain_passes_cpu"] > 0
