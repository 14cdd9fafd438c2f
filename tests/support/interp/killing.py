"""A command in a forked process that ends by kill -9 at a file event of one's choice."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import torch

EVENTS = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")


def run_in_child(command: Callable[[], int], folder: Path, kill_at: int = -1) -> int:
    """Run it to its end, or up to file event number `kill_at` below `folder`; events so far."""
    seen = folder.with_name(f"{folder.name}.events")
    seen.write_bytes(b"")
    torch.set_num_threads(1)  # a forked child must not wait for threads left behind
    child = multiprocessing.get_context("fork").Process(
        target=_work, args=(command, str(folder.resolve()), kill_at, os.open(seen, os.O_WRONLY))
    )
    child.start()
    child.join()
    assert child.exitcode in (0, -signal.SIGKILL), child.exitcode
    return len(seen.read_bytes())


def _work(command: Callable[[], int], folder: str, kill_at: int, log: int) -> None:
    count = 0

    def note(event: str, args: tuple[object, ...]) -> None:
        nonlocal count
        writes = (
            event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
        )
        if not writes and event not in EVENTS:
            return
        if not isinstance(args[0], str | bytes) or not os.fsdecode(args[0]).startswith(folder):
            return
        if count == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        count += 1
        os.write(log, b".")

    sys.addaudithook(note)
    os._exit(command())
