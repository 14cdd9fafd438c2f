"""A safetensors file -> its tensors, in memory of their own; half precision becomes float32."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from sae.core.errors import UserError
from sae.untrusted.damage import DAMAGE, Unfit, first_bytes, reason
from sae.untrusted.finite import require_finite

MAX_HEADER = 1 << 20
"""Bytes: the peers' are under 10 kB, and a value of JSON can cost 30 for one."""
AT_ONCE = 1 << 20
"""Values of a tensor that are read at once."""
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def tensor_file(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, those of half precision as float32.

    Not mapped: a mapped file that is cut short meanwhile ends the process.
    """
    first_bytes(path)
    try:
        state = _read(path)
    except (SafetensorError, *DAMAGE) as error:
        raise UserError(
            f"{path} is truncated or damaged ({reason(error)}); fetch it again"
        ) from None
    for name, value in state.items():
        require_finite(str(path), name, value)
    return state


def _read(path: Path) -> dict[str, Tensor]:
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > min(path.stat().st_size, MAX_HEADER):
            raise Unfit(f"its header tells {length} bytes")
        header = json.loads(file.read(length))
        with safe_open(path, framework="pt"):
            pass  # the library has checked the header: places follow one another, sizes fit
        header.pop("__metadata__", None)
        return {name: _tensor(file, 8 + length, entry) for name, entry in header.items()}


def _tensor(file: BinaryIO, start: int, entry: dict[str, Any]) -> Tensor:
    dtype = _DTYPES.get(entry["dtype"])
    if dtype is None:
        raise Unfit(f"type {entry['dtype']}, which no weights have")
    kept = torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype
    value = torch.empty(entry["shape"], dtype=kept)
    file.seek(start + entry["data_offsets"][0])
    for part in torch.split(value.view(-1), AT_ONCE) if value.numel() else ():
        data = bytearray(part.numel() * dtype.itemsize)
        if file.readinto(data) != len(data):  # type: ignore[attr-defined]
            raise Unfit("it ends early")
        part.copy_(torch.frombuffer(data, dtype=dtype))
    return value
