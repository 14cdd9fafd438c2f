"""kill -9 at random moments of the whole run: the same command again ends with the same labels."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest

from sae.core.errors import OK
from tests.support.commands import interp
from tests.support.interp.killing import run_for
from tests.support.interp.mixed_images import write_mixed_images

N_KILLS = 10
SMALL = ("--n-latents", 32, "--k", 2, "--epochs", 20, "--no-causal")
"""The learning rate is searched for, as it is where nothing is said."""


@pytest.mark.slow
def test_a_run_killed_at_ten_random_moments_ends_with_the_same_labels(tmp_path: Path) -> None:
    words = ("--domain", *write_mixed_images(tmp_path / "images"), "--clip", "tiny", *SMALL)

    def whole(out: Path) -> int:
        return interp("run", *words, "--model", "local", "--out", out)

    assert interp("run", *words, "--model", "local", "--out", tmp_path / "warm") == OK
    seconds = run_for(lambda: whole(tmp_path / "unbroken"), math.inf)
    rng, out, kills = random.Random(7), tmp_path / "broken", 0
    while kills < N_KILLS:
        # Each goes on from what the ones before it left: so all parts of the run are struck.
        kills += run_for(lambda: whole(out), rng.uniform(1.5, seconds / 4)) < 0  # noqa: B023
        if (out / "gallery").exists() and kills < N_KILLS:
            assert content(out) == content(tmp_path / "unbroken")
            out = out.with_name(f"{out.name}-again")
    assert whole(out) == OK
    assert content(out) == content(tmp_path / "unbroken")
    print(f"{kills} kills; unbroken it took {seconds:.1f} s; folders: {out.name}")


def content(out: Path) -> bytes:
    return (out / "labels.csv").read_bytes()
