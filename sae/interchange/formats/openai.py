"""openai/sparse_autoencoder's single .pt: a state dict with the activation's name in it.

Its TopK (v5) takes each token's own mean and deviation out first and puts them back at the end;
its ReLU (v1, v4) does not. Latents are activation(W_enc (x - pre_bias) + latent_bias).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from sae.core.errors import UserError
from sae.interchange.foreign import Foreign, Rule
from sae.untrusted.fields import number, settings_of, tensor
from sae.untrusted.found import Found

NAME = "openai"
ASIDE = frozenset({"latents_activation_frequency", "latents_mean_square", "stats_last_nonzero"})
"""Keys that change no latent; see `sae.untrusted.used`."""
KEYS = {"pre_bias", "latent_bias", "encoder.weight"}
AFTER_TOPK: dict[str, Rule] = {"ReLU": "topk", "Identity": "signed_topk"}


def detect(found: Found) -> bool:
    """A dict with `pre_bias`, `latent_bias` and `encoder.weight`."""
    return found.torch().keys() >= KEYS


def read(found: Found) -> Foreign:
    """The SAE; where it has no decoder, or a `TiedTranspose`, that is the encoder's transpose."""
    state = found.torch()
    activation = state.get("activation", "ReLU")  # as its own loader has it
    rule, k = _rule(activation, state)
    W_enc = tensor(state, "encoder.weight", NAME, ndim=2)
    return Foreign(
        format=f"{NAME} {activation}",
        W_enc=W_enc,
        b_enc=tensor(state, "latent_bias", NAME),
        W_dec=_decoder(state, W_enc),
        b_dec=tensor(state, "pre_bias", NAME),
        rule=rule,
        k=k,
        pre_bias=True,
        input_norm="layer_norm" if activation == "TopK" else "",
        notes=() if "activation" in state else ("the file tells no activation: read as ReLU",),
    )


def _rule(activation: object, state: Mapping[str, Any]) -> tuple[Rule, int]:
    told = settings_of(state.get("activation_state_dict"))
    if activation == "ReLU":
        return "relu", 0
    if activation != "TopK":
        raise UserError(f"{NAME}: activation {activation!r} has no counterpart here")
    for name in ("k", "postact_fn"):
        told.setdefault(name, state.get(f"activation.{name}"))  # as torch nests modules
    after = told["postact_fn"] or "ReLU"
    if after not in AFTER_TOPK:
        raise UserError(f"{NAME}: {after!r} after the top k has no counterpart here")
    return AFTER_TOPK[after], number(told, "k", NAME)


def _decoder(state: Mapping[str, Any], W_enc: Tensor) -> Tensor:
    """(n_latents, d)"""
    if "decoder.weight" in state:
        return tensor(state, "decoder.weight", NAME, ndim=2).T
    if "decoder.linear.weight" in state:  # tied: the encoder's own, written twice
        return tensor(state, "decoder.linear.weight", NAME, ndim=2)
    return W_enc
