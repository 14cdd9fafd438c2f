"""EleutherAI's sparsify, old and new: cfg.json and sae.safetensors in a folder per hook point.

Latents are the k largest of relu((x - b_dec) W_enc^T + b_enc), or with groupmax the largest of
each of k groups; a transcoder does not subtract b_dec. `multi_topk` is a training loss alone: the
k latents of encode() are what a user means.
"""

from __future__ import annotations

import re
from pathlib import Path

from sae.core.errors import UserError
from sae.interchange.fold import NOWHERE, raw_weights, rule_in_words, saelens_has, write_folder
from sae.interchange.foreign import Foreign, Rule
from sae.model.sae import SAE
from sae.untrusted.fields import number, require_size, tensor
from sae.untrusted.found import Found

NAME = "sparsify"
ASIDE = frozenset({"expansion_factor", "multi_topk", "normalize_decoder"})
"""Keys that change no latent; see `sae.untrusted.used`."""
CFG, WEIGHTS = "cfg.json", "sae.safetensors"


def detect(found: Found) -> bool:
    """sae.safetensors beside a cfg.json that has `d_in`."""
    name = found.find(WEIGHTS)
    config = found.beside(name, CFG) if name else ""
    return bool(config) and "d_in" in found.json(config)


def read(found: Found) -> Foreign:
    """The SAE. Raises `UserError` for a transcoder, and for several hook points."""
    name = found.only_one(WEIGHTS, CFG)
    config, state = found.json(found.beside(name, CFG)), found.tensors(name)
    activation = config.get("activation", "topk")
    if activation not in ("topk", "groupmax"):
        raise UserError(f"{NAME}: activation {activation!r} has no counterpart here; topk has")
    rule: Rule = "signed_topk" if config.get("signed") else "topk"
    if activation == "groupmax":
        rule = "group_max"
    if config.get("transcode") or config.get("skip_connection") or "W_skip" in state:
        raise UserError(f"{NAME}: {name} is a transcoder: it maps one layer to another, no SAE")
    W_enc = tensor(state, "encoder.weight", NAME, ndim=2)
    n_latents, d = W_enc.shape
    require_size(NAME, "d_in", config["d_in"], d)
    told = config.get("num_latents") or d * number(config, "expansion_factor", NAME, default=32)
    require_size(NAME, "num_latents", told, n_latents)
    return Foreign(
        format=NAME,
        W_enc=W_enc,
        b_enc=tensor(state, "encoder.bias", NAME),
        W_dec=tensor(state, "W_dec", NAME, ndim=2),
        b_dec=tensor(state, "b_dec", NAME),
        rule=rule,
        k=number(config, "k", NAME, default=32),
        pre_bias=True,
        layer=_layer(found, name),
    )


def _layer(found: Found, name: str) -> str:
    """The block that the folder is named after: "layers.10"."""
    hook = (found.folder / name).absolute().parent.name
    told = re.fullmatch(r"(?:.*\.)?(?:layers|resblocks)\.(\d+)", hook)
    return told[1] if told else ""


def write(model: SAE, folder: Path | str) -> Path:
    """Write what sparsify's own loader reads, with the same latents; centring and scale are folded.

    Raises `UserError` when the SAE's rule is not a plain TopK.
    """
    c = model.config
    if c.activation != "topk" or c.input_norm or c.soft_cap:
        hint = "export it to saelens" if saelens_has(c) else NOWHERE
        raise UserError(f"sparsify has TopK alone, and this SAE is {rule_in_words(c)}; {hint}")
    raw = raw_weights(model)
    state = {
        "encoder.weight": raw.W_enc,
        "encoder.bias": raw.b_enc,
        "W_dec": raw.W_dec,
        "b_dec": raw.b_dec,
    }
    return write_folder(Path(folder), CFG, _config(c.d, c.n_latents, c.k), WEIGHTS, state)


def _config(d: int, n_latents: int, k: int) -> dict[str, object]:
    return {
        "activation": "topk",
        "expansion_factor": 32,
        # Tells sparsify's trainer to keep unit rows; ours carry the scale.
        "normalize_decoder": False,
        "num_latents": n_latents,
        "k": k,
        "multi_topk": False,
        "skip_connection": False,
        "transcode": False,
        "d_in": d,
    }
