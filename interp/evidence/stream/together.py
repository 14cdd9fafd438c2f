"""Several processes, each with a part of a store's batches -> what one process finds in all.

The first process writes the files: it takes in what the others have kept, and asks them for their
part of the second look.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from interp.evidence.stream.activations import Active, EncodedStore, Look, Pairs, look_again
from interp.evidence.stream.first_pass import ImageIndex, Survey
from interp.evidence.stream.top_k import Ints, concatenate
from sae.core.distributed import Ranks
from sae.core.progress import Progress


def share_sides(index: ImageIndex, ranks: Ranks) -> ImageIndex:
    """The index with the sides that the first process knows: it alone has looked for groups."""
    sides = index.sides.copy()
    _share(ranks, [sides])
    return replace(index, sides=sides)


def gather_survey(survey: Survey, make: Callable[[], Survey], ranks: Ranks) -> None:
    """Take what all have kept into the first process's `survey`; `make` gives an empty one."""
    if not ranks.is_first:
        _send(ranks, survey.arrays())
        return
    for source in range(1, ranks.n):
        other = make()
        _receive(ranks, source, other.arrays())
        survey.merge(other)


def look_together(
    encoded: EncodedStore,
    ranks: Ranks,
    asked: Pairs | None = None,
    heat: Pairs | None = None,
    drawn: Ints | None = None,
    progress: Progress | None = None,
) -> Look:
    """`look_again` with what the first process asks; it has the answers of all, the others only
    those of their part.
    """
    questions = [*(asked or _NO_PAIRS), *(heat or _NO_PAIRS), _NOTHING if drawn is None else drawn]
    if ranks.n > 1:
        questions = _share_any_length(ranks, questions)
    look = look_again(
        encoded, Pairs(*questions[:2]), Pairs(*questions[2:4]), questions[4], progress
    )
    if not ranks.is_first:
        n_active = np.array([len(look.active.rows)])
        _send(ranks, [look.acts, look.heat, look.peaks, n_active, *look.active])
        return look
    active = [look.active]
    for source in range(1, ranks.n):
        mine: list[NDArray[Any]] = [look.acts, look.heat, look.peaks]
        theirs: list[NDArray[Any]] = [np.zeros_like(each) for each in mine]
        n_active = np.zeros(1, np.int64)
        _receive(ranks, source, [*theirs, n_active])
        # What is not of their part they leave at 0, and a peak at -1.
        for ours, other in zip(mine, theirs, strict=True):
            np.maximum(ours, other, out=ours)
        n = int(n_active[0])
        active.append(Active(np.zeros(n, np.int64), np.zeros(n, np.int64), np.zeros(n, np.float32)))
        _receive(ranks, source, list(active[-1]))
    return look._replace(active=concatenate(active))


_NOTHING: Ints = np.zeros(0, np.int64)
_NO_PAIRS = Pairs(_NOTHING, _NOTHING)


def _share_any_length(ranks: Ranks, arrays: list[Ints]) -> list[Ints]:
    lengths = np.array([len(array) for array in arrays])
    _share(ranks, [lengths])
    if not ranks.is_first:
        arrays = [np.zeros(n, np.int64) for n in lengths.tolist()]
    _share(ranks, arrays)
    return arrays


def _share(ranks: Ranks, arrays: list[NDArray[Any]]) -> None:
    ranks.share([part for array in arrays for part in _parts(array)])


def _send(ranks: Ranks, arrays: list[NDArray[Any]]) -> None:
    ranks.send([part for array in arrays for part in _parts(array)])


def _receive(ranks: Ranks, source: int, arrays: list[NDArray[Any]]) -> None:
    ranks.receive(source, [part for array in arrays for part in _parts(array)])


def _parts(array: NDArray[Any]) -> list[torch.Tensor]:
    """The array's own memory as bytes, in parts that a message can hold."""
    if not array.size:
        return []
    assert array.flags.c_contiguous
    whole = torch.from_numpy(array.reshape(-1).view(np.uint8))
    return [whole[start : start + _MESSAGE] for start in range(0, len(whole), _MESSAGE)]


_MESSAGE = 1 << 28
