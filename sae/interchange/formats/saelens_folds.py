"""What SAELens keeps beside its weights while it trains, and folds into them when it is done."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sae.core.errors import UserError
from sae.untrusted.fields import tensor
from sae.untrusted.found import Found

SCALER, WHITENING = "activation_scaler.json", "activation_whitening.safetensors"
NO_FACTOR = (
    "trained on embeddings brought to an average length of sqrt(d), by a factor that the file does "
    "not tell: like SAELens, latents here are those of embeddings as they are; compare FVU"
)


class Folded(NamedTuple):
    """The weights as they act on raw embeddings, or on normalised rows."""

    W_enc: Tensor
    """(n_latents, d)"""
    b_enc: Tensor
    """(n_latents,); 0 for a gated SAE, which has two others."""
    W_dec: Tensor
    """(n_latents, d)"""
    b_dec: Tensor
    """(d,)"""
    scale: float
    """What embeddings are divided by first."""
    state: Mapping[str, Tensor]
    """All tensors of the file."""
    notes: tuple[str, ...]


def fold(found: Found, name: str, config: Mapping[str, Any], source: str) -> Folded:
    """Fold decoder norms, a fine-tuned scale of the latents, and the whitening into the weights.

    Partly in place, so once for each `Found`: a second decoder would be half as large as the file.
    """
    state = found.tensors(name)
    W_enc = tensor(state, "W_enc", source, ndim=2).T
    W_dec = tensor(state, "W_dec", source, ndim=2)
    b_dec = tensor(state, "b_dec", source)
    has_bias = config["architecture"] != "gated"
    b_enc = tensor(state, "b_enc", source) if has_bias else torch.zeros(len(W_enc))
    if _rescales(config):
        norms = W_dec.norm(dim=1).clamp(min=1e-8)
        W_enc.mul_(norms[:, None])
        W_dec.div_(norms[:, None])
        b_enc = b_enc * norms
    factor = _fine_tuned(state, config, source)
    if factor is not None:
        W_dec.mul_(factor[:, None])
    norm = config.get("normalize_activations")
    folded = Folded(W_enc, b_enc, W_dec, b_dec, 1.0, state, ())
    if norm == "expected_average_only_in":
        return _scaled(folded, found, name, source)
    if norm == "covariance_whitening":
        if config["architecture"] == "gated":
            raise UserError(f"{source}: a gated SAE of whitened embeddings has no counterpart here")
        return _whitened(folded, found, name, config, source)
    return folded


def _rescales(config: Mapping[str, Any]) -> bool:
    """Whether latents compete by their share of the reconstruction: files of training do."""
    architecture = config["architecture"]
    default = architecture.endswith("batchtopk")
    told = bool(config.get("rescale_acts_by_decoder_norm", default))
    return told and (architecture in ("topk", "abstopk") or default)


def _fine_tuned(
    state: Mapping[str, Tensor], config: Mapping[str, Any], source: str
) -> Tensor | None:
    """What versions up to 5 multiply each latent with before it is decoded, where they do."""
    name = next((n for n in ("finetuning_scaling_factor", "scaling_factor") if n in state), "")
    if not name:
        return None
    factor = tensor(state, name, source)
    if config.get("finetuning_scaling_factor"):
        return factor
    if torch.allclose(factor, torch.ones(())):
        return None
    raise UserError(
        f"{source}: the file has a {name}, but its finetuning_scaling_factor is false; which is "
        "right cannot be known"
    )


def _scaled(folded: Folded, found: Found, name: str, source: str) -> Folded:
    """Divide by what training measured: the factor is told beside the weights, or nowhere."""
    place = found.beside(name, SCALER)
    factor = found.json(place).get("scaling_factor") if place else None
    if factor is None:
        return folded._replace(notes=(NO_FACTOR,))
    if not isinstance(factor, int | float) or not 0 < factor < float("inf"):
        raise UserError(f"{source}: {place} has the scaling_factor {factor!r}; it must be above 0")
    return folded._replace(scale=1 / factor)


def _whitened(
    folded: Folded, found: Found, name: str, config: Mapping[str, Any], source: str
) -> Folded:
    """Fold z = (x - mean) M and its inverse in (arXiv 2511.13981): both are affine."""
    place = found.beside(name, WHITENING)
    if not place:
        raise UserError(
            f"{source}: trained on whitened embeddings, but {WHITENING} is not beside {name}; "
            "fetch the whole folder"
        )
    white = found.tensors(place)
    mean = tensor(white, "mean", source).double()
    matrix = tensor(white, "matrix", source, ndim=2).double()
    inverse = tensor(white, "inverse_matrix", source, ndim=2).double()
    W_enc = folded.W_enc.double() @ matrix.T
    b_enc = folded.b_enc
    if config.get("apply_b_dec_to_input", True) is False:
        b_enc = (b_enc.double() - W_enc @ mean).float()
    return folded._replace(
        W_enc=W_enc.float(),
        b_enc=b_enc,
        W_dec=(folded.W_dec.double() @ inverse).float(),
        b_dec=(folded.b_dec.double() @ inverse + mean).float(),
    )
