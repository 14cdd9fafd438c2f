"""sae.safetensors -> the tensors of an SAE, of the right shapes, all of them numbers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sae.core.errors import UserError
from sae.untrusted.finite import require_finite


def read_weights(path: Path, wanted: Mapping[str, Tensor], remedy: str) -> dict[str, Tensor]:
    """The tensors of a file, in name and shape those of `wanted`. Raises `UserError`."""
    try:
        state = load_file(path)
    except FileNotFoundError:
        raise UserError(f"{path} is missing; {remedy}") from None
    except SafetensorError as error:
        raise UserError(f"{path} is damaged ({error}); {remedy}") from None
    expected = {name: tuple(value.shape) for name, value in wanted.items()}
    found = {name: tuple(value.shape) for name, value in state.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise UserError(
                f"{path}: {name} has shape {found.get(name)}, "
                f"but config.json asks for {expected.get(name)}; {remedy}"
            )
        if not state[name].is_floating_point():
            raise UserError(f"{path}: {name} holds {state[name].dtype}; it is damaged; {remedy}")
        require_finite(str(path), name, state[name], f"it is damaged; {remedy}")
    if not state["scale"] > 0:
        raise UserError(f"{path}: scale is {state['scale'].item():g}, not above 0; {remedy}")
    return state
