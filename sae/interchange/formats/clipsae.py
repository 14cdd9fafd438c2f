"""The SAEs of the CLIP sketch projects: `nn.Linear` pairs with ReLU, no pre-bias, in plain files.

clip_sae_for_sketches_2026 and sae-clip-project save the bare state dict; SAE-for-CLIP saves a
checkpoint whose encoder has its own bias, ReLU and then top-k, and a decoder without bias.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sae.core.errors import UserError
from sae.interchange.foreign import Foreign
from sae.untrusted.fields import number, require_size, settings_of, tensor
from sae.untrusted.found import Found

NAME = "clip_sae"
TOPK = "SAE-for-CLIP TopK"
BARE = {"encoder.weight", "encoder.bias", "decoder.weight", "decoder.bias"}
CHECKPOINT = {"encoder.weight", "encoder_bias", "decoder.weight"}
ASIDE = frozenset({"clip"})
"""Keys that change no latent; see `sae.untrusted.used`."""
DEFAULT_K = 500
"""Of SAE-for-CLIP, where a checkpoint of training does not tell its k."""


def detect(found: Found) -> bool:
    """Exactly the four tensors of two linear layers, or a checkpoint with `encoder_bias`."""
    held = found.torch()
    if held.keys() == BARE and _is_square(held):
        raise UserError(
            f"{found.path}: encoder.weight is square, so its shapes do not tell whether "
            "decoder.weight lies as in nn.Linear (add --format clipsae) or as in visaebench, which "
            "has a config.json beside it"
        )
    return held.keys() == BARE or _state(held).keys() == CHECKPOINT


def read(found: Found) -> Foreign:
    """The SAE, of either kind."""
    held = found.torch()
    state = _state(held)
    if state.keys() == CHECKPOINT:
        return _topk(state, settings_of(held.get("sae_config")))
    return Foreign(
        format=NAME,
        W_enc=tensor(held, "encoder.weight", NAME, ndim=2),
        b_enc=tensor(held, "encoder.bias", NAME),
        W_dec=tensor(held, "decoder.weight", NAME, ndim=2).T,
        b_dec=tensor(held, "decoder.bias", NAME),
        rule="relu",
        notes=(
            "trained on raw image features by one project, on features of length 1 by another: "
            "the file does not tell which; compare FVU",
        ),
    )


def _topk(state: Mapping[str, Tensor], config: Mapping[str, Any]) -> Foreign:
    sae = settings_of(config["sae"]) if "sae" in config else config  # flat, or {clip, sae}
    W_enc = tensor(state, "encoder.weight", TOPK, ndim=2)
    n_latents, d = W_enc.shape
    require_size(TOPK, "d_model", sae.get("d_model"), d)
    if "expansion_factor" in sae:
        require_size(TOPK, "latents", d * number(sae, "expansion_factor", TOPK), n_latents)
    told = "k" in sae
    k = number(sae, "k", TOPK, default=min(DEFAULT_K, n_latents))
    return Foreign(
        format=TOPK,
        W_enc=W_enc,
        b_enc=tensor(state, "encoder_bias", TOPK),
        W_dec=tensor(state, "decoder.weight", TOPK, ndim=2).T,
        b_dec=torch.zeros(d),
        rule="topk",
        k=k,
        notes=() if told else (f"the file does not tell k: {k} is the project's own",),
    )


def _is_square(held: Mapping[str, Any]) -> bool:
    shape = tuple(getattr(held["encoder.weight"], "shape", ()))
    return len(shape) == 2 and shape[0] == shape[1]


def _state(held: Mapping[str, Any]) -> Mapping[str, Tensor]:
    state = held.get("model_state_dict")
    return state if isinstance(state, dict) else {}
