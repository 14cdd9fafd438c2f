"""The TopK SAE of the test-time-training paper (arXiv 2509.24510), as .pt and in the hub's layout.

Signed top-k: no ReLU, so negative latents survive. Decoder rows are normalised at every use, and
so are the embeddings, by the script that extracts them: each row is brought to length 1 here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sae.core.errors import UserError
from sae.interchange.foreign import Foreign
from sae.untrusted.fields import number, require_size, settings_of, tensor
from sae.untrusted.found import Found
from sae.untrusted.used import words

NAME = "ttt TopK"
ASIDE = words(
    "beta1 beta2 expansion_factor feature_counts k_warmup_start k_warmup_steps total_samples"
)
"""Keys that change no latent; see `sae.untrusted.used`."""
KEYS = {"W_enc", "b_enc", "W_dec"}


def detect(found: Found) -> bool:
    """A dict of `config` and `model_state_dict`, or the hub's config.json and model.safetensors."""
    if found.is_file:
        held = found.torch()
        return settings_of(held.get("model_state_dict")).keys() >= KEYS and "config" in held
    name = found.find("model.safetensors")
    config = found.beside(name, "config.json") if name else ""
    return bool(config) and {"input_dim", "hidden_dim"} <= found.json(config).keys()


def read(found: Found) -> Foreign:
    """The SAE, from either layout."""
    if found.is_file:
        held = found.torch()
        return _foreign(held["model_state_dict"], settings_of(held["config"]))
    name = found.find("model.safetensors")
    return _foreign(found.tensors(name), found.json(found.beside(name, "config.json")))


def _foreign(state: Mapping[str, Tensor], config: Mapping[str, Any]) -> Foreign:
    W_enc = tensor(state, "W_enc", NAME, ndim=2).T
    W_dec = tensor(state, "W_dec", NAME, ndim=2)
    n_latents, d = W_enc.shape
    for name, found in (("feature_dim", d), ("input_dim", d), ("hidden_dim", n_latents)):
        require_size(NAME, name, config.get(name), found)
    if config.get("decoder_bias", True) != ("b_dec" in state):
        raise UserError(f"{NAME}: decoder_bias of the settings and the tensor b_dec disagree")
    if config.get("normalize_decoder", True):
        # In place: a second decoder would be half as large as the file.
        W_dec.div_(W_dec.norm(dim=1, keepdim=True).clamp(min=1e-12))
    return Foreign(
        format=NAME,
        W_enc=W_enc,
        b_enc=tensor(state, "b_enc", NAME),
        W_dec=W_dec,
        b_dec=tensor(state, "b_dec", NAME) if "b_dec" in state else torch.zeros(d),
        rule="signed_topk",
        k=number(config, "k", NAME),
        input_norm="constant_norm",  # to length sqrt(d), which the scale takes back to 1
        scale=math.sqrt(d),
        notes=("trained on embeddings of length 1: each of yours is brought to it first",),
    )
