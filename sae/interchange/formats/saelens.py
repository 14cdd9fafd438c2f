"""SAELens, versions 2 to 6: cfg.json and sae_weights.safetensors in a folder.

Latents are rule((norm(x) - b_dec) W_enc + b_enc), or without the b_dec. Of a folder that training
wrote, they are those of the inference file that SAELens would make of it: decoder norms, the
BatchTopK threshold, and the scale or whitening of the embeddings are folded in.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor

from sae.clip.names import name_told
from sae.core.clip_name import without_place
from sae.core.errors import UserError
from sae.data.tokens import Tokens
from sae.interchange.fold import NOWHERE, raw_weights, rule_in_words, saelens_has, write_folder
from sae.interchange.foreign import Foreign, InputNorm, Rule, jumprelu_of_gated
from sae.interchange.formats.saelens_folds import Folded, fold
from sae.model.sae import SAE, SAEConfig
from sae.untrusted.fields import number, require_size, settings_of, tensor
from sae.untrusted.found import Found
from sae.untrusted.used import Used, words

NAME = "saelens"
ASIDE = words(
    "activations_mixing_fraction cached_activations_path d_out disable_concat_sequences "
    "expansion_factor finetuning_method hook_eval hook_head_index hook_layer hook_point "
    "hook_point_head_index hook_point_layer is_dataset_tokenized jumprelu_bandwidth "
    "jumprelu_ste_to_input jumprelu_tanh_scale llm_compilation_mode lp_norm "
    "model_from_pretrained_kwargs model_kwargs mse_loss_normalization n_restart_cycles "
    "neuronpedia_id noise normalize_sae_decoder prefetch_llm_batches prepend_bos resume "
    "sae_compilation_mode scale_sparsity_penalty_by_decoder_norm seqpos_slice streaming "
    "target_l0 use_cached_activations use_chat_formatting use_matryoshka_aux_loss "
    "use_sparse_activations"
)
"""Keys that change no latent; see `sae.untrusted.used`."""
CFG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
LAYOUT = "6.0.0"
"""Of SAELens: what is older is taken for the layout of version 5, and migrated."""
BATCH_TOPK = ("batchtopk", "matryoshka_batchtopk")
KNOWN = ("standard", "topk", "abstopk", "jumprelu", "gated", *BATCH_TOPK)
INPUT_NORMS: dict[str, InputNorm] = {
    "none": "",
    "layer_norm": "layer_norm",
    "constant_norm_rescale": "constant_norm",
    # Of the whole data, not of each row: `fold` puts it into the weights.
    "expected_average_only_in": "",
    "covariance_whitening": "",
}


class Encoder(NamedTuple):
    """What a `Foreign` has of the encoder."""

    W_enc: Tensor
    b_enc: Tensor
    rule: Rule
    k: int = 0
    threshold: Tensor | None = None


def detect(found: Found) -> bool:
    """sae_weights.safetensors beside a cfg.json."""
    name = found.find(WEIGHTS)
    return bool(name) and bool(found.beside(name, CFG))


def read(found: Found) -> Foreign:
    """The SAE. Raises `UserError` for a transcoder, hook_z, and other maths than these rules'."""
    name = found.only_one(WEIGHTS, CFG)
    config = _settings(found.json(found.beside(name, CFG)))
    _require_known(config)
    folded = fold(found, name, config, NAME)
    n_latents, d = folded.W_enc.shape
    require_size(NAME, "d_in", config.get("d_in"), d)
    require_size(NAME, "d_sae", config.get("d_sae"), n_latents)
    metadata = settings_of(config.get("metadata"))
    return Foreign(
        format=NAME,
        **_encoder(folded, config)._asdict(),
        W_dec=folded.W_dec,
        b_dec=folded.b_dec,
        pre_bias=config.get("apply_b_dec_to_input", True) is not False,
        input_norm=INPUT_NORMS[config.get("normalize_activations") or "none"],
        scale=folded.scale,
        prefixes=_prefixes(config, metadata, n_latents),
        clip=str(metadata.get("clip") or "") or _clip(config, metadata),
        layer=str(metadata.get("layer") or "") or _layer(config, metadata),
        tokens=_one_of(metadata.get("tokens"), get_args(Tokens)),
        rows=_one_of(metadata.get("rows"), ("raw", "unit")),
        notes=folded.notes,
    )


def write(model: SAE, folder: Path | str) -> Path:
    """Write what SAELens' own loader reads, with the same latents; mean and scale are folded.

    BatchTopK becomes a JumpReLU, as SAELens itself does. Raises `UserError` for a signed TopK and
    for a soft cap, which SAELens has not.
    """
    c = model.config
    if not saelens_has(c):
        raise UserError(f"SAELens cannot express this SAE ({rule_in_words(c)}); {NOWHERE}")
    raw = raw_weights(model)
    state = {"W_enc": raw.W_enc.T, "b_enc": raw.b_enc, "W_dec": raw.W_dec, "b_dec": raw.b_dec}
    if c.activation == "batch_topk":
        # Ours keeps what reaches the threshold, theirs what exceeds it.
        below = torch.nextafter(model.threshold, model.threshold.new_tensor(-torch.inf))
        state["threshold"] = below.repeat(c.n_latents)
    if c.activation == "jumprelu":
        state["threshold"] = model.log_threshold.detach().exp()
    return write_folder(Path(folder), CFG, _config(c), WEIGHTS, state)


def _encoder(folded: Folded, config: Mapping[str, Any]) -> Encoder:
    """With the rule of the architecture."""
    W_enc, b_enc, state = folded.W_enc, folded.b_enc, folded.state
    match config["architecture"]:
        case "topk" | "abstopk" as name:
            rule: Rule = "topk" if name == "topk" else "abs_topk"
            return Encoder(W_enc, b_enc, rule, number(config, "k", NAME, default=100))
        case "jumprelu":
            return Encoder(W_enc, b_enc, "jumprelu", threshold=_threshold(state))
        case "gated":
            r_mag, gate, mag = (tensor(state, name, NAME) for name in ("r_mag", "b_gate", "b_mag"))
            W_enc, b_enc, threshold = jumprelu_of_gated(W_enc, r_mag, gate, mag)
            return Encoder(W_enc, b_enc, "jumprelu", threshold=threshold)
        case "standard":
            return Encoder(W_enc, b_enc, "relu")
    k = max(1, round(float(config.get("k", 100))))  # on average, so it may be broken
    return Encoder(W_enc, b_enc, "batch_topk", k, tensor(state, "topk_threshold", NAME, ndim=0))


def _threshold(state: Mapping[str, Tensor]) -> Tensor:
    if "threshold" not in state and "log_threshold" in state:
        return tensor(state, "log_threshold", NAME).exp()
    return tensor(state, "threshold", NAME)


def _prefixes(
    config: Mapping[str, Any], metadata: Mapping[str, Any], n_latents: int
) -> tuple[int, ...]:
    """Matryoshka's, which the inference file has in its metadata; () where there are none."""
    details = settings_of(metadata.get("training_architecture_details"))
    told = config.get("matryoshka_widths") or details.get("matryoshka_widths")
    if not isinstance(told, list) or not all(isinstance(width, int) for width in told):
        return ()
    widths = sorted({*told, n_latents})
    fit = len(widths) > 1 and widths[0] > 0 and widths[-1] == n_latents
    return tuple(widths) if fit else ()


def _clip(config: Mapping[str, Any], metadata: Mapping[str, Any]) -> str:
    return name_told(str(config.get("model_name") or metadata.get("model_name") or ""))


def _layer(config: Mapping[str, Any], metadata: Mapping[str, Any]) -> str:
    """The block that `blocks.N.hook_resid_post` is what leaves it."""
    hook = str(config.get("hook_name") or metadata.get("hook_name") or "")
    found = re.fullmatch(r"blocks\.(\d+)\.hook_resid_post", hook)
    return found[1] if found else ""


def _one_of(told: object, known: tuple[str, ...]) -> str:
    """What is told, where it is a word that is known; else ""."""
    return told if isinstance(told, str) and told in known else ""


def _settings(config: Used) -> Used:
    """The settings with the names of version 6, which its own loader gives older ones."""
    metadata = settings_of(config.get("metadata"))
    version = config.get("sae_lens_version") or metadata.get("sae_lens_version")
    if version and int(str(version).partition(".")[0]) >= 6:
        return config.changed({"architecture": config.get("architecture", "standard")})
    activation = config.get("activation_fn", config.get("activation_fn_str")) or "relu"
    k = settings_of(config.get("activation_fn_kwargs")).get("k")
    new: dict[str, Any] = {"architecture": config.get("architecture", "standard")}
    if activation == "topk":
        new |= {"architecture": "topk", "k": config.get("k") if k is None else k}
    elif activation != "relu" and new["architecture"] != "topk":
        raise UserError(f"{NAME}: activation {activation!r} has no counterpart here")
    if config.get("normalize_activations") is True:
        new["normalize_activations"] = "expected_average_only_in"
    hook = config.get("hook_name", config.get("hook_point")) or ""
    if "reshape_activations" not in config:
        new["reshape_activations"] = "hook_z" if "hook_z" in hook else "none"
    return config.changed(new)


def _require_known(config: Mapping[str, Any]) -> None:
    architecture = config["architecture"]
    if "transcoder" in str(architecture) or config.get("is_transcoder"):
        raise UserError(f"{NAME}: a {architecture} maps one layer to another: it is no SAE")
    if architecture not in KNOWN:
        raise UserError(
            f"{NAME}: architecture {architecture!r} has no counterpart here; known are "
            f"{', '.join(KNOWN)}"
        )
    norm = config.get("normalize_activations") or "none"
    if norm not in INPUT_NORMS:
        raise UserError(f"{NAME}: normalize_activations {norm!r} has no counterpart here")
    if config.get("reshape_activations", "none") != "none":
        raise UserError(
            f"{NAME}: it was trained on the heads of an attention layer (hook_z), which no "
            "embedding of CLIP has"
        )


def _config(c: SAEConfig) -> dict[str, object]:
    architectures = {"topk": "topk", "abs_topk": "abstopk", "relu": "standard"}
    norms: dict[str, str] = {ours: theirs for theirs, ours in reversed(INPUT_NORMS.items())}
    config: dict[str, object] = {
        "architecture": architectures.get(c.activation, "jumprelu"),
        "d_in": c.d,
        "d_sae": c.n_latents,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": norms[c.input_norm],
        "reshape_activations": "none",
        "metadata": _metadata(c),
    }
    if c.activation in ("topk", "abs_topk"):
        config |= {"k": c.k, "rescale_acts_by_decoder_norm": False}
    return config


def _metadata(c: SAEConfig) -> dict[str, object]:
    """SAELens keeps what it does not know; its own tools read the first four."""
    hook = f"blocks.{c.layer}.hook_resid_post" if c.layer.isdigit() else c.layer
    return {
        "sae_lens_version": LAYOUT,
        "sae_lens_training_version": None,
        "model_name": without_place(c.clip) or None,
        "hook_name": hook or None,
        "clip": without_place(c.clip),
        "layer": c.layer,
        "tokens": c.tokens,
        "rows": c.rows,
        "training_architecture_details": {"matryoshka_widths": list(c.prefixes)},
    }
