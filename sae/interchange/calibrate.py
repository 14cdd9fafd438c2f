"""What a checkpoint was trained with and does not hold, estimated from a store."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from sae.core.errors import UserError
from sae.evaluation.threshold import find_threshold
from sae.interchange.foreign import Foreign, just_below, to_sae
from sae.interchange.measure import N_MEASURED, fvu


def complete(foreign: Foreign, x: Tensor | None, path: Path) -> Foreign:
    """With what `foreign.lacks`, from raw tokens x (n, d) of a store; nothing is lacking after.

    Raises `UserError` where x is None and the SAE is known to be wrong without.
    """
    if x is None:
        return _unscaled(foreign, path)
    if foreign.lacks == "threshold":
        return _with_threshold(foreign, x)
    return _better(foreign, x) if foreign.lacks == "perhaps" else _scaled(foreign, x)


def _unscaled(foreign: Foreign, path: Path) -> Foreign:
    """As it is, if that may be right."""
    if foreign.lacks == "threshold":
        raise UserError(
            f"{path} ({foreign.format}) keeps the {foreign.k} largest latents per token of a whole "
            "batch, and holds no threshold for single tokens; add --store STORE to estimate it from"
        )
    if foreign.lacks not in ("perhaps", "mean_std"):
        raise UserError(
            f"{path} ({foreign.format}) was trained on embeddings less their mean or divided by "
            "their scale, as the config.json beside it tells, but holds neither; add --store STORE "
            "to estimate them from (for embeddings already normalised: move the config.json away)"
        )
    was = "was" if foreign.lacks == "mean_std" else "may have been"
    note = (
        f"{was} trained on centred and scaled embeddings, and does not hold their mean and "
        "scale: its latents are right for embeddings normalised so; for raw ones add --store STORE"
    )
    return replace(foreign, lacks="", notes=(*foreign.notes, note))


@torch.no_grad()
def _with_threshold(foreign: Foreign, x: Tensor) -> Foreign:
    """That which k latents per token of the store reach, on average."""
    model = to_sae(replace(foreign, threshold=torch.zeros(())))
    threshold = just_below(find_threshold(model, [x[:N_MEASURED]]))
    note = f"threshold {float(threshold):.4g} estimated from {min(len(x), N_MEASURED)} tokens"
    return replace(foreign, threshold=threshold, lacks="", notes=(*foreign.notes, note))


def _better(foreign: Foreign, x: Tensor) -> Foreign:
    """Whichever explains the store better: embeddings as they are, or centred and scaled."""
    raw = replace(foreign, lacks="")
    scaled = _scaled(replace(foreign, lacks="mean_scale"), x)
    fvu_raw, fvu_scaled = fvu(to_sae(raw), x), fvu(to_sae(scaled), x)
    found = f"FVU on the store is {fvu_scaled:.3g} with them, {fvu_raw:.3g} without"
    if fvu_scaled < fvu_raw:
        return replace(scaled, notes=(*scaled.notes, f"mean and scale are kept: {found}"))
    return replace(raw, notes=(*raw.notes, f"no mean and scale of the input: {found}"))


def _scaled(foreign: Foreign, x: Tensor) -> Foreign:
    """As saev's first loaders did: less the mean, over mean length / sqrt(d), each where told.

    visaebench divides by the deviation over all dimensions.
    """
    mean = x.mean(0) if "mean" in foreign.lacks else x.new_zeros(x.shape[1])
    scale = 1.0
    if "scale" in foreign.lacks:
        scale = float((x - mean).norm(dim=1).mean()) / math.sqrt(x.shape[1])
    if "std" in foreign.lacks:
        scale = float((x - mean).double().square().mean().sqrt())
    note = f"{foreign.lacks.replace('_', ' and ')} estimated from {len(x)} tokens of the store"
    note += f" (mean of length {float(mean.norm()):.4g}, scale {scale:.4g})"
    return replace(foreign, mean=mean, scale=scale, lacks="", notes=(*foreign.notes, note))
