"""kill -9 at any file event of any stage: the same command again ends as an unbroken run does."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.commands import Walk, interp, sae
from tests.support.interp.killing import run_in_child
from tests.support.paths import ROOT
from tests.support.sae.foreign_stores import write_chunks

Command = Callable[[Walk, Path], int]
FOREIGN = ROOT / "tests/data/interchange"
LATENTS = ("--n-latents", 8, "--k", 1, "--epochs", 2)

STAGES: dict[str, Command] = {
    "world": lambda walk, at: sae(
        "world", "--n", 6, "--size", 32, "--out", at / "out", "--workers", 1
    ),
    "embed": lambda walk, at: sae(
        "embed", "--domain", f"photo={walk.world / 'photo'}", "--out", at / "out", "--workers", 0
    ),
    "train": lambda walk, at: sae("train", walk.store, "--out", at / "out", *LATENTS),
    "adopt": lambda walk, at: sae("adopt", at / "chunks", "--out", at / "out"),
    "import": lambda walk, at: sae(
        "import", FOREIGN / "sparsify_topk/checkpoint", "--out", at / "out"
    ),
    "export": lambda walk, at: sae("export", walk.sae, "--to", "saelens", "--out", at / "out"),
    "push --dry-run": lambda walk, at: sae("push", walk.sae, "me/sae", "--dry-run"),
    "collect": lambda walk, at: interp("collect", walk.sae, at / "store", "--run", at / "out"),
    "explain": lambda walk, at: interp(
        "explain", "--run", at / "out", "--model", "local", "--latents", "0-3"
    ),
    "score": lambda walk, at: interp("score", "--run", at / "out", "--model", "local"),
    "cards": lambda walk, at: interp("cards", "--run", at / "out"),
}
ON_A_RUN = ("explain", "score", "cards")


def begin(walk: Walk, at: Path, stage: str) -> Path:
    """A folder with what the stage needs; what it writes is `out` in it."""
    at.mkdir()
    (at / "store").symlink_to(walk.store)
    if stage == "adopt":
        write_chunks(at / "chunks", [3, 2])
    if stage in ON_A_RUN:
        shutil.copytree(walk.run, at / "out")
        if stage == "score":
            assert STAGES["explain"](walk, at) == 0
    return at


def content(folder: Path) -> dict[str, bytes]:
    """The lock of a process that died may stay: it holds nobody up."""
    files = [p for p in folder.rglob("*") if p.is_file() and not p.name.endswith(".lock")]
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("n_kills", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_a_stage_killed_at_a_file_event_goes_on_to_the_same_files(
    walk: Walk, tmp_path: Path, stage: str, n_kills: int
) -> None:
    command = STAGES[stage]
    whole = begin(walk, tmp_path / "whole", stage)
    n_events = run_in_child(lambda: command(walk, whole), whole)
    assert n_events > 0 or stage == "push --dry-run"
    places = sorted(random.Random(0).sample(range(n_events), min(n_kills - 1, n_events)))
    for place in dict.fromkeys([0, *places]):
        broken = begin(walk, tmp_path / f"at{place}", stage)
        n_before = run_in_child(lambda: command(walk, broken), broken, kill_at=place)  # noqa: B023
        assert n_before <= place
        # A complete SAE is not written over: import and export say so.
        is_done = stage in ("import", "export") and content(broken) == content(whole)
        if not is_done:
            run_in_child(lambda: command(walk, broken), broken)  # noqa: B023
        assert content(broken).keys() == content(whole).keys(), place
        differing = [n for n, data in content(whole).items() if content(broken)[n] != data]
        assert differing == [], place
