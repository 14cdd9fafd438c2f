"""FastSAE's folders: `final/` (or the number of samples) with settings and weights, `backbone/`.

Latents are activation((x - b_dec) W_enc + b_enc) with relu, gelu or softplus, of which the last two
are 0 nowhere. Settings and weights are told by what they hold, not by the names of their files.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import cast

from sae.clip.names import name_told
from sae.core.errors import UserError
from sae.interchange.foreign import Foreign, Rule
from sae.untrusted.fields import require_size, settings_of, tensor
from sae.untrusted.found import Found
from sae.untrusted.used import Used

NAME = "fastsae"
ASIDE = frozenset({"class_type"})
"""Keys that change no latent; see `sae.untrusted.used`."""
TENSORS = {"W_enc", "b_enc", "W_dec", "b_dec"}
ACTIVATIONS: dict[str, Rule] = {
    "relu": "relu",
    "gelu": "dense_gelu",
    "softplus": "dense_softplus",
}
WEIGHTS = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
FINAL = "final"


def detect(found: Found) -> bool:
    """Settings with `d_in` and `d_sae_factor`, and the four tensors in a file beside them."""
    return any(_weights(found, config) for config in _configs(found))


def read(found: Found) -> Foreign:
    """The SAE; of several, that of `final/`."""
    configs = [name for name in _configs(found) if _weights(found, name)]
    finals = [name for name in configs if PurePosixPath(name).parent.name == FINAL]
    if len(finals or configs) != 1:
        folders = ", ".join(str(PurePosixPath(name).parent) for name in configs[:4])
        raise UserError(f"{found.path} holds {len(configs)} SAEs ({folders}); name one")
    name = (finals or configs)[0]
    weights = _weights(found, name)
    if len(weights) > 1:
        raise UserError(f"{found.path} holds {', '.join(weights[:4])}; name one")
    found.forget()  # what was opened to choose from
    config, state = found.json(name), _state(found, weights[0])
    W_enc = tensor(state, "W_enc", NAME, ndim=2).T
    n_latents, d = W_enc.shape
    require_size(NAME, "d_in", config["d_in"], d)
    require_size(NAME, "d_in x d_sae_factor", d * config["d_sae_factor"], n_latents)
    activation = str(config.get("activation_name", "relu")).lower()
    if activation not in ACTIVATIONS or config.get("architecture", "vanilla") != "vanilla":
        raise UserError(
            f"{NAME}: architecture {config.get('architecture')!r} with activation {activation!r} "
            f"has no counterpart here; vanilla has, with {', '.join(ACTIVATIONS)}"
        )
    backbone = _backbone(found)
    layer = re.search(r"layers\W{1,2}(-?\d+)\]?$", str(backbone.get("hook_target_name")))
    return Foreign(
        format=NAME,
        W_enc=W_enc,
        b_enc=tensor(state, "b_enc", NAME),
        W_dec=tensor(state, "W_dec", NAME, ndim=2),
        b_dec=tensor(state, "b_dec", NAME),
        rule=ACTIVATIONS[activation],
        pre_bias=True,
        clip=name_told(str(backbone.get("model_hf_name") or "")),
        layer=layer[1] if layer else "",
        notes=_origin(backbone),
    )


def _configs(found: Found) -> list[str]:
    """Settings of an SAE; of a single file, those beside it."""
    names = found.beside_named(".json") if found.named else found.names
    names = [name for name in names if name.endswith("config.json")]
    return [name for name in names[:100] if {"d_in", "d_sae_factor"} <= found.json(name).keys()]


def _weights(found: Found, config: str) -> list[str]:
    """Files beside the settings that hold the four tensors."""
    if found.named and not found.named.endswith(".json"):
        names = [found.named]
    else:
        here = PurePosixPath(config).parent
        names = [name for name in found.names if PurePosixPath(name).parent == here]
    files = [name for name in names if name.endswith(WEIGHTS)]
    return [name for name in files if _state(found, name).keys() >= TENSORS]


def _state(found: Found, name: str) -> Used:
    if name.endswith(".safetensors"):
        return found.tensors(name)
    held = found.torch(name)
    return cast(Used, settings_of(held["state_dict"])) if "state_dict" in held else held


def _backbone(found: Found) -> Used:
    """What `backbone/` tells; empty where it is not there."""
    for name in found.names:
        if PurePosixPath(name).parent.name == "backbone" and name.endswith("config.json"):
            return found.json(name)
    return Used({})


def _origin(backbone: Used) -> tuple[str, ...]:
    if not backbone:
        return ()
    told = (backbone.get("hook_target_name"), backbone.get("model_hf_name"))
    return (f"trained on {told[0]} of {told[1]}",)
