"""Every command: what it is to write is new or its own, and one process at a time writes it."""

from __future__ import annotations

import os
import resource
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from sae.core.errors import OK, USAGE
from sae.core.lock import hold
from tests.support.commands import Walk, interp, sae
from tests.support.paths import DATA
from tests.support.sae.foreign_stores import write_chunks

Command = Callable[[Walk, Path], int]


def explain(walk: Walk, run: Path) -> int:
    return interp("explain", "--run", run, "--model", "local", "--limit", 2)


WRITERS: dict[str, Command] = {
    "world": lambda walk, out: sae("world", "--n", 4, "--out", out, "--workers", 1),
    "embed": lambda walk, out: sae(
        "embed", "--domain", f"photo={walk.world / 'photo'}", "--out", out, "--workers", 0
    ),
    "train": lambda walk, out: sae(
        "train", walk.store, "--out", out, "--n-latents", 8, "--k", 1, "--epochs", 2
    ),
    "train --overwrite": lambda walk, out: sae(
        "train", walk.store, "--out", out, "--n-latents", 8, "--k", 1, "--overwrite"
    ),
    "train --sweep": lambda walk, out: sae(
        "train", walk.store, "--out", out, "--n-latents", 8, "--sweep", "k=1,2"
    ),
    "import": lambda walk, out: sae("import", DATA / "sparsify_topk", "--out", out),
    "export": lambda walk, out: sae("export", walk.sae, "--to", "sparsify", "--out", out),
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
LOCKS |= dict.fromkeys(("import", "export", "adopt"), "../mine.lock") | {"collect": "calls.lock"}


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


@pytest.mark.parametrize("name", ["world", "embed", "train", "train --sweep", "demo"])
def test_an_output_that_cannot_be_is_refused_before_any_work(
    walk: Walk, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for place in ("file", "file/below", "link", "x" * 300, "a\nb"):
        assert WRITERS[name](walk, tmp_path / place) == USAGE
        assert len(capsys.readouterr().err.splitlines()) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"file", "link"}


def test_figures_that_cannot_be_written_are_refused_before_any_work(
    walk: Walk, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    for json in (tmp_path, tmp_path / "file/x.json", tmp_path / ("x" * 300)):
        words = ("train", walk.store, "--out", tmp_path / "sae", "--n-latents", 8, "--json", json)
        assert sae(*words) == USAGE
        assert str(json)[:60] in capsys.readouterr().err or len(json.name) == 300
        assert [path.name for path in tmp_path.iterdir()] == ["file"]


@contextmanager
def most_bytes(n: int) -> Iterator[None]:
    """As under `ulimit -f`: no file may get larger.

    No bytecode is kept meanwhile: Python puts it in place although it was cut off at the limit,
    and whoever imports that file next fails.
    """
    before, kept = resource.getrlimit(resource.RLIMIT_FSIZE), sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    resource.setrlimit(resource.RLIMIT_FSIZE, (n, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        sys.dont_write_bytecode = kept


LIMITED: dict[str, tuple[int, Command]] = {
    **{name: (1000, WRITERS[name]) for name in ("world", "embed", "train", "collect")},
    "explain": (100, lambda walk, out: explain(walk, run_of(walk, out))),
    "score": (
        100,
        lambda walk, out: interp("score", "--run", run_of(walk, out, 1), "--model", "local"),
    ),
    "cards": (1000, lambda walk, out: interp("cards", "--run", run_of(walk, out))),
    "show": (1000, lambda walk, out: interp("show", 1, "--run", walk.run, "--out", out)),
    "export": (1000, lambda walk, out: sae("export", walk.sae, "--to", "saelens", "--out", out)),
}
"""What each command may write, which is not enough."""


def run_of(walk: Walk, out: Path, n_labelled: int = 0) -> Path:
    """A run beside the walk's, since its store is named relative to it."""
    place = walk.run.with_name(f"limited-{out.parent.name}")
    if not place.exists():
        shutil.copytree(walk.run, place)
        if n_labelled:
            assert explain(walk, place) == OK
    return place


@pytest.mark.parametrize("name", LIMITED)
def test_a_disk_that_takes_no_more_is_one_line_and_the_same_command_goes_on(
    walk: Walk, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    n, command = LIMITED[name]
    out = tmp_path / "out"
    run_of(walk, out, name == "score")
    capsys.readouterr()
    with most_bytes(n):
        assert command(walk, out) == USAGE
    complaints = [line for line in capsys.readouterr().err.splitlines() if "ulimit -f" in line]
    assert len(complaints) == 1
    assert "then run the same command" in complaints[0]
    assert command(walk, out) == OK


def test_weights_and_shards_have_the_rights_that_their_neighbours_have(walk: Walk) -> None:
    modes = {
        path.name: path.stat().st_mode & 0o777
        for folder in (walk.store, walk.sae, walk.run / "sae")
        for path in folder.iterdir()
        if path.is_file()
    }
    assert {"00000.safetensors", "sae.safetensors"} <= set(modes)
    umask = os.umask(0)
    os.umask(umask)
    assert set(modes.values()) == {0o666 & ~umask}
