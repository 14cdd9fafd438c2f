"""WolodjaZ's MSAE: {model, mean_center, scaling_factor, target_norm}, and the rest in the name.

<n>_<d>_<activation>[_<k>][_UW|_RW]_<tied>_<normalise>_<soft cap>_<data>.pth. The embeddings are
centred and scaled, then each row's mean and deviation may be taken out; latents are
cap(act((x - pre_bias) encoder + latent_bias)), where the cap is a tanh. Without an activation in
its name, TopK keeps negative latents.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sae.clip.names import name_told
from sae.core.errors import UserError
from sae.interchange.foreign import Foreign, Rule
from sae.untrusted.fields import require_size, settings_of, tensor
from sae.untrusted.found import Found

NAME = "MSAE"
FILE_NAME = re.compile(
    r"(?P<n>\d+)_(?P<d>\d+)_(?P<activation>[A-Za-z]+)(_(?P<k>\d+))?(_(?P<weighting>UW|RW))?"
    r"_(?P<tied>True|False)_(?P<normalise>True|False)_(?P<soft_cap>[0-9.e+-]+)(_|\.pt|$)"
)
CLIP_NAME = re.compile(r"_(ViT-[BL])~(\d+)(@336px)?_train_image_")
"""Of OpenAI's CLIP, in the name of the embeddings that the file's own name ends in."""
ASIDE = frozenset({"latents_activation_frequency", "target_norm"})
"""Keys that change no latent; see `sae.untrusted.used`."""
EXAMPLE = "6144_768_TopKReLU_64_RW_False_False_0.0_cc3m.pth"
RULES: dict[str, Rule] = {
    "ReLU": "relu",
    "JumpReLU": "jumprelu",
    "TopK": "signed_topk",
    "TopKReLU": "topk",
    "BatchTopK": "batch_topk",
    "BatchTopKReLU": "batch_topk",
    "Identity": "signed_topk",
}


@dataclass(frozen=True)
class Told:
    """What stands in the name of the file."""

    n_latents: int
    d: int
    activation: str
    k: int
    """0 where there is none."""
    matryoshka: bool
    tied: bool
    normalise: bool
    soft_cap: float


def detect(found: Found) -> bool:
    """A dict whose `model` has `encoder`, `pre_bias` and `latent_bias`, with its mean and scale."""
    held = found.torch()
    model = settings_of(held.get("model"))
    return model.keys() >= {"encoder", "pre_bias", "latent_bias"} and "scaling_factor" in held


def read(found: Found) -> Foreign:
    """The SAE. Raises `UserError` when the file was given another name."""
    held = found.torch()
    model, told = held["model"], _told(found.names[0], held)
    W_enc = tensor(model, "encoder", NAME, ndim=2).T
    n_latents, d = W_enc.shape
    require_size(NAME, "n_latents", told.n_latents, n_latents)
    require_size(NAME, "n_inputs", told.d, d)
    rule = _rule(told)
    return Foreign(
        format=NAME,
        W_enc=W_enc,
        b_enc=tensor(model, "latent_bias", NAME),
        W_dec=W_enc if told.tied else tensor(model, "decoder", NAME, ndim=2),
        b_dec=tensor(model, "pre_bias", NAME),
        rule=rule,
        k=n_latents if told.activation == "Identity" else told.k if "topk" in rule else 0,
        threshold=_threshold(model, rule),
        pre_bias=True,
        mean=_mean(held.get("mean_center"), d),
        scale=1 / _factor(held["scaling_factor"]),
        input_norm="centred_layer_norm" if told.normalise else "",
        soft_cap=told.soft_cap,
        clip=_clip(found.names[0]),
        notes=_notes(told),
        lacks="threshold" if rule == "batch_topk" else "",
    )


def _told(name: str, held: Mapping[str, Any]) -> Told:
    match = FILE_NAME.match(name)
    if match is None:
        return _configured(name, settings_of(held.get("config")))
    part = match.groupdict()
    return Told(
        n_latents=int(part["n"]),
        d=int(part["d"]),
        activation=part["activation"],
        k=int(part["k"] or 0),
        matryoshka=bool(part["weighting"]),
        tied=part["tied"] == "True",
        normalise=part["normalise"] == "True",
        soft_cap=max(0.0, float(part["soft_cap"])),
    )


def _clip(name: str) -> str:
    told = CLIP_NAME.search(name)
    if told is None:
        return ""
    model, patch, is_large = told.groups()
    return name_told(f"{model}-{patch}{'-336' if is_large else ''}/openai")


def _configured(name: str, config: Mapping[str, Any]) -> Told:
    """From the `config` that a descendant of MSAE keeps in the file."""
    if not {"activation", "n_latents", "n_inputs"} <= config.keys():
        raise UserError(
            f"{NAME}: k, activation, tied weights and soft cap stand in the file's name alone, and "
            f"{name!r} does not have them; give it back its own, such as {EXAMPLE}"
        )
    activation, _, k = str(config["activation"]).partition("_")
    nesting = config.get("nesting_list") or [0]
    return Told(
        n_latents=int(config["n_latents"]),
        d=int(config["n_inputs"]),
        activation=activation,
        k=int(k or nesting[0]),
        matryoshka=bool(config.get("use_matryoshka")),
        tied=bool(config.get("tied_weights")),
        normalise=bool(config.get("normalize_decoder")),  # so that project calls it
        soft_cap=max(0.0, float(config.get("latent_soft_cap") or 0)),
    )


def _rule(told: Told) -> Rule:
    rule = RULES.get(told.activation)
    if rule is None:
        raise UserError(
            f"{NAME}: activation {told.activation!r} has no counterpart here; known are "
            f"{', '.join(RULES)}"
        )
    if "TopK" in told.activation and told.k < 1:
        raise UserError(f"{NAME}: {told.activation} in the file's name is not followed by a k")
    return rule


def _threshold(model: Mapping[str, Any], rule: Rule) -> Tensor | None:
    if rule == "jumprelu":
        return tensor(model, "activation.log_threshold", NAME).exp()
    return torch.zeros(()) if rule == "batch_topk" else None


def _mean(told: object, d: int) -> Tensor:
    if isinstance(told, Tensor) and told.ndim == 1:
        return told.float()
    value = told.item() if isinstance(told, Tensor) else told
    if value is None or isinstance(value, int | float):
        return torch.full((d,), float(value or 0))
    raise UserError(f"{NAME}: mean_center is neither a vector nor a number")


def _factor(told: object) -> float:
    value = told.item() if isinstance(told, Tensor) else told
    if not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise UserError(f"{NAME}: scaling_factor is {value!r}, but must be above 0")
    return float(value)


def _notes(told: Told) -> tuple[str, ...]:
    if not told.matryoshka:
        return ()
    return (
        f"trained for k {told.k}, {2 * told.k}, {4 * told.k} and so on at once: the file's name "
        "has the smallest; --k takes another",
    )
