"""Two processes that do one piece of work, forked from this one: like those that `torchrun` starts.

A process of its own that imports torch takes seconds; a forked one has it.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from sae.__main__ import main as sae_main

Work = Callable[[int], object]


class Pair:
    """`python -m sae ...` twice, connected; `prepare` is called with the rank in each of them."""

    def __init__(
        self,
        words: Sequence[object],
        said: Path,
        prepare: Work | None = None,
        main: Callable[[], int] = sae_main,
    ) -> None:
        """`said`: a folder for what they print; `main` is that of `python -m interp`, too."""
        torch.set_num_threads(1)  # a forked child must not wait for threads left behind
        said.mkdir()
        self._said = said
        argv, port = ["sae", *map(str, words)], _free_port()
        fork = multiprocessing.get_context("fork")
        self.children = [
            fork.Process(target=_work, args=(argv, rank, port, said, prepare, main))
            for rank in (0, 1)
        ]
        for child in self.children:
            child.start()

    def end(self, seconds: float = 600) -> list[int | None]:
        """Wait for both; their exit codes, of which a signal's is negative."""
        for child in self.children:
            child.join(seconds)
            child.kill()  # of one that is still there
            child.join()
        return [child.exitcode for child in self.children]

    def text(self, stream: str) -> str:
        """What both printed to "out" or "err"."""
        return "".join((self._said / f"{stream}.{rank}").read_text() for rank in (0, 1))


def _work(
    argv: list[str],
    rank: int,
    port: int,
    said: Path,
    prepare: Work | None,
    main: Callable[[], int],
) -> None:
    for number, name in ((1, "out"), (2, "err")):
        file = os.open(said / f"{name}.{rank}", os.O_WRONLY | os.O_CREAT)
        os.dup2(file, number)
        setattr(sys, f"std{name}", open(number, "w", buffering=1, closefd=False))  # noqa: SIM115
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    sys.argv = argv
    if prepare is not None:
        prepare(rank)
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
