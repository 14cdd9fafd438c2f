"""An import or export that is killed leaves no folder that counts as done, and can be run again."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from sae import interchange
from sae.interchange.load import load
from sae.model.sae import is_ours
from tests.support import commands
from tests.support.paths import DATA

SOURCE = DATA / "ttt_topk_pt" / "checkpoint.pt"
EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.chmod")


def _run_until(n: int, place: Path, words: list[object]) -> int:
    """Run `sae` in a child that is gone at its `n`-th event on files of `place`; its exit code."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    left = n

    def count(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        if event not in EVENTS or not str(arguments[0]).startswith(str(place)):
            return
        left -= 1
        if left == 0:
            os._exit(137)

    sys.addaudithook(count)
    os._exit(commands.sae(*words))


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize(
    ("kind", "there"), [("import", False), ("import", True), ("export", False)]
)
def test_killed_at_any_event_it_is_complete_or_absent(
    tmp_path: Path, kind: str, there: bool
) -> None:
    words = [kind, SOURCE] + (["--to", "saelens"] if kind == "export" else [])
    if kind == "export":
        source = DATA / "sparsify_topk" / "checkpoint" / "layers.10"
        words = [kind, source, "--to", "saelens"]
    assert commands.sae(*words, "--out", tmp_path / "whole") == 0
    whole = _files(tmp_path / "whole")
    killed = 0
    for n in range(2, 60, 3):
        place = tmp_path / str(n)
        out = place / "out"
        more = ["--overwrite"] if there else []
        if there:
            interchange.import_sae(DATA / "clipsae_relu" / "checkpoint.pt", out)
            (out / "notes.txt").write_text("mine")
        before = _files(out) if there else {}
        code = _run_until(n, place, [*words, "--out", out, *more])
        if code == 0:
            break
        killed += 1
        old = place / "out.old"
        found = _files(out) if out.exists() else _files(old) if old.exists() else {}
        found.pop(".lock", None)
        complete = {name: found.get(name) for name in whole} == whole
        assert complete or found == before, (n, sorted(found))
        if not complete:
            assert commands.sae(*words, "--out", out, *more) == 0
        assert {name: _files(out).get(name) for name in whole} == whole
        assert not there or (out / "notes.txt").read_text() == "mine"
        left = {path.name for path in place.iterdir()} - {"out", "out.lock"}
        assert left <= ({"out.old"} if complete else set())
        assert is_ours(out) == (kind == "import")
        load(out)
    assert killed >= 3
