"""KempnerInstitute's overcomplete: a plain torch.save of an SAE's state dict.

The package has no save format. The file tells neither the class nor its k: they are asked of the
user, of a JSON file beside it, or taken as the package's default. Latents are relu of a linear
encoder, with its batch norm folded in, then the k largest; there is no decoder bias.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sae.core.errors import UserError
from sae.interchange.foreign import Foreign, Rule, just_below
from sae.untrusted.fields import tensor
from sae.untrusted.found import Found
from sae.untrusted.json_file import json_object

NAME = "overcomplete"
ASIDE = frozenset({"encoder.final_block.1.num_batches_tracked"})
"""Keys that change no latent; see `sae.untrusted.used`."""
DICTIONARY = "dictionary."
LINEAR = "encoder.final_block.0."
NORM = "encoder.final_block.1."
BATCH_NORM_EPS = 1e-5
MAX_JSONS = 20
NO_ENCODER = {
    "mlp_blocks": "several layers",
    "resnet_blocks": "convolutions",
    "attention_blocks": "attention",
}


class Linear(NamedTuple):
    """An encoder that is one linear layer."""

    W_enc: Tensor
    """(n_latents, d)"""
    b_enc: Tensor
    """(n_latents,)"""


class Rest(NamedTuple):
    """What keeps the latents, and what the user should know of it."""

    rule: Rule
    k: int = 0
    threshold: Tensor | None = None
    notes: tuple[str, ...] = ()


def detect(found: Found) -> bool:
    """A state dict with `dictionary._weights`, or an archetypal `dictionary.C`, and an encoder."""
    held = found.torch()
    is_state = all(isinstance(name, str) for name in held)
    return is_state and not held.keys().isdisjoint({DICTIONARY + "_weights", DICTIONARY + "C"})


def read(found: Found) -> Foreign:
    """The SAE. Raises `UserError` for an encoder that is more than one linear layer, and QSAE."""
    state = found.torch()
    W_dec = _dictionary(state)
    linear = _encoder(state, W_dec)
    rest = _rest(found, state, *W_dec.shape)
    b_dec = torch.zeros(W_dec.shape[1])
    return Foreign(format=NAME, **linear._asdict(), **rest._asdict(), W_dec=W_dec, b_dec=b_dec)


def _dictionary(state: Mapping[str, Any]) -> Tensor:
    """Rows as they are used (n_latents, d): of unit length, but for the multiplier."""
    if DICTIONARY + "C" in state:
        rows = _archetypes(state)
    else:
        rows = tensor(state, DICTIONARY + "_weights", NAME, ndim=2)
        # In place: a second decoder would be half as large as the file.
        rows.div_(rows.norm(dim=1, keepdim=True) + 1e-8)
    if not state.get(DICTIONARY + "multiplier", torch.zeros(())).any():
        return rows
    return rows * tensor(state, DICTIONARY + "multiplier", NAME, ndim=0).exp()


def _archetypes(state: Mapping[str, Any]) -> Tensor:
    """Mixtures of data points, each moved by at most 1, the package's default for delta."""
    mix = tensor(state, DICTIONARY + "W", NAME, ndim=2).relu()
    points = tensor(state, DICTIONARY + "C", NAME, ndim=2)
    moved = tensor(state, DICTIONARY + "Relax", NAME, ndim=2)
    mix = mix / (mix.sum(1, keepdim=True) + 1e-8)
    shrunk: Tensor = moved * (1 / moved.norm(dim=1, keepdim=True)).clamp(max=1)
    return mix @ points + shrunk


def _encoder(state: Mapping[str, Any], W_dec: Tensor) -> Linear:
    for name in state:
        for part, words in NO_ENCODER.items():
            if name.startswith(f"encoder.{part}"):
                raise UserError(
                    f"{NAME}: its encoder has {words} ({part}), which has no counterpart here"
                )
    if LINEAR + "weight" in state:
        return _normed(state)
    if "encoder.weight" in state or any(name.startswith("encoder.tied_to.") for name in state):
        tied = "encoder.weight" not in state
        for name in [name for name in state if tied and name.startswith("encoder.tied_to.")]:
            state.get(name)  # the dictionary's own tensors, written twice
        W_enc = W_dec if tied else tensor(state, "encoder.weight", NAME, ndim=2)
        has_bias = "encoder.bias" in state
        b_enc = tensor(state, "encoder.bias", NAME) if has_bias else torch.zeros(len(W_enc))
        return Linear(W_enc, b_enc)
    raise UserError(
        f"{NAME}: the file holds no encoder that is a linear layer (matching pursuit, or one of "
        "the user's own); only those have a counterpart here"
    )


def _normed(state: Mapping[str, Any]) -> Linear:
    """A linear layer, with the batch norm behind it where there is one, as it is in use."""
    W_enc = tensor(state, LINEAR + "weight", NAME, ndim=2)
    b_enc = tensor(state, LINEAR + "bias", NAME)
    if not any(name.startswith(NORM) for name in state):
        return Linear(W_enc, b_enc)
    if NORM + "running_var" not in state:
        raise UserError(
            f"{NAME}: its encoder ends in a layer norm (mlp_ln), which has no counterpart here; "
            "linear and mlp_bn_1 have"
        )
    spread = (tensor(state, NORM + "running_var", NAME).double() + BATCH_NORM_EPS).sqrt()
    gain = tensor(state, NORM + "weight", NAME).double() / spread
    shift = tensor(state, NORM + "bias", NAME) - gain * tensor(state, NORM + "running_mean", NAME)
    return Linear(W_enc * gain[:, None].float(), (b_enc * gain + shift).float())


def _rest(found: Found, state: Mapping[str, Any], n_latents: int, d: int) -> Rest:
    if "Q" in state:
        raise UserError(f"{NAME}: QSAE rounds its latents to levels, which has no counterpart here")
    if "_running_threshold" in state:
        return _batch_topk(found, state, n_latents, d)
    if "thresholds" in state:
        return Rest("jumprelu", threshold=tensor(state, "thresholds", NAME).exp())
    k, place = _told(found, n_latents, d)
    if place:
        return Rest("topk", k, notes=(f"k {k} is from {place}: the file itself does not tell it",))
    k = max(1, n_latents // 10)
    note = (
        f"the file does not tell its k: {k} is the package's default, a tenth of the latents; if "
        "it was trained with another, import it again with --k K"
    )
    return Rest("topk", k, notes=(note,))


def _batch_topk(found: Found, state: Mapping[str, Any], n_latents: int, d: int) -> Rest:
    """A BatchTopK in use: what reaches the threshold of its training, however many these are."""
    learned = tensor(state, "_running_threshold", NAME, ndim=state["_running_threshold"].ndim)
    k, place = _told(found, n_latents, d)
    note = f"BatchTopK by `_running_threshold`; k {k} is from {place}"
    if not place:
        note = "BatchTopK by `_running_threshold`; its k in training is not told: --k K notes it"
    return Rest("batch_topk", k, just_below(learned), (note,))


def _told(found: Found, n_latents: int, d: int) -> tuple[int, str]:
    """k, and the JSON file beside the weights that tells it for an SAE of this size; or (0, "")."""
    for path in sorted(found.folder.glob("*.json"))[:MAX_JSONS]:
        try:
            told = json_object(path)
        except UserError:
            continue  # it is not ours to judge: only the weights were named
        k = told.get("top_k", told.get("k"))
        sizes = told.get("nb_concepts", told.get("n_latents")), told.get("d")
        fits = sizes[0] in (None, n_latents) and sizes[1] in (None, d)
        if fits and isinstance(k, int) and 1 <= k <= n_latents:
            return k, path.name
    return 0, ""
