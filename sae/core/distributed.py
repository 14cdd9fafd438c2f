"""Several processes that do one piece of work, as `torchrun` starts them; one alone is a case.

And threads of one process, which run passes through a network beside each other.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from sae.core.errors import FAILURES, UserError
from sae.core.lock import hold, join

MOST_WAIT = timedelta(days=2)
"""For another process that has more to do. One that has died is noticed at once."""
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Ranks:
    """This process among those that work together."""

    rank: int = 0
    n: int = 1
    device: torch.device = _CPU
    work: str = "training"
    """What they do together, for the line that tells of a lost one."""
    group: dist.ProcessGroup | None = None
    """Where they meet; None: where tensors are exchanged."""
    n_here: int = 1
    """Those of this machine, which share its cores."""

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes files."""
        return self.rank == 0

    @property
    def part(self) -> tuple[int, int]:
        """(rank, n): which part of each batch is this process's."""
        return self.rank, self.n

    def sum(self, tensors: list[Tensor]) -> None:
        """Replace each tensor by its sum over all processes, which all get the same bits."""
        if self.n > 1:
            with _lost_in_one_line(self.work):
                for tensor in tensors:
                    dist.all_reduce(tensor, group=self.group)

    def share(self, tensors: list[Tensor]) -> None:
        """Replace each tensor by that of the first process."""
        if self.n > 1:
            with _lost_in_one_line(self.work):
                for tensor in tensors:
                    dist.broadcast(tensor, src=0, group=self.group)

    def send(self, tensors: list[Tensor]) -> None:
        """Give tensors to the first process, which must `receive` as many of the same sizes."""
        with _lost_in_one_line(self.work):
            for tensor in tensors:
                dist.send(tensor, 0, group=self.group)

    def receive(self, source: int, tensors: list[Tensor]) -> None:
        """Replace each tensor by what the process `source` sends."""
        with _lost_in_one_line(self.work):
            for tensor in tensors:
                dist.recv(tensor, source, group=self.group)

    def any(self, flag: bool) -> bool:
        """Whether it holds in any process. Waits for all of them."""
        if self.n == 1:
            return flag
        votes = torch.tensor([float(flag)], device=self.device if self.group is None else _CPU)
        self.sum([votes])
        return bool(votes.item())

    def do_first(self, work: Callable[[], None]) -> None:
        """Let the first process alone do it; where it gives a `UserError`, all stop."""
        refused: UserError | None = None
        if self.is_first:
            try:
                work()
            except UserError as error:
                refused = error
        if self.any(refused is not None):
            raise refused or UserError("the first process cannot go on; it says why")

    def do_each(self, work: Callable[[], None]) -> None:
        """Let each process do its own part, and wait for all; where one gives a `UserError`, all
        stop then, and that one tells why.
        """
        refused: UserError | None = None
        try:
            work()
        except LostProcess:
            raise
        except UserError as error:
            # Of the others only failures are shown.
            refused = error if self.is_first else UserError(str(error), FAILURES)
        if self.any(refused is not None):
            raise refused or UserError("another process cannot go on; it says why")

    def wait(self) -> None:
        """Until all processes are here."""
        self.any(False)

    @contextmanager
    def hold(self, places: Iterable[tuple[Path, str]]) -> Iterator[None]:
        """Hold the locks, each told to others as its text, for all processes together.

        Raises `UserError` in all of them when another job has one.
        """
        places = list(places)
        with ExitStack() as held:

            def take() -> None:
                for path, what in places:
                    lock = hold(path, what)
                    held.enter_context(closing(lock))
                    if self.n > 1:
                        lock.share()

            self.do_first(take)
            for path, _ in () if self.is_first else places:
                held.enter_context(closing(join(path)))
            yield


class LostProcess(UserError):
    """Another one of the processes has gone: killed, out of memory, its machine cut off."""


@contextmanager
def join_processes(device: torch.device, work: str = "training") -> Iterator[Ranks]:
    """Join the processes that `torchrun` started, each with its own GPU; without it, be alone.

    gloo connects CPUs, NCCL connects GPUs. Those that do not train exchange no tensors: they meet
    by gloo. Raises `UserError` when there are fewer GPUs.
    """
    n = int(os.environ.get("WORLD_SIZE", "1"))
    if n == 1 or "RANK" not in os.environ:
        yield Ranks(device=device, work=work)
        return
    if "MASTER_ADDR" not in os.environ:
        raise UserError(
            f"WORLD_SIZE is {n}, but nothing says where the processes meet (MASTER_ADDR): start "
            f"them by torchrun --nproc-per-node {n}"
        )
    by_files = work != "training"
    if device.type == "cuda":
        device = _own_gpu(int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    is_ours = not dist.is_initialized()
    try:
        with _lost_in_one_line(work):
            if is_ours:
                is_nccl = device.type == "cuda" and not by_files
                dist.init_process_group("nccl" if is_nccl else "gloo")
            made = dist.new_group(backend="gloo", timeout=MOST_WAIT) if by_files else None
            group = made if isinstance(made, dist.ProcessGroup) else None
        n_here = int(os.environ.get("LOCAL_WORLD_SIZE", n))
        yield Ranks(dist.get_rank(), dist.get_world_size(), device, work, group, n_here)
    finally:
        if is_ours and dist.is_initialized():
            with suppress(RuntimeError):  # of one that has gone
                dist.destroy_process_group()


@contextmanager
def _lost_in_one_line(work: str) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        said = " ".join(str(error).split())[-120:]
        again = "from the last checkpoint" if work == "training" else "with what is left"
        raise LostProcess(
            f"another process of this {work} has gone ({said}); the same command goes on {again}",
            FAILURES,
        ) from None


def _own_gpu(local_rank: int) -> torch.device:
    n_gpus = torch.cuda.device_count()
    if local_rank >= n_gpus:
        raise UserError(
            f"process {local_rank} of this machine has no GPU: there are {n_gpus}; "
            f"start with --nproc-per-node {n_gpus}"
        )
    return torch.device("cuda", local_rank)


@contextmanager
def forward_threads(device: torch.device, most: int) -> Iterator[ThreadPoolExecutor]:
    """Threads for passes through a network, at most so many. On a CPU they share the threads that
    torch has: small networks come to two thirds more images on two cores than with passes one
    after the other, of which each product is shared.
    """
    n_threads = torch.get_num_threads()
    n_lanes = max(1, min(n_threads, most))
    if device.type == "cpu":
        torch.set_num_threads(n_threads // n_lanes)
    pool = ThreadPoolExecutor(n_lanes)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C waits for the passes that have begun alone
        if device.type == "cpu":
            torch.set_num_threads(n_threads)
