"""The bytes of a pickled checkpoint -> plain values and tensors; nothing of it is executed.

Stricter than `torch.load(weights_only=True)`, whose rules it follows: a pickle may name only what
`names` knows, or a class of a peer's config, for which an empty stub is made. Tensors are only
described by the pickle; `Blob.tensor` makes them, and checks their size against the bytes that are
there (torch itself trusts the sizes that the pickle tells).
"""

from __future__ import annotations

import functools
import io
import struct
from collections.abc import Iterable
from typing import Any, Protocol

import torch

from sae.untrusted.damage import Unfit
from sae.untrusted.pickle_machine import Budget, Readable, interpret
from sae.untrusted.pickle_names import Blob, PeerNames, ReadStorage, Storage, Stub

_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_VERSION = 1001
MAX_DEPTH = 20
MAX_VALUES = 1 << 22
"""Values and letters in a file besides its tensors, each counted as often as it is referred to."""


class Seekable(Readable, Protocol):
    """A file to read from, at any place."""

    def seek(self, place: int) -> int: ...
    def readinto(self, out: bytearray) -> int: ...


def load_pickle(file: Readable, budget: Budget, storage: ReadStorage | None = None) -> Any:
    """The next pickle of a file; tensors are `Blob`s in it. Raises one of `DAMAGE`."""
    names = PeerNames(storage, functools.partial(_embedded, budget), budget)
    return interpret(file, names, budget)


def is_legacy(head: bytes) -> bool:
    """The first bytes of a torch file from before torch 1.6."""
    return _MAGIC.to_bytes(10, "little") in head[:32]


def load_legacy(file: Seekable, budget: Budget) -> Any:
    """A torch file from before torch 1.6: five pickles, then the storages' bytes.

    These are read when a tensor is; the file must be open until then.
    """
    if load_pickle(file, budget) != _MAGIC or load_pickle(file, budget) != _LEGACY_VERSION:
        raise Unfit("not a file of torch.save")
    load_pickle(file, budget)  # byte order and sizes of the machine that wrote it
    stored = _LegacyStorages(file)
    found = load_pickle(file, budget, stored.storage)
    stored.find(load_pickle(file, budget))
    return found


def tensors_in(found: Any, wide: bool = False) -> Any:
    """The same with every `Blob` read: dicts, lists and tuples are walked.

    With `wide`, half precision becomes float32 at once: later, the file's own bytes would be kept
    beside it.
    """
    _weigh(found, {}, 0)
    return _walk(found, wide, {})


def _embedded(budget: Budget, data: bytes) -> Any:
    budget.spend(len(data))
    return load_legacy(io.BytesIO(data), budget)


class _LegacyStorages:
    """Where in an old torch file each storage lies."""

    def __init__(self, file: Seekable) -> None:
        self.file = file
        self.dtypes: dict[str, torch.dtype] = {}
        self.places: dict[str, tuple[int, int]] = {}
        """First byte and number of bytes."""
        self.read: dict[str, bytearray] = {}

    def storage(self, dtype: torch.dtype, key: str, n: int) -> Storage:
        self.dtypes[key] = dtype
        return Storage(dtype, n, lambda: self.content(key))

    def find(self, keys: Iterable[Any]) -> None:
        """Note the place of each storage: they follow one another."""
        for key in map(str, keys):
            (n,) = struct.unpack("<q", self.file.read(8))
            first, n_bytes = self.file.tell(), n * self.dtypes[key].itemsize
            if n < 0:
                raise Unfit(f"a storage of {n} values")
            self.places[key] = (first, n_bytes)
            # A read of the last byte, not a seek alone: that goes beyond any end.
            self.file.seek(first + max(0, n_bytes - 1))
            if n_bytes and not self.file.read(1):
                raise Unfit(f"a storage of {n} values reaches beyond the end of the file")

    def content(self, key: str) -> bytearray:
        if key not in self.read:
            first, n_bytes = self.places[key]
            data = bytearray(n_bytes)
            self.file.seek(first)
            if self.file.readinto(data) != n_bytes:
                raise Unfit("a storage reaches beyond the end of the file")
            self.read[key] = data
        return self.read[key]


def _weigh(found: Any, known: dict[int, int], depth: int) -> int:
    """Values and letters in what was found. Raises `Unfit` above `MAX_VALUES`.

    What is referred to twice is counted twice: to print or compare it takes as long.
    """
    if depth > MAX_DEPTH:
        raise Unfit("the file is nested too deeply")
    if id(found) in known:
        return known[id(found)]
    if isinstance(found, str | bytes):
        return 1 + len(found)
    parts: Iterable[Any] = ()
    if isinstance(found, dict):
        parts = (*found.keys(), *found.values())
    elif isinstance(found, list | tuple):
        parts = found
    elif isinstance(found, Stub):
        parts = (found.peer, found.settings, found.args)
    n = 1
    for part in parts:
        n += _weigh(part, known, depth + 1)
        if n > MAX_VALUES:
            raise Unfit(f"the file has more than {MAX_VALUES} values besides its tensors")
    known[id(found)] = n
    return n


def _walk(found: Any, wide: bool, done: dict[int, Any]) -> Any:
    # What the pickle refers to twice is walked once: shared lists within lists grow without bound.
    if id(found) in done:
        return done[id(found)]
    if isinstance(found, Blob):
        made: Any = found.tensor()
        if wide and made.dtype in (torch.float16, torch.bfloat16):
            made = made.float()
    elif isinstance(found, dict):
        made = {key: _walk(value, wide, done) for key, value in found.items()}
    elif isinstance(found, list | tuple):
        made = [_walk(value, wide, done) for value in found]
    else:
        return found
    done[id(found)] = made
    return made
