"""A command in a forked process that ends by kill -9: at a file event, or after some seconds."""

from __future__ import annotations

import math
import multiprocessing
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

EVENTS = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")


def run_in_child(command: Callable[[], int], folder: Path, kill_at: int = -1) -> int:
    """Run it to its end, or up to file event number `kill_at` below `folder`; events so far."""
    seen = folder.with_name(f"{folder.name}.events")
    seen.write_bytes(b"")
    _run(_with_kill, command, str(folder.resolve()), kill_at, os.open(seen, os.O_WRONLY))
    return len(seen.read_bytes())


def run_for(command: Callable[[], int], seconds: float) -> float:
    """Run it to its end, or for so many seconds; how long it ran, and -1 when it was killed."""
    start = time.monotonic()
    code = _run(_without_kill, command, seconds=seconds)
    return -1.0 if code else time.monotonic() - start


def _run(work: Callable[..., None], *args: object, seconds: float = math.inf) -> int:
    torch.set_num_threads(1)  # a forked child must not wait for threads left behind
    end, life = os.pipe()  # `life` is held by the child and by all that it forks
    start = time.monotonic()  # a fork takes as long as the shortest commands
    child = multiprocessing.get_context("fork").Process(target=work, args=args)
    child.start()
    os.close(life)
    left = max(0.0, start + seconds - time.monotonic())
    child.join(None if left == math.inf else left)
    child.kill()
    child.join()
    assert select.select([end], [], [], 60)[0], "a process of the killed one lives on"
    os.close(end)
    assert child.exitcode in (0, -signal.SIGKILL), child.exitcode
    return child.exitcode


def _without_kill(command: Callable[[], int]) -> None:
    os._exit(command())


def _with_kill(command: Callable[[], int], folder: str, kill_at: int, log: int) -> None:
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
