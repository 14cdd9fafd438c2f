"""PatchSAE, its parent (HugoFry's SAE for ViTs) and ViT-Prisma: settings as a pickled object.

The object's class is never imported: see `unpickle`. ViT-Prisma's published SAEs have a config.json
beside their tensors instead. Latents are relu((x - b_dec) W_enc + b_enc).
"""

from __future__ import annotations

from typing import Any

from sae.clip.names import name_told
from sae.core.errors import UserError
from sae.interchange.foreign import Foreign, InputNorm, Rule, jumprelu_of_gated
from sae.untrusted.fields import number, require_size, settings_of, tensor
from sae.untrusted.found import Found
from sae.untrusted.pickle_names import Stub
from sae.untrusted.used import words

NAME, PRISMA = "patchsae", "vit_prisma"
CFG = "config.json"
TENSORS = {"W_enc", "b_enc", "W_dec", "b_dec"}
RESIDUAL = (None, "", "hook_resid_post")
"""What leaves a block, where ViT-Prisma tells what was taken of it."""
ASIDE = words(
    "cached_activations_path class_token cls_token cls_token_only d_out expansion_factor "
    "hook_point hook_point_head_index layer_out_subtype layer_subtype lp_norm "
    "min_explained_variance min_l0 num_patch out_hook_point_layer "
    "transcoder_with_skip_connection unique_hash use_cached_activations use_patches_only "
    "vit_model_cfg"
)
"""Keys that change no latent; see `sae.untrusted.used`."""


def detect(found: Found) -> bool:
    """A dict of `state_dict` and `cfg` or `config`, with `W_enc` in it."""
    held = found.torch()
    is_told = bool(held.keys() & {"cfg", "config"})
    if is_told and "W_enc" in settings_of(held.get("state_dict")):
        return True
    return _is_published(found)


def read(found: Found) -> Foreign:
    """The SAE; ReLU, or gated."""
    held = found.torch()
    if held.keys() & {"cfg", "config"}:
        state, config = held["state_dict"], held["cfg"] if "cfg" in held else held["config"]
        settings, name = settings_of(config), _name(config)
    else:
        state = held.get("state_dict", held)
        settings, name = found.settings_beside(found.names[0], CFG), PRISMA
    W_enc = tensor(state, "W_enc", name, ndim=2).T
    require_size(name, "d_in", settings.get("d_in"), W_enc.shape[1])
    require_size(name, "d_sae", settings.get("d_sae"), W_enc.shape[0])
    rule, k = _rule(settings, name)
    threshold = None
    if settings.get("is_transcoder"):
        raise UserError(f"{name}: a transcoder maps one layer to another: it is no SAE")
    is_gated, architecture = settings.get("gated_sae"), settings.get("architecture")
    if (is_gated or architecture == "jumprelu") and "r_mag" not in state:
        raise UserError(f"{name}: a gated or JumpReLU SAE without r_mag has no counterpart here")
    if "r_mag" in state:
        if "b_gate" not in state:
            raise UserError(f"{name}: a gated SAE without b_gate, which its project never finished")
        r_mag, b_mag = tensor(state, "r_mag", name), tensor(state, "b_mag", name)
        W_enc, b_enc, threshold = jumprelu_of_gated(
            W_enc, r_mag, tensor(state, "b_gate", name), b_mag
        )
        rule, k = "jumprelu", 0
    else:
        b_enc = tensor(state, "b_enc", name)
    return Foreign(
        format=name,
        W_enc=W_enc,
        b_enc=b_enc,
        W_dec=tensor(state, "W_dec", name, ndim=2),
        b_dec=tensor(state, "b_dec", name),
        rule=rule,
        k=k,
        threshold=threshold,
        pre_bias=True,
        input_norm=_input_norm(settings, name),
        clip=name_told(str(settings.get("model_name") or "")),
        layer=_layer(settings),
        tokens=_tokens(settings),
        notes=_notes(settings, name),
    )


def _name(config: Any) -> str:
    if isinstance(config, Stub) and "prisma" in config.peer:
        return PRISMA
    return NAME


def _rule(settings: dict[str, Any], name: str) -> tuple[Rule, int]:
    """ViT-Prisma alone has a choice; the others are ReLU."""
    activation = settings.get("activation_fn_str", "relu")
    more = settings_of(settings.get("activation_fn_kwargs"))
    if activation == "topk":
        return "topk", number(more, "k", name)
    if activation != "relu":
        raise UserError(f"{name}: activation {activation!r} has no counterpart here")
    return "relu", 0


def _input_norm(settings: dict[str, Any], name: str) -> InputNorm:
    norm = settings.get("normalize_activations") or "none"
    if norm == "layer_norm":
        return "layer_norm"
    if norm == "constant_norm_rescale":
        return "constant_norm"
    if norm not in ("none", False):
        raise UserError(f"{name}: normalize_activations {norm!r} has no counterpart here")
    return ""


def _is_published(found: Found) -> bool:
    """Tensors alone, beside settings as ViT-Prisma writes them."""
    held = found.torch()
    state = held if held.keys() >= TENSORS else settings_of(held.get("state_dict"))
    if not state.keys() >= TENSORS:
        return False
    beside = found.settings_beside(found.names[0], CFG)
    return beside.keys() >= {"hook_point_layer", "d_in"}


def _layer(settings: dict[str, Any]) -> str:
    """The block, where it is what leaves it that was taken; -2 is the last but one."""
    layer = settings.get("block_layer", settings.get("hook_point_layer"))
    if isinstance(layer, list) and len(layer) == 1:
        [layer] = layer
    is_block = settings.get("layer_subtype") in RESIDUAL
    is_block &= settings.get("module_name") in (None, "resid")
    return str(layer) if type(layer) is int and is_block else ""


def _tokens(settings: dict[str, Any]) -> str:
    """Where the settings have a word for it."""
    for names, tokens in (
        (("class_token", "cls_token_only"), "cls"),
        (("use_patches_only",), "patch"),
    ):
        if any(settings.get(name) is True for name in names):
            return tokens
    told = (settings.get(name) for name in ("class_token", "cls_token_only"))
    return "all" if any(value is False for value in told) else ""


def _notes(settings: dict[str, Any], name: str) -> tuple[str, ...]:
    taken = settings.get("layer_subtype")
    if taken in RESIDUAL:
        return ()
    return (f"{name}: trained on {taken} of a block, of which there are no embeddings here",)
