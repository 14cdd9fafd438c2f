"""What the names in a pickled checkpoint stand for here. Nothing of a pickle is ever executed.

Stricter than `torch.load(weights_only=True)`, whose rules it follows: a pickle may name only what
stands in `_KNOWN`, or a class of a peer's config, for which an empty stub is made. Tensors are
only described by the pickle; `Blob.tensor` makes them, and checks their size against the bytes that
are there (torch itself trusts the sizes that the pickle tells).
"""

from __future__ import annotations

import functools
import io
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sae.errors import UserError
from sae.interchange.opcodes import Unfit, interpret

__all__ = ["DAMAGE", "Blob", "Stub", "Unfit", "load_legacy", "load_pickle", "tensors_in"]

DAMAGE = (
    ArithmeticError,
    AttributeError,
    AssertionError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    RecursionError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)
"""What reading a damaged or hostile pickle may raise."""

STUB_PREFIXES = (
    "sae_training",
    "src.sae_training",
    "src.sae",
    "src.vit_prisma",
    "vit_prisma",
    "sae",
    "config_dataclass",
    "argparse",
    "__main__",
)
"""Modules whose classes hold the peers' settings; of these an empty stub is made."""
_NUMPY_CODES = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1")
_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_VERSION = 1001
MAX_DEPTH = 20


@dataclass(eq=False)
class Stub:
    """Stands for an object of a peer's class: what its settings are, and nothing that runs."""

    peer: str
    """Name of the class."""
    settings: dict[str, Any] = field(default_factory=dict)
    args: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Storage:
    """Bytes of one or more tensors, not yet read."""

    dtype: torch.dtype
    n: int
    """Values in it, as the pickle tells."""
    read: Callable[[], bytearray]


@dataclass(frozen=True, slots=True, eq=False)
class Blob:
    """A tensor as the pickle describes it."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def tensor(self) -> Tensor:
        """Read it. Raises `Unfit` when it reaches beyond its bytes or repeats them."""
        # frombuffer takes no empty buffer.
        if 0 in self.shape:
            return torch.zeros(self.shape, dtype=self.storage.dtype)
        data = self.storage.read()
        n = len(data) // self.storage.dtype.itemsize
        reach = sum((s - 1) * t for s, t in zip(self.shape, self.stride, strict=True))
        n_values = int(np.prod([int(s) for s in self.shape], dtype=object))
        if min(*self.shape, *self.stride, self.offset, 0) < 0 or self.offset + reach >= n:
            raise Unfit(f"a tensor {self.shape} reaches beyond its {n} stored values")
        if n_values > n:
            raise Unfit(f"a tensor {self.shape} has more values than the {n} stored")
        flat = torch.frombuffer(data, dtype=self.storage.dtype)
        return flat.as_strided(self.shape, self.stride, self.offset)


ReadStorage = Callable[[torch.dtype, str, int], Storage]


def load_pickle(file: io.BytesIO, storage: ReadStorage | None = None) -> Any:
    """The next pickle of a file; tensors are `Blob`s in it. Raises one of `DAMAGE`."""
    return interpret(file, _Names(storage))


def load_legacy(data: bytes) -> Any:
    """A torch file from before torch 1.6: five pickles, then the storages' bytes."""
    file = io.BytesIO(data)
    if load_pickle(file) != _MAGIC or load_pickle(file) != _LEGACY_VERSION:
        raise Unfit("not a file of torch.save")
    load_pickle(file)  # byte order and sizes of the machine that wrote it
    read: dict[str, bytearray] = {}
    wanted: dict[str, torch.dtype] = {}

    def storage(dtype: torch.dtype, key: str, n: int) -> Storage:
        wanted[key] = dtype
        return Storage(dtype, n, lambda: read[key])

    found = load_pickle(file, storage)
    for key in load_pickle(file):
        (n,) = struct.unpack("<q", file.read(8))
        size = n * wanted[key].itemsize
        if not 0 <= size <= len(data) - file.tell():
            raise Unfit(f"a storage of {n} values reaches beyond the end of the file")
        read[key] = bytearray(file.read(size))
    return found


def tensors_in(found: Any) -> Any:
    """The same with every `Blob` read: dicts, lists and tuples are walked."""
    return _walk(found, {}, 0)


def _walk(found: Any, done: dict[int, Any], depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise Unfit("the file is nested too deeply")
    # What the pickle refers to twice is walked once: shared lists within lists grow without bound.
    if id(found) in done:
        return done[id(found)]
    if isinstance(found, Blob):
        made: Any = found.tensor()
    elif isinstance(found, dict):
        made = {key: _walk(value, done, depth + 1) for key, value in found.items()}
    elif isinstance(found, list | tuple):
        made = [_walk(value, done, depth + 1) for value in found]
    else:
        return found
    done[id(found)] = made
    return made


@dataclass(frozen=True)
class _Names:
    """Names resolve to `_KNOWN` or to a stub; all others are refused by name."""

    storage: ReadStorage | None

    def named(self, module: str, name: str) -> Any:
        known = _known(module, name)
        if known is not None:
            return known
        if any(module == p or module.startswith(p + ".") for p in STUB_PREFIXES):
            return _Maker(functools.partial(_stub, f"{module}.{name}"))
        raise UserError(
            f"it names {module}.{name}, which no checkpoint needs: not opened, and nothing of it "
            "was run"
        )

    def stored(self, pid: Any) -> Storage:
        kind, dtype, key, _location, n, *_view = pid
        if kind != "storage" or not isinstance(dtype, _Type) or self.storage is None:
            raise Unfit("a stored reference of an unknown kind")
        return self.storage(dtype.dtype, str(key), int(n))

    def built(self, made: Any, state: Any) -> None:
        if isinstance(state, tuple) and len(state) == 2 and isinstance(state[1], dict):
            state = state[1] | (state[0] or {})  # (dict, slots)
        if isinstance(made, Stub) and isinstance(state, dict):
            made.settings.update({str(name): value for name, value in state.items()})


@dataclass(frozen=True, slots=True)
class _Type:
    dtype: torch.dtype


@dataclass(frozen=True, slots=True)
class _Maker:
    """One of our own functions, which a pickle may call."""

    make: Callable[..., Any]

    def __call__(self, *args: Any) -> Any:
        return self.make(*args)


@dataclass(frozen=True, slots=True)
class _Dtype:
    """A numpy dtype, of which only the code counts: the numbers are little-endian."""

    code: str


def _tensor(storage: Any, offset: int, shape: Any, stride: Any, *_more: object) -> Blob:
    if not isinstance(storage, Storage):
        raise Unfit("a tensor without a storage")
    return Blob(storage, int(offset), tuple(map(int, shape)), tuple(map(int, stride)))


def _parameter(data: Any, *_more: object) -> Any:
    return data


def _scalar(dtype: Any, data: bytes) -> Any:
    if not isinstance(dtype, _Dtype) or np.dtype(dtype.code).itemsize != len(data):
        raise Unfit("a numpy scalar of the wrong size")
    return np.frombuffer(data, dtype.code)[0].item()


def _encode(text: str, coding: str = "latin1") -> bytes:
    if coding not in ("latin1", "latin-1"):
        raise Unfit(f"text coding {coding!r}")
    return text.encode("latin1")


def _dtype(code: str, *_more: object) -> _Dtype:
    if code not in _NUMPY_CODES:
        raise Unfit(f"numpy type {code!r}")
    return _Dtype(code)


def _stub(peer: str, *args: Any) -> Stub:
    return Stub(peer, args=args)


def _reconstructed(cls: Any, *_args: object) -> Any:
    return cls()


def _embedded(data: bytes) -> Any:
    return load_legacy(data)


@functools.cache
def _known(module: str, name: str) -> Any:
    """What a pickle may name, or None."""
    if module == "torch" and name.removesuffix("Storage") in _STORAGES and "Storage" in name:
        return _Type(_STORAGES[name.removesuffix("Storage")])
    if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
        return _Type(getattr(torch, name))
    if module in ("numpy._core.multiarray", "numpy.core.multiarray") and name == "scalar":
        return _Maker(_scalar)
    if module == "numpy.dtypes" and name in _NUMPY_CLASSES:
        return _Maker(lambda *_: _Dtype(_NUMPY_CLASSES[name]))
    if module == "pathlib":
        return _Maker(lambda *parts: "/".join(map(str, parts)))
    return _KNOWN.get((module, name))


_STORAGES = {
    "Float": torch.float32,
    "Double": torch.float64,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
}
_NUMPY_CLASSES = {"Float64DType": "f8", "Float32DType": "f4", "Int64DType": "i8"}
_KNOWN: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): _Maker(lambda *items: dict(*items)),
    ("torch._utils", "_rebuild_tensor"): _Maker(_tensor),
    ("torch._utils", "_rebuild_tensor_v2"): _Maker(_tensor),
    ("torch._utils", "_rebuild_parameter"): _Maker(_parameter),
    ("torch._utils", "_rebuild_device_tensor_from_cpu_tensor"): _Maker(_parameter),
    ("torch.storage", "_load_from_bytes"): _Maker(_embedded),
    ("torch", "device"): _Maker(lambda *args: ":".join(map(str, args))),
    ("torch", "Size"): _Maker(lambda *args: tuple(*args)),
    ("numpy", "dtype"): _Maker(_dtype),
    ("_codecs", "encode"): _Maker(_encode),
    ("copyreg", "_reconstructor"): _Maker(_reconstructed),
    ("builtins", "set"): _Maker(lambda *args: list(*args)),
}
