"""dictionary_learning's ae.pt, with the config.json that tells its class: all of its SAEs.

Latents are those of encode() on the file as stored. Its `load_dictionary` brings a standard
AutoEncoder's decoder to unit rows first, which scales the latents and nothing else.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sae.clip.names import name_told
from sae.core.errors import UserError
from sae.interchange.foreign import Foreign, Rule, jumprelu_of_gated
from sae.untrusted.fields import number, require_size, settings_of, tensor
from sae.untrusted.found import Found
from sae.untrusted.used import Used, words

NAME = "dictionary_learning"
ASIDE = words(
    "anneal_end anneal_start auxk_alpha bandwidth ctx decay_end decay_start group_fractions "
    "group_sizes group_weights io k_anneal_steps lmbda n_ctxs n_sparsity_updates norm_factor "
    "num_tokens p_end p_norm p_start sparsity_function sparsity_queue_length submodule_name "
    "target_l0 threshold_beta top_k_aux trainer_class"
)
"""Keys that change no latent; see `sae.untrusted.used`."""
RESIDUAL = ("resid_post", "post_mlp_residual")
"""Names of what leaves a block."""
FILE = re.compile(r"ae(_\w+)?\.pt")


class Layout(NamedTuple):
    """One of its classes."""

    rule: Rule
    bias: str
    """Name of the decoder's bias."""
    pre_bias: bool
    needs: frozenset[str]


LINEAR = frozenset({"encoder.weight", "encoder.bias", "decoder.weight"})
PLAIN = frozenset({"W_enc", "b_enc", "W_dec", "b_dec"})
GATES = frozenset({"encoder.weight", "decoder.weight", "r_mag", "gate_bias", "mag_bias"})
BATCH = frozenset({"threshold"})
LAYOUTS = {
    "MatryoshkaBatchTopKSAE": Layout("batch_topk", "b_dec", True, PLAIN | BATCH | {"group_sizes"}),
    "JumpReluAutoEncoder": Layout("jumprelu", "b_dec", False, PLAIN | {"threshold"}),
    "GatedAutoEncoder": Layout("jumprelu", "decoder_bias", True, GATES | {"decoder_bias"}),
    "AutoEncoderTopK": Layout("topk", "b_dec", True, LINEAR | {"b_dec"}),
    "AutoEncoder": Layout("relu", "bias", True, LINEAR | {"bias"}),
    "AutoEncoderNew": Layout("relu", "decoder.bias", False, LINEAR | {"decoder.bias"}),
    "BatchTopKSAE": Layout("batch_topk", "b_dec", True, LINEAR | BATCH | {"b_dec"}),
}
"""Where no config.json tells the class, the first whose tensors are there is it."""
ALIASES = {"MatroyshkaBatchTopKSAE": "MatryoshkaBatchTopKSAE"}  # its own spelling of early 2025
SCALED = {"b_enc", "encoder.bias", "mag_bias", "gate_bias"} | {at.bias for at in LAYOUTS.values()}
"""Biases that its training multiplies by `norm_factor` before it saves an SAE."""


class Held(NamedTuple):
    """What lies in the file, and what its trainer says of it."""

    state: Used
    trainer: dict[str, Any]
    """Empty where there is no config.json."""


def detect(found: Found) -> bool:
    """The tensors of one of its classes, or a config.json that tells a class."""
    names = _files(found)
    held = _held(found, names[0]) if names else None
    if held is None:
        return False
    return bool(held.trainer.get("dict_class") or _by_tensors(held.state, names[0]))


def read(found: Found) -> Foreign:
    """The SAE. Raises `UserError` for classes that are no SAE, and for tensors out of place."""
    names = _files(found)
    held = _held(found, names[0]) if names else None
    if held is None:
        raise UserError(f"{found.path} holds no state dict of {NAME}")
    if len(names) > 1:
        raise UserError(f"{found.path} holds {len(names)} SAEs ({', '.join(names[:4])}); name one")
    state, trainer = held
    kind, notes = _kind(held, found.folder / names[0])
    source, layout = f"{NAME} {kind}", LAYOUTS[kind]
    W_enc, b_enc, threshold = _encoder(state, layout, source)
    require_size(source, "activation_dim", trainer.get("activation_dim"), W_enc.shape[1])
    require_size(source, "dict_size", trainer.get("dict_size"), W_enc.shape[0])
    if layout.rule == "batch_topk" and threshold is not None and threshold < 0:
        notes += ("its threshold was never learned: every latent above 0 is kept, as by its code",)
    return Foreign(
        format=source,
        W_enc=W_enc,
        b_enc=b_enc,
        W_dec=_decoder(state, source),
        b_dec=tensor(state, layout.bias, source),
        rule=layout.rule,
        k=_k(held, source, layout.rule),
        threshold=threshold,
        pre_bias=layout.pre_bias,
        prefixes=_prefixes(state),
        clip=name_told(str(trainer.get("lm_name") or "")),
        layer=_layer(trainer),
        notes=notes + _origin(trainer),
    )


def _files(found: Found) -> list[str]:
    """The file itself; of a folder each ae.pt, or where there is none each ae_STEP.pt."""
    if found.is_file:
        return [found.names[0]]
    hits = [name for name in found.names if FILE.fullmatch(name.rpartition("/")[2])]
    return [name for name in hits if name.rpartition("/")[2] == "ae.pt"] or hits


def _held(found: Found, name: str) -> Held | None:
    held = found.torch(name)
    trainer: dict[str, Any] = {}
    factor = None
    if held.keys() >= {"ae", "step", "config"}:  # what training keeps to go on from
        trainer, factor, held = settings_of(held["config"]), held.get("norm_factor"), held["ae"]
    if not isinstance(held, Used) or not held:
        return None
    state = held
    state.rename(lambda key: str(key).removeprefix("_orig_mod."))
    if isinstance(state.get("decoder"), Tensor):  # of 2024, for its Triton kernel
        state["decoder.weight"] = state.pop("decoder").T
    if factor is not None:
        state = _rescaled(state, factor)
    return Held(state, trainer or _trainer(found, name))


def _trainer(found: Found, name: str) -> dict[str, Any]:
    """`trainer` of the config.json beside a file, or above the folder of its checkpoints."""
    here, _, file = name.rpartition("/")
    for folder in [here or "."] if file == "ae.pt" else [here or ".", f"{here or '.'}/.."]:
        config = f"{folder}/config.json"
        trainer = found.json(config).get("trainer") if (found.folder / config).is_file() else None
        if isinstance(trainer, dict):
            return trainer
    return {}


def _rescaled(state: Used, factor: object) -> Used:
    """As training does before it saves an SAE: for raw embeddings, not those over `factor`.

    A finished ae.pt has been through this, though its config.json tells the factor.
    """
    if not isinstance(factor, int | float) or not 0 < factor < math.inf:
        raise UserError(f"{NAME}: norm_factor {factor!r} is not a number above 0")
    scaled = {name: value * factor for name, value in state.items() if name in SCALED}
    if "threshold" in state:
        threshold = tensor(state, "threshold", NAME, ndim=state["threshold"].ndim)
        scaled["threshold"] = torch.where(threshold >= 0, threshold * factor, threshold)
    return state.changed(scaled)


def _by_tensors(state: Mapping[str, Any], name: str) -> str:
    """The class, or "": a plain pair of linear layers is only its own under its file's name."""
    kind = next((kind for kind, at in LAYOUTS.items() if state.keys() >= at.needs), "")
    ours = kind != "AutoEncoderNew" or FILE.fullmatch(name.rpartition("/")[2])
    return kind if ours else ""


def _kind(held: Held, path: Path) -> tuple[str, tuple[str, ...]]:
    """The class, and what the user should know of how it was found."""
    told = held.trainer.get("dict_class")
    if told:
        kind = ALIASES.get(str(told), str(told))
        if kind not in LAYOUTS:
            raise UserError(f"{NAME}: dict_class {told!r} has no counterpart here")
        return kind, ()
    kind = _by_tensors(held.state, path.name) or "AutoEncoderNew"
    if kind != "AutoEncoderTopK" or "threshold" not in held.state:
        return kind, ()
    # TopK and BatchTopK have the same tensors.
    named = "batchtopk" in re.sub(r"[-_ ]", "", str(path).lower())
    kind = "BatchTopKSAE" if named else kind
    return kind, (
        f"read as {kind} by its {'path' if named else 'tensors'}: without its config.json, which "
        "tells the class, TopK and BatchTopK look alike",
    )


def _encoder(
    state: Mapping[str, Any], layout: Layout, source: str
) -> tuple[Tensor, Tensor, Tensor | None]:
    """W_enc (n_latents, d), b_enc and, for the rules that have one, the threshold."""
    if "r_mag" in layout.needs:
        W_enc = tensor(state, "encoder.weight", source, ndim=2)
        r_mag, gate_bias, mag_bias = (
            tensor(state, name, source) for name in ("r_mag", "gate_bias", "mag_bias")
        )
        return jumprelu_of_gated(W_enc, r_mag, gate_bias, mag_bias)
    threshold = None
    if layout.rule == "topk":
        state.get("threshold")  # it may have learned one, which its encode() does not use
    if layout.rule in ("batch_topk", "jumprelu"):
        threshold = tensor(state, "threshold", source, ndim=int(layout.rule == "jumprelu"))
    if "W_enc" in layout.needs:
        W_enc = tensor(state, "W_enc", source, ndim=2).T
        return W_enc, tensor(state, "b_enc", source), threshold
    W_enc = tensor(state, "encoder.weight", source, ndim=2)
    return W_enc, tensor(state, "encoder.bias", source), threshold


def _decoder(state: Mapping[str, Any], source: str) -> Tensor:
    """(n_latents, d)"""
    if "W_dec" in state:
        return tensor(state, "W_dec", source, ndim=2)
    return tensor(state, "decoder.weight", source, ndim=2).T


def _k(held: Held, source: str, rule: Rule) -> int:
    """0 for the rules that have none, whatever the trainer tells."""
    told = held.trainer.get("k")
    if rule not in ("topk", "batch_topk"):
        return 0
    if "k" not in held.state:
        return number(held.trainer, "k", source)
    k = number(held.state, "k", source)
    require_size(source, "k", told, k)
    return k


def _prefixes(state: Mapping[str, Any]) -> tuple[int, ...]:
    if "group_sizes" not in state:
        return ()
    return tuple(int(size) for size in state["group_sizes"].cumsum(0).tolist())


def _layer(trainer: Mapping[str, Any]) -> str:
    """The block, where it is what leaves it that was taken."""
    layer, of = trainer.get("layer"), trainer.get("submodule_name")
    return str(layer) if type(layer) is int and of in RESIDUAL else ""


def _origin(trainer: Mapping[str, Any]) -> tuple[str, ...]:
    layer, clip = trainer.get("layer"), trainer.get("lm_name")
    return (f"trained on layer {layer} of {clip}",) if clip and layer is not None else ()
