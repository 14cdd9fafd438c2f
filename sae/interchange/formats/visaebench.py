"""visaebench's sae.pt, model.pt or model.safetensors, with the config.json or config.yaml beside.

Latents are rule(relu(W_enc x + b_enc)), where batchtopk keeps what reaches one threshold and
jumprelu what exceeds each latent's own. Two layouts: `encoder.weight` and `decoder.weight`, both
(n, d), and overcomplete's names, whose rows are taken as they are. Both are for embeddings less
their mean and over their deviation, which the file does not hold.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sae.clip.names import name_told
from sae.core.errors import UserError
from sae.interchange.foreign import Foreign, Rule, just_below
from sae.untrusted.fields import number, require_size, tensor
from sae.untrusted.found import Found
from sae.untrusted.used import Used

NAME = "visaebench"
ASIDE = frozenset({"d_model", "dict_size", "model", "name"})
"""Keys that change no latent; see `sae.untrusted.used`."""
FILES = ("sae.pt", "model.safetensors", "model.pt")
"""In the order in which its loader asks for them."""
CONFIGS = ("config.json", "config.yaml", "config.yml")
BACKBONES = {"clip_vitb16": "openai/clip-vit-base-patch16"}
"""Its names of the CLIPs among its networks."""
LAYER = re.compile(r"/layer_(\d+)/?$")
RULES: dict[str, Rule] = {"topk": "topk", "batchtopk": "batch_topk", "jumprelu": "jumprelu"}
RULE_KEYS = ("activation", "sae_type", "architecture")
"""Where the rule stands: the first of these that is there."""
SIMPLE = {"encoder.weight", "encoder.bias", "decoder.weight"}
LINEAR = "encoder.final_block.0."
OVERCOMPLETE = {LINEAR + "weight", LINEAR + "bias", "dictionary._weights"}


class Kept(NamedTuple):
    """Which latents are kept, and what the user should know of it."""

    rule: Rule
    k: int = 0
    threshold: Tensor | None = None
    notes: tuple[str, ...] = ()


def detect(found: Found) -> bool:
    """Tensors of one of its layouts beside settings with one of its rules.

    Without such settings, a decoder of the same shape as the encoder, where that is not square.
    """
    name = _file(found)
    if not name:
        return False
    state = _state(found, name)
    if SIMPLE <= state.keys() <= SIMPLE | {"decoder.bias"} and _has_its_shapes(state):
        return True
    return (state.keys() >= SIMPLE or state.keys() >= OVERCOMPLETE) and bool(_config(found, name))


def read(found: Found) -> Foreign:
    """The SAE. Raises `UserError` where no settings beside it tell its rule."""
    name = _file(found)
    if not name:
        raise UserError(f"{found.path} holds none of {', '.join(FILES)}, or several: name one")
    state, config = _state(found, name), _config(found, name)
    if not config:
        raise UserError(
            f"{found.folder / name} is laid out as visaebench does, but no {CONFIGS[0]} or "
            f"{CONFIGS[1]} beside it tells its activation ({', '.join(RULES)}); fetch that too"
        )
    is_simple = "encoder.weight" in state
    prefix = "encoder." if is_simple else LINEAR
    W_enc = tensor(state, prefix + "weight", NAME, ndim=2)
    n_latents, d = W_enc.shape
    require_size(NAME, "input_dim", config.get("input_dim"), d)
    require_size(NAME, "hidden_dim", config.get("hidden_dim"), n_latents)
    if config.get("expansion_factor") is not None:
        told = number(config, "expansion_factor", NAME)
        require_size(NAME, "expansion_factor x input_dim", told * d, n_latents)
    kept = _rule(state, config)
    W_dec, notes = _decoder(state, is_simple)
    has_bias = is_simple and "decoder.bias" in state
    backbone = str(config.get("backbone"))
    return Foreign(
        format=NAME,
        W_enc=W_enc,
        b_enc=tensor(state, prefix + "bias", NAME),
        W_dec=W_dec,
        b_dec=tensor(state, "decoder.bias", NAME) if has_bias else torch.zeros(d),
        rule=kept.rule,
        k=kept.k,
        threshold=kept.threshold,
        clip=name_told(BACKBONES.get(backbone, "")),
        layer=_layer(config),
        notes=kept.notes + notes,
        lacks="mean_std",
    )


def _layer(config: Used) -> str:
    """As it is told, or else as the folder of the training's embeddings is called."""
    layer = config.get("layer")
    if isinstance(layer, int) and layer >= 0:
        return str(layer)
    found = LAYER.search(str(config.get("activation_dir", "")))
    return found[1] if found else ""


def _file(found: Found) -> str:
    """The weights: the file that was named, or of one folder the first that its loader takes."""
    if found.is_file or found.named.endswith(".safetensors"):
        return found.named
    folders = {n.rpartition("/")[0] for n in found.names if n.rpartition("/")[2] in FILES}
    folders = {at for at in folders if any(f"{at}/{c}".lstrip("/") in found.names for c in CONFIGS)}
    if len(folders) != 1:
        return ""
    folder = folders.pop()
    places = [f"{folder}/{file}".lstrip("/") for file in FILES]
    return next(place for place in places if place in found.names)


def _state(found: Found, name: str) -> Used:
    return found.tensors(name) if name.endswith(".safetensors") else found.torch(name)


def _has_its_shapes(state: Mapping[str, Any]) -> bool:
    W_enc, W_dec = (dict(state.items())[f"{part}.weight"] for part in ("encoder", "decoder"))
    shapes = [tuple(getattr(value, "shape", ())) for value in (W_enc, W_dec)]
    return len(shapes[0]) == 2 and shapes[0] == shapes[1] and shapes[0][0] != shapes[0][1]


def _config(found: Found, name: str) -> Used:
    """The settings beside the weights, where they tell one of its rules; else none."""
    for file in CONFIGS:
        config = found.settings_beside(name, file)
        if config:
            told = next((config[key] for key in RULE_KEYS if config.get(key) is not None), "")
            return config if str(told).lower() in RULES else Used({})
    return Used({})


def _rule(state: Used, config: Used) -> Kept:
    told = [str(config[key]).lower() for key in RULE_KEYS if config.get(key) is not None]
    if len(set(told)) > 1:
        raise UserError(f"{NAME}: {', '.join(RULE_KEYS)} of the settings disagree: {told}")
    rule = RULES[told[0]]
    k = number(config, "k", NAME) if config.get("k") is not None else 0
    if rule == "topk":
        return Kept(rule, k)
    if rule == "jumprelu":
        name = "jump_thresholds" if "jump_thresholds" in state else "thresholds"
        threshold = tensor(state, name, NAME)
        negative = (
            "some thresholds are below 0: they are taken as they are, as visaebench does; "
            "overcomplete itself writes logarithms",
        )
        return Kept(rule, 0, threshold, negative if bool((threshold < 0).any()) else ())
    return Kept(rule, k, *_batch_threshold(state, config))


def _batch_threshold(state: Used, config: Used) -> tuple[Tensor | None, tuple[str, ...]]:
    """What a latent must reach: of the settings, else of the state dict."""
    learned = state.get("_running_threshold")
    told = config.get("threshold")
    if told is None:
        if learned is None:
            raise UserError(
                f"{NAME}: a batchtopk without `threshold` in its settings or `_running_threshold` "
                "among its tensors keeps all that is positive; add it where it is known"
            )
        return just_below(tensor(state, "_running_threshold", NAME, ndim=learned.ndim)), ()
    if not isinstance(told, int | float) or not 0 <= told < float("inf"):
        raise UserError(f"{NAME}: threshold is {told!r}, but must be a number from 0")
    value = torch.tensor(float(told))
    differs = learned is not None and not torch.isclose(learned.float().reshape(()), value)
    note = f"threshold {told:g} is of the settings, as by its loader; the tensors have another"
    return just_below(value), (note,) if differs else ()


def _decoder(state: Used, is_simple: bool) -> tuple[Tensor, tuple[str, ...]]:
    """(n_latents, d), and what the user should know."""
    if is_simple:
        return tensor(state, "decoder.weight", NAME, ndim=2), ()
    rows = tensor(state, "dictionary._weights", NAME, ndim=2)
    norms = rows.norm(dim=1)
    note = (
        "decoder rows are not of unit length, and taken as they are, as visaebench does; "
        "overcomplete itself normalises them (--format overcomplete)",
    )
    notes = () if torch.allclose(norms, torch.ones(()), atol=1e-3) else note
    if "dictionary.multiplier" in state:
        rows = rows * tensor(state, "dictionary.multiplier", NAME, ndim=0).exp()
    return rows, notes
