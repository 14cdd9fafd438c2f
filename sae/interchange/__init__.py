"""Foreign checkpoints become ours: one small file per format, each with `detect` and `read`."""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, cast

import torch
from torch import Tensor

from sae.errors import UserError
from sae.interchange.foreign import Foreign, to_sae
from sae.interchange.safe import Found
from sae.interchange.unpickle import DAMAGE
from sae.model import SAE
from sae.store import EmbeddingStore

__all__ = ["FORMATS", "Format", "Imported", "detect", "import_sae", "read", "read_as"]

FORMATS = (
    "ttt",
    "clipsae",
    "patchsae",
    "sparsify",
)
"""Modules of this room, in the order in which they are asked."""
N_SAMPLE = 1 << 16
"""Tokens from which mean and scale are estimated, and FVU is measured."""


class Format(Protocol):
    """One file of this room."""

    NAME: str

    def detect(self, found: Found) -> bool: ...
    def read(self, found: Found) -> Foreign: ...


@dataclass(frozen=True)
class Imported:
    """A foreign SAE that is now ours."""

    model: SAE
    format: str
    notes: tuple[str, ...]
    """What the user should know."""
    fvu: float | None = None
    """On the store, where one was given: above 1 the SAE does not fit it."""


def detect(path: Path | str) -> Format:
    """The format of a file or folder. Raises `UserError` that lists what was looked for."""
    return _detect(Found.at(path))


def read(path: Path | str, store: Path | str | None = None) -> Imported:
    """Read a foreign SAE; `store` gives what its file lacks, and the FVU.

    Raises `UserError` when the format is unknown, the file damaged, or a store is needed.
    """
    found = Found.at(path)
    form = _detect(found)
    foreign = read_as(form, found)
    x = None if store is None else _sample(store)
    if x is not None and x.shape[1] != foreign.W_enc.shape[1]:
        raise UserError(
            f"{path} is for embeddings of width {foreign.W_enc.shape[1]}, but {store} has "
            f"{x.shape[1]}; name the store of the layer that it was trained on"
        )
    if foreign.lacks == "mean_scale":
        foreign = _completed(foreign, x, Path(path))
    model = to_sae(foreign)
    fvu = None if x is None else _fvu(model, x)
    return Imported(model, foreign.format, foreign.notes + _warning(fvu), fvu)


def read_as(form: Format, found: Found) -> Foreign:
    """Read what is of a format, if its `detect` says so; of damage, only `UserError` comes out."""
    try:
        if form.detect(found):
            return form.read(found)
    except DAMAGE as error:
        raise UserError(f"{found.path}: no whole {form.NAME} file ({error!r:.200})") from None
    raise UserError(f"{found.path} is no {form.NAME} file")


def import_sae(path: Path | str, out: Path | str, store: Path | str | None = None) -> Imported:
    """Read a foreign SAE and save it as ours in the folder `out`."""
    imported = read(path, store)
    imported.model.save(out)
    return imported


def _detect(found: Found) -> Format:
    for name in FORMATS:
        form = cast(Format, importlib.import_module(f"sae.interchange.{name}"))
        try:
            fits = form.detect(found)
        except DAMAGE as error:
            raise UserError(f"{found.path} is damaged ({error!r:.200})") from None
        if fits:
            return form
    raise UserError(
        f"{found.path} is no SAE of a known format; looked for {', '.join(FORMATS)} "
        f"and our own config.json with sae.safetensors; found {_summary(found)}"
    )


def _summary(found: Found) -> str:
    names = ", ".join(found.names[:6]) + (", ..." if len(found.names) > 6 else "")
    held = found.torch()
    if isinstance(held, dict):
        names += f" with {', '.join(str(key)[:40] for key in list(held)[:8])}"
    return names or "an empty folder"


def _completed(foreign: Foreign, x: Tensor | None, path: Path) -> Foreign:
    """With mean and scale of the store: what the SAE was trained on, and did not write down."""
    if x is None:
        raise UserError(
            f"{path} ({foreign.format}) was trained on centred and scaled embeddings, but does "
            f"not hold their mean and scale; add --store STORE to estimate them from"
        )
    mean = x.mean(0)
    scale = float((x - mean).norm(dim=1).mean()) / math.sqrt(x.shape[1])
    note = f"mean and scale {scale:.4g} were estimated from {len(x)} tokens of the store"
    return replace(foreign, mean=mean, scale=scale, lacks="", notes=(*foreign.notes, note))


def _sample(store: Path | str) -> Tensor:
    """Up to `N_SAMPLE` tokens (n, d) from the whole of a store."""
    opened = EmbeddingStore.open(store)
    per_image = opened.info.tokens_per_image
    step = max(1, opened.info.n_images * per_image // N_SAMPLE)
    parts = [batch.x[::step].flatten(0, 1).float() for batch in opened.batches(n_images=4096)]
    return torch.cat(parts)[: 2 * N_SAMPLE]


@torch.no_grad()
def _fvu(model: SAE, x: Tensor) -> float:
    error = 0.0
    for part in torch.split(x, 1024):
        error += float((part - model(part).x_hat).square().sum())
    return error / max(float((x - x.mean(0)).square().sum()), 1e-30)


def _warning(fvu: float | None) -> tuple[str, ...]:
    if fvu is None or fvu <= 1:
        return ()
    return (
        f"FVU {fvu:.3g} on the store is above 1, worse than the mean: other CLIP, layer, tokens, "
        "or scaling than it was trained on",
    )
