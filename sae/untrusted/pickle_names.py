"""What the names in a pickled checkpoint stand for: plain values, tensors not yet read, stubs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sae.core.errors import UserError
from sae.untrusted.damage import Unfit
from sae.untrusted.pickle_machine import Budget, require_key

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
    "torch.optim",
)
"""Modules whose classes hold the peers' settings, or the state of an optimiser and its schedule; of
these an empty stub is made."""
_NUMPY_CODES = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1")
MAX_AXES = 8


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


@dataclass(frozen=True)
class PeerNames:
    """Names resolve to `_KNOWN` or to a stub; all others are refused by name."""

    storage: ReadStorage | None
    embedded: Callable[[bytes], Any]
    """Reads a torch file that lies in the pickle as bytes."""
    budget: Budget

    def named(self, module: str, name: str) -> Any:
        if (module, name) == ("torch.storage", "_load_from_bytes"):
            return self.embedded
        known = _known(module, name)
        if known is not None:
            return known
        if any(module == p or module.startswith(p + ".") for p in STUB_PREFIXES):
            return functools.partial(_stub, f"{module}.{name}")
        raise UserError(
            f"it names {module[:80]}.{name[:80]}, which no checkpoint needs: not opened, and "
            "nothing of it was run"
        )

    def stored(self, pid: Any) -> Storage:
        kind, dtype, key, _location, n, *_view = pid
        if kind != "storage" or not isinstance(dtype, _Type) or self.storage is None:
            raise Unfit("a stored reference of an unknown kind")
        return self.storage(dtype.dtype, str(key), int(n))

    def built(self, made: Any, state: Any) -> None:
        if isinstance(state, tuple) and len(state) == 2 and isinstance(state[1], dict):
            self.budget.spend(64 * len(state[1]))
            state = state[1] | (state[0] or {})  # (dict, slots)
        if isinstance(made, Stub) and isinstance(state, dict):
            self.budget.spend(64 * len(state))
            made.settings.update({str(name): value for name, value in state.items()})


@dataclass(frozen=True, slots=True)
class _Type:
    dtype: torch.dtype


@dataclass(frozen=True, slots=True)
class _Dtype:
    """A numpy dtype, of which only the code counts: the numbers are little-endian."""

    code: str


def _tensor(storage: Any, offset: int, shape: Any, stride: Any, *_more: object) -> Blob:
    if not isinstance(storage, Storage):
        raise Unfit("a tensor without a storage")
    if max(len(shape), len(stride)) > MAX_AXES:
        raise Unfit(f"a tensor of {len(shape)} axes")
    return Blob(storage, int(offset), tuple(map(int, shape)), tuple(map(int, stride)))


def _parameter(data: Any, *_more: object) -> Any:
    return data


def _scalar(dtype: Any, data: bytes) -> Any:
    if not isinstance(dtype, _Dtype) or np.dtype(dtype.code).itemsize != len(data):
        raise Unfit("a numpy scalar of the wrong size")
    return np.frombuffer(data, dtype.code)[0].item()


def _encode(text: str, coding: str = "latin1") -> bytes:
    if not isinstance(text, str) or coding not in ("latin1", "latin-1"):
        raise Unfit("a text of another coding than latin1")
    return text.encode("latin1")


def _dtype(code: str, *_more: object) -> _Dtype:
    if code not in _NUMPY_CODES:
        raise Unfit("a numpy type that is no plain number")
    return _Dtype(code)


def _stub(peer: str, *args: Any) -> Stub:
    return Stub(peer, args=args)


def _reconstructed(cls: Any, *_args: object) -> Any:
    return cls()


def _ordered(pairs: Iterable[Any] = ()) -> dict[Any, Any]:
    made: dict[Any, Any] = {}
    for key, value in pairs:
        require_key(key)
        made[key] = value
    return made


def _join_parts(sign: str, *parts: Any) -> str:
    if not all(isinstance(part, str | int) for part in parts):
        raise Unfit("a path or device of odd parts")
    return sign.join(map(str, parts))


def _known(module: str, name: str) -> Any:
    """What a pickle may name, or None."""
    if module == "torch" and name.removesuffix("Storage") in _STORAGES and "Storage" in name:
        return _Type(_STORAGES[name.removesuffix("Storage")])
    # Not getattr: torch imports parts of itself when asked for them.
    if module == "torch" and isinstance(vars(torch).get(name), torch.dtype):
        return _Type(vars(torch)[name])
    if module in ("numpy._core.multiarray", "numpy.core.multiarray") and name == "scalar":
        return _scalar
    if module == "numpy.dtypes" and name in _NUMPY_CLASSES:
        return lambda *_: _Dtype(_NUMPY_CLASSES[name])
    if module == "pathlib":
        return functools.partial(_join_parts, "/")
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
    ("collections", "OrderedDict"): _ordered,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_device_tensor_from_cpu_tensor"): _parameter,
    ("torch", "device"): functools.partial(_join_parts, ":"),
    ("torch", "Size"): lambda *args: tuple(*args),
    ("numpy", "dtype"): _dtype,
    ("_codecs", "encode"): _encode,
    ("copyreg", "_reconstructor"): _reconstructed,
    ("builtins", "set"): lambda *args: list(*args),
    ("builtins", "dict"): _ordered,
    ("__builtin__", "dict"): _ordered,
    ("collections", "defaultdict"): lambda *_factory: {},
}
