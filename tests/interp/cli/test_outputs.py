"""Every command: what it is to write is new or its own, and one process at a time writes it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from sae.core.errors import OK, USAGE
from sae.core.lock import hold
from tests.support.commands import Walk, interp, sae
from tests.support.sae.foreign_stores import write_chunks

Command = Callable[[Walk, Path], int]


def explain(walk: Walk, run: Path) -> int:
    return interp("explain", "--run", run, "--model", "local", "--limit", 2)


WRITERS: dict[str, Command] = {
    "world": lambda walk, out: sae("world", "--n", 4, "--out", out, "--workers", 1),
    "embed": lambda walk, out: sae(
        "embed", "--domain", f"photo={walk.world / 'photo'}", "--out", out, "--workers", 0
    ),
    "train": lambda walk, out: sae("train", walk.store, "--out", out, "--n-latents", 8, "--k", 1),
    "train --overwrite": lambda walk, out: sae(
        "train", walk.store, "--out", out, "--n-latents", 8, "--k", 1, "--overwrite"
    ),
    "train --sweep": lambda walk, out: sae(
        "train", walk.store, "--out", out, "--n-latents", 8, "--sweep", "k=1,2"
    ),
    "adopt": lambda walk, out: sae("adopt", chunks(out), "--out", out),
    "collect": lambda walk, out: interp("collect", walk.sae, walk.store, "--run", out),
    "collect --export": lambda walk, out: interp(
        "collect", walk.sae, walk.store, "--run", f"{out}-run", "--export", "patchsae", out
    ),
    "demo": lambda walk, out: interp("demo", "--out", out),
}
"""Commands that fill a folder of their own."""


def chunks(out: Path) -> Path:
    """Another lab's embeddings beside the folder that is written."""
    place = out.with_name("chunks")
    if not place.exists():
        write_chunks(place, [3, 2])
    return place


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("name", WRITERS)
def test_a_folder_that_holds_something_else_is_refused_untouched(
    walk: Walk, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "mine"
    for file in ("notes.txt", "sae/sae.safetensors", "sae/config.json", "train.json", "data.json"):
        (out / file).parent.mkdir(parents=True, exist_ok=True)
        (out / file).write_text("mine")
    before = content(out)
    assert WRITERS[name](walk, out) == USAGE
    assert "holds something else" in capsys.readouterr().err
    assert content(out) == before


@pytest.mark.parametrize("name", ["..", "", "a\nb", "x" * 300, "a\x1bb"])
def test_a_run_is_called_as_a_folder_can_be(
    walk: Walk, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert interp("collect", walk.sae, walk.store, "--run", name) == USAGE
    assert [str(path.name) for path in tmp_path.rglob("*")] == ["here"]


LOCKS = {name: ".lock" for name in WRITERS if name not in ("adopt", "collect", "demo")}
LOCKS |= {"adopt": "../mine.lock", "collect": "calls.lock"}


@pytest.mark.parametrize("name", LOCKS)
def test_a_second_process_on_a_folder_is_told_who_holds_it(
    walk: Walk, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "mine"
    out.mkdir()
    with closing(hold(out / LOCKS[name])):
        assert WRITERS[name](walk, out) == USAGE
    assert "is working on" in capsys.readouterr().err
    assert list(out.iterdir()) == []


@pytest.fixture
def run(walk: Walk) -> Path:
    """A labelled run of one's own; the store is named relative to it."""
    place = walk.run.with_name("written")
    if not place.exists():
        shutil.copytree(walk.run, place)
        assert explain(walk, place) == OK
        assert interp("score", "--run", place, "--model", "local") == OK
    return place


def test_commands_that_write_into_a_run_or_an_sae_hold_it(
    walk: Walk, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = Path(shutil.copytree(walk.sae, tmp_path / "sae"))
    for lock, command in (
        (run / "gallery.lock", lambda: interp("cards", "--run", run)),
        (model / ".lock", lambda: sae("eval", model, walk.store, "--no-zeroshot")),
        (
            tmp_path / "png/.lock",
            lambda: interp("show", 1, "--run", run, "--out", tmp_path / "png"),
        ),
        (
            run / "dry-run.lock",
            lambda: interp("explain", "--run", run, "--model", "m/m", "--dry-run", 1),
        ),
    ):
        with closing(hold(lock)):
            assert command() == USAGE
        assert "is working on" in capsys.readouterr().err
        assert command() == OK
        assert not list(run.rglob("*.lock")) + list(tmp_path.rglob("*.lock"))
