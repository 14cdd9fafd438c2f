"""A state dict and settings -> a tensor or a number; a `UserError` says what lacks or differs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from sae.core.errors import UserError
from sae.untrusted.pickle_names import Stub
from sae.untrusted.used import Used


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


def settings_of(config: object) -> dict[str, Any]:
    """A pickled config as plain values: a dict stays, a stub gives what it holds."""
    if isinstance(config, Stub):
        return config.settings
    if isinstance(config, Used):
        return config
    if isinstance(config, Mapping):
        return {str(name): value for name, value in config.items()}
    return {}


def _some(state: Mapping[str, Any]) -> str:
    names = [str(name)[:40] for name in state][:8]
    return ", ".join(names) + (", ..." if len(state) > 8 else "")
