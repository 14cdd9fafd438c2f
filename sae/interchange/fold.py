"""Our SAE as the libraries that know no mean and no scale write it: both go into the weights."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from sae.core.files import write_json, write_tensors
from sae.model.sae import SAE, SAEConfig

NOWHERE = "no other library has that: share the folder as it is, `sae push` does so"


class RawWeights(NamedTuple):
    """The same latents of raw embeddings: rule(W_enc (x - b_dec) + b_enc), and W_dec a + b_dec.

    With an `input_norm`, of normalised rows.
    """

    W_enc: Tensor
    """(n_latents, d)"""
    b_enc: Tensor
    """(n_latents,)"""
    W_dec: Tensor
    """(n_latents, d); the rows carry the scale, so they are not of unit length."""
    b_dec: Tensor
    """(d,)"""


@torch.no_grad()
def raw_weights(model: SAE) -> RawWeights:
    """Fold mean and scale into the weights: (x - mean) / scale - b_dec = (x - b_dec') / scale."""
    return RawWeights(
        W_enc=model.W_enc / model.scale,
        b_enc=model.b_enc.clone(),
        W_dec=model.W_dec * model.scale,
        b_dec=model.b_dec * model.scale + model.mean,
    )


def saelens_has(config: SAEConfig) -> bool:
    """Whether SAELens can express the maths of such an SAE."""
    row_norms = ("", "layer_norm", "constant_norm")
    has_rule = config.activation in ("topk", "abs_topk", "batch_topk", "jumprelu", "relu")
    return has_rule and not config.soft_cap and config.input_norm in row_norms


def rule_in_words(config: SAEConfig) -> str:
    """What it does, for a refusal: "relu, layer_norm"."""
    cap = f"soft cap {config.soft_cap:g}" if config.soft_cap else ""
    return ", ".join(filter(None, (config.activation, config.input_norm, cap)))


def write_folder(
    folder: Path, cfg: str, config: dict[str, object], weights: str, state: dict[str, Tensor]
) -> Path:
    """Write the weights' file, then the settings: a folder without the latter is unfinished."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / cfg).unlink(missing_ok=True)
    write_tensors(
        folder / weights, {name: t.detach().cpu().contiguous() for name, t in state.items()}
    )
    write_json(folder / cfg, config)
    return folder
