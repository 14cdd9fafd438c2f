"""What every reader asks of a foreign file: a tensor, a number, or one line that says it lacks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from sae.core.errors import UserError

if TYPE_CHECKING:
    from sae.untrusted.found import Found

__all__ = ["number", "only_one", "require_size", "tensor"]


def tensor(state: Mapping[str, Any], name: str, source: str, ndim: int = 1) -> Tensor:
    """A tensor of the state dict, as float; raises `UserError` when it lacks or has other axes."""
    value = state.get(name)
    if not isinstance(value, Tensor):
        raise UserError(f"{source}: the file lacks the tensor {name!r}; it has {_some(state)}")
    if value.ndim != ndim:
        raise UserError(f"{source}: {name} has shape {tuple(value.shape)}, not {ndim} axes")
    if not value.is_floating_point():  # as floats it would take up to eight times the file's size
        raise UserError(f"{source}: {name} holds {value.dtype}, but weights are floats")
    return value.float()


def number(config: Mapping[str, Any], name: str, source: str, default: int | None = None) -> int:
    """A whole number of the settings, at least 1; raises `UserError` when it lacks."""
    value = config.get(name, default)
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    if not isinstance(value, int | float) or value != value or value < 1 or value != int(value):
        raise UserError(f"{source}: {name} is {value!r}, but must be a whole number from 1")
    return int(value)


def require_size(source: str, name: str, told: object, found: int) -> None:
    """Raise `UserError` when the settings tell another size than the tensors have."""
    if told is not None and told != found:
        raise UserError(
            f"{source}: the settings tell {name} {told!r}, but the tensors have {found}"
        )


def only_one(found: Found, weights: str, config: str) -> str:
    """The one file `weights` that has a `config` beside it; several are refused, as hook points."""
    names = [n for n in found.names if n.rpartition("/")[2] == weights and found.beside(n, config)]
    if len(names) > 1:
        some = ", ".join(n.rpartition("/")[0] or "." for n in names[:4])
        raise UserError(f"{found.path} holds {len(names)} SAEs ({some}); name one of the folders")
    return names[0]


def _some(state: Mapping[str, Any]) -> str:
    names = [str(name)[:40] for name in state][:8]
    return ", ".join(names) + (", ..." if len(state) > 8 else "")
