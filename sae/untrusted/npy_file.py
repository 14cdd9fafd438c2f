"""An .npy file -> an array on the disk: numbers alone, never a pickle."""

from __future__ import annotations

import tokenize
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sae.core.errors import UserError
from sae.untrusted.damage import DAMAGE, one_line


def mapped_rows(path: Path, what: str) -> NDArray[Any]:
    """`mapped_array` of rows of floats, of which `what` says the axes ("latents are (n, m)")."""
    array = mapped_array(path)
    if array.ndim != 2 or 0 in array.shape or array.dtype.kind != "f":
        raise UserError(f"{path} has {array.shape} {array.dtype}; {what}")
    return array


def mapped_array(path: Path) -> NDArray[Any]:
    """Raises `UserError` where it is no such file, or holds objects."""
    try:
        # An array of objects and a header above 10 kB are refused.
        return np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError:
        raise UserError(f"{path} is missing") from None
    except (*DAMAGE, SyntaxError, tokenize.TokenError) as error:
        said = f"{path} is no array of numbers, or is damaged ({error!s:.200})"
        raise UserError(one_line(said)) from None
