"""Several processes that train one SAE, as `torchrun` starts them; one process alone is a case."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from sae.core.errors import FAILURES, UserError


@dataclass(frozen=True)
class Ranks:
    """This process among those that work together."""

    rank: int = 0
    n: int = 1
    device: torch.device = torch.device("cpu")  # noqa: RUF009  (immutable)

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
            with _lost_in_one_line():
                for tensor in tensors:
                    dist.all_reduce(tensor)

    def share(self, tensors: list[Tensor]) -> None:
        """Replace each tensor by that of the first process."""
        if self.n > 1:
            with _lost_in_one_line():
                for tensor in tensors:
                    dist.broadcast(tensor, src=0)

    def any(self, flag: bool) -> bool:
        """Whether it holds in any process. Waits for all of them."""
        if self.n == 1:
            return flag
        votes = torch.tensor([float(flag)], device=self.device)
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

    def wait(self) -> None:
        """Until all processes are here."""
        self.any(False)


class LostProcess(UserError):
    """Another one of the processes has gone: killed, out of memory, its machine cut off."""


@contextmanager
def join_processes(device: torch.device) -> Iterator[Ranks]:
    """Join the processes that `torchrun` started, each with its own GPU; without it, be alone.

    gloo connects CPUs, NCCL connects GPUs. Raises `UserError` when there are fewer GPUs.
    """
    n = int(os.environ.get("WORLD_SIZE", "1"))
    if n == 1 or "RANK" not in os.environ:
        yield Ranks(device=device)
        return
    if device.type == "cuda":
        device = _own_gpu(int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    is_ours = not dist.is_initialized()
    if is_ours:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size(), device)
    finally:
        if is_ours:
            with suppress(RuntimeError):  # of one that has gone
                dist.destroy_process_group()


@contextmanager
def _lost_in_one_line() -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        said = " ".join(str(error).split())[-120:]
        raise LostProcess(
            f"another process of this training has gone ({said}); "
            "the same command goes on from the last checkpoint",
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
