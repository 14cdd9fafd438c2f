"""Every stage that writes, as a command whose folder is given: what tests kill and start again."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.support.commands import Walk, interp, sae
from tests.support.paths import ROOT
from tests.support.sae.foreign_stores import write_chunks
from tests.support.servers.fake_hub import FakeHub
from tests.support.servers.loopback import Loopback

FOREIGN = ROOT / "tests/data/interchange"
LATENTS = ("--n-latents", 8, "--k", 1, "--epochs", 2)
LOCAL = ("--model", "local")
PULLED = "me/sae"


class Ground(NamedTuple):
    """What stages start from."""

    walk: Walk
    at: Path
    """A folder of the stage's own; it writes into `out` in it."""
    server: Loopback | None = None
    hub: FakeHub | None = None

    @property
    def out(self) -> Path:
        return self.at / "out"

    @property
    def paid(self) -> tuple[object, ...]:
        assert self.server is not None
        return ("--model", "x/y", "--base-url", self.server.base_url, "--concurrency", 2)


Stage = Callable[[Ground], int]


def _world(on: Ground, n: int = 6, workers: int = 1) -> int:
    return sae("world", "--n", n, "--size", 32, "--out", on.out, "--workers", workers)


def _embed(on: Ground, workers: int = 0) -> int:
    photos = f"photo={on.walk.world / 'photo'}"
    return sae("embed", "--domain", photos, "--out", on.out, "--workers", workers)


def _on_run(command: str, *words: object) -> Stage:
    return lambda on: interp(command, "--run", on.out, *words)


STAGES: dict[str, Stage] = {
    "world": _world,
    "embed": _embed,
    "train": lambda on: sae("train", on.walk.store, "--out", on.out, *LATENTS),
    "adopt": lambda on: sae("adopt", on.at / "chunks", "--out", on.out),
    "import": lambda on: sae("import", FOREIGN / "sparsify_topk/checkpoint", "--out", on.out),
    "export": lambda on: sae("export", on.walk.sae, "--to", "saelens", "--out", on.out),
    "push --dry-run": lambda on: sae("push", on.walk.sae, "me/sae", "--dry-run"),
    "collect": lambda on: interp("collect", on.walk.sae, on.at / "store", "--run", on.out),
    "explain": _on_run("explain", *LOCAL, "--latents", "0-3"),
    "score": _on_run("score", *LOCAL),
    "cards": _on_run("cards"),
}
"""What needs no server."""
MORE: dict[str, Stage] = {
    "world with workers": lambda on: _world(on, 200, workers=2),
    "embed with workers": lambda on: _embed(on, workers=2),
    "show": lambda on: interp("show", "--run", on.at / "run", "--out", on.out, "--n", 2),
    "pull": lambda on: sae("pull", PULLED, "--out", on.out),
    "explain, paid": lambda on: interp("explain", "--run", on.out, *on.paid, "--latents", "0-5"),
    "score, paid": lambda on: interp("score", "--run", on.out, *on.paid),
}


def begin(on: Ground, stage: str) -> Ground:
    """Make the folder, with what the stage needs."""
    on.at.mkdir()
    (on.at / "store").symlink_to(on.walk.store)
    if stage == "adopt":
        write_chunks(on.at / "chunks", [3, 2])
    if stage == "show":
        (on.at / "run").symlink_to(on.walk.run)
    if stage.startswith(("explain", "score", "cards")):
        shutil.copytree(on.walk.run, on.out)
    if stage.startswith("score"):
        assert STAGES["explain"](on) == 0
    return on


def may_not_start_again(stage: str) -> bool:
    """A complete SAE is not written over: these commands say so."""
    return stage in ("import", "export", "pull")


def content(folder: Path) -> dict[str, bytes]:
    """Files by name. The lock of a process that died may stay: it holds nobody up.

    Of the ledger of paid answers its questions stand here, for their order is the server's.
    """
    files = [p for p in folder.rglob("*") if p.is_file() and not p.name.endswith(".lock")]
    found: dict[str, bytes] = {}
    for path in files:
        if ".sqlite" not in path.name:
            # A worker of a killed process may still end the picture it is at.
            with contextlib.suppress(FileNotFoundError):
                found[str(path.relative_to(folder))] = path.read_bytes()
    for ledger in folder.rglob("calls.sqlite"):
        found[str(ledger.relative_to(folder))] = b"".join(stored(ledger))
    return found


def stored(ledger: Path) -> list[bytes]:
    """The questions whose answers a ledger holds, each once."""
    if not ledger.exists():
        return []
    with sqlite3.connect(f"file:{ledger}?mode=ro", uri=True) as calls:
        assert calls.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        if not calls.execute("SELECT 1 FROM sqlite_master WHERE name = 'calls'").fetchone():
            return []
        return sorted(row[0].encode() for row in calls.execute("SELECT request FROM calls"))
