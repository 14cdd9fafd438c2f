"""The benchmark of imports: what an import costs in memory."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.support.paths import BENCHMARKS

sys.path.append(str(BENCHMARKS))

from import_speed import KINDS, measure

QUICK = ("torch (ttt)", "sparsify bfloat16")


@pytest.mark.skipif(sys.platform != "linux", reason="a process's peak is told by Linux")
@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=() if k in QUICK else pytest.mark.slow) for k in KINDS]
)
def test_an_import_takes_less_than_two_and_a_half_times_the_files_size(
    kind: str, tmp_path: Path
) -> None:
    figures = measure(kind, tmp_path, n_latents=24_576, d=768, repeats=1)
    assert 0.9 < figures["peak_over_size"] < 2.5
