"""Slopes by finite differences, and several processes played by threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")
Reduce = Callable[[list[Tensor]], None]


def slopes(loss: Callable[[], Tensor], value: Tensor, eps: float = 1e-5) -> Tensor:
    """Central differences of `loss` by each element of `value`, which it reads (float64)."""
    found = torch.zeros_like(value)
    flat, out = value.data.view(-1), found.view(-1)
    for place in range(len(flat)):
        before = flat[place].item()
        flat[place] = before + eps
        above = loss().item()
        flat[place] = before - eps
        below = loss().item()
        flat[place] = before
        out[place] = (above - below) / (2 * eps)
    return found


def gradient_error(loss: Callable[[], Tensor], values: Sequence[Tensor]) -> float:
    """Largest difference of autograd from finite differences, relative to the largest slope.

    Raises where no element of a value has any slope: there is then nothing to compare.
    """
    gradients = torch.autograd.grad(loss(), list(values))
    errors = []
    for gradient, value in zip(gradients, values, strict=True):
        wanted = slopes(loss, value)
        assert wanted.abs().max() > 1e-6
        errors.append(((gradient - wanted).abs().max() / wanted.abs().max()).item())
    return max(errors)


def together(n: int, work: Callable[[int, Reduce], Result]) -> list[Result]:
    """Results of `work(rank, reduce)` for n ranks at once; `reduce` sums over them in place."""
    barrier = threading.Barrier(n, timeout=20)
    given: list[list[Tensor]] = [[] for _ in range(n)]

    def reduce_as(rank: int) -> Reduce:
        def reduce(tensors: list[Tensor]) -> None:
            given[rank] = tensors
            barrier.wait()
            sums = [torch.stack(same).sum(0) for same in zip(*given, strict=True)]
            barrier.wait()
            for tensor, total in zip(tensors, sums, strict=True):
                tensor.copy_(total)
            barrier.wait()

        return reduce

    def run(rank: int) -> Result:
        try:
            return work(rank, reduce_as(rank))
        except BaseException:
            barrier.abort()
            raise

    with ThreadPoolExecutor(n) as pool:
        return list(pool.map(run, range(n)))
