"""saev's sae.pt: one line of JSON, then a torch zip; all its schemas, with what each one computed.

Its encoder subtracted b_dec until 31 July 2025, which its own loader has forgotten since: files
without a schema, and the first kind of schema 1, have other latents there than they were trained
with. Matryoshka was an objective alone, and is not told.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from sae.core.errors import UserError
from sae.data.tokens import OF_SAEV
from sae.interchange.foreign import Foreign, Lacks, Rule
from sae.untrusted.fields import number, require_size, settings_of, tensor
from sae.untrusted.found import Found
from sae.untrusted.json_file import json_object
from sae.untrusted.used import words

NAME = "saev"
FILE = "sae.pt"
ASIDE = words(
    "aux exp_factor k_aux momentum n_prefixes normalize_w_dec objective remove_parallel_grads "
    "sparsity threshold_momentum"
)
"""Keys that change no latent; see `sae.untrusted.used`."""
SCHEMAS = range(1, 6)
DEFAULT_K = 32
WITHOUT_PRE_BIAS = "e7ca004"
"""The commit that wrote schema 1 without it, before a later one changed the schema's layout."""
TOKENS = {"patches": "patch", "cls": "cls", "all": "all", **OF_SAEV}
"""Its words for tokens, of all its versions, and ours."""
KEYS = {"relu": "Relu", "top-k": "TopK", "batch-top-k": "BatchTopK"}


class Activation(NamedTuple):
    """What the header says of the activation."""

    name: str
    """The peer's class: "Relu", "TopK" or "BatchTopK"."""
    params: dict[str, Any]


def detect(found: Found) -> bool:
    """A first line of JSON with a schema or, before there was one, `d_vit`."""
    names = _checkpoints(found)
    header = found.header(names[0]) if names else {}
    return ("schema" in header and "cfg" in header) or "d_vit" in header


def read(found: Found) -> Foreign:
    """The SAE. Raises `UserError` for a later schema, and for activations that batches couple."""
    name = _only(found)
    header, state = found.header(name), found.torch(name)
    schema = header.get("schema", 0)
    if "schema" in header and (type(schema) is not int or schema not in SCHEMAS):
        raise UserError(f"{NAME}: schema {schema!r} is not known; known: 1 to {SCHEMAS[-1]}")
    source = f"{NAME} schema {schema}" if schema else f"{NAME} legacy"
    config = settings_of(header.get("cfg")) if schema else header
    activation = _activation(header, config, schema, source)
    W_enc = tensor(state, "W_enc", source, ndim=2).T
    n_latents, d = W_enc.shape
    _check_sizes(config, n_latents, d, source)
    rule, k, threshold, notes = _rule(activation, state, n_latents, source)
    old = _is_first_layout(header, schema)
    training = _training(found, name)
    layer = training.get("layer")
    return Foreign(
        format=source,
        W_enc=W_enc,
        b_enc=tensor(state, "b_enc", source),
        W_dec=tensor(state, "W_dec", source, ndim=2),
        b_dec=tensor(state, "b_dec", source),
        rule=rule,
        k=k,
        threshold=threshold,
        pre_bias=old and not str(header.get("commit")).startswith(WITHOUT_PRE_BIAS),
        lacks=_lacks(training) if old else "",
        layer=str(layer) if type(layer) is int else "",
        tokens=TOKENS.get(str(training.get("tokens", training.get("patches"))), ""),
        notes=notes,
    )


def _checkpoints(found: Found) -> list[str]:
    if found.is_file:
        return [found.names[0]]
    return [name for name in found.names if name.rpartition("/")[2] == FILE]


def _only(found: Found) -> str:
    names = _checkpoints(found)
    if len(names) > 1:
        raise UserError(f"{found.path} holds {len(names)} SAEs ({', '.join(names[:4])}); name one")
    return names[0]


def _is_first_layout(header: Mapping[str, Any], schema: int) -> bool:
    """No schema yet, or schema 1 as it was until July 2025, with the activation as its class."""
    return schema == 0 or (schema == 1 and header.get("cls") in KEYS.values())


def _activation(
    header: Mapping[str, Any], config: dict[str, Any], schema: int, source: str
) -> Activation:
    if schema == 0:
        return Activation("Relu", {})
    if _is_first_layout(header, schema):
        return Activation(header["cls"], config)
    # Only the second layout of schema 1 could leave it out.
    told = settings_of(config.get("activation", {"cls": "Relu"} if schema == 1 else None))
    params = settings_of(told.get("params"))
    key = KEYS.get(str(params.get("key", params.get("kind"))))
    name = told.get("cls") or key
    if name not in KEYS.values():
        raise UserError(f"{source}: activation {name!r} has no counterpart here")
    return Activation(str(name), params)


def _check_sizes(config: Mapping[str, Any], n_latents: int, d: int, source: str) -> None:
    told_d = config.get("d_model", config.get("d_vit"))
    require_size(source, "d_model", told_d, d)
    told = config.get("d_sae")
    if told is None and config.get("exp_factor") is not None:
        told = d * number(config, "exp_factor", source)
    require_size(source, "d_sae", told, n_latents)


def _rule(
    activation: Activation, state: Mapping[str, Any], n_latents: int, source: str
) -> tuple[Rule, int, Tensor | None, tuple[str, ...]]:
    if activation.name == "Relu":
        return "relu", 0, None, ()
    k = min(number(activation.params, "top_k", source, default=DEFAULT_K), n_latents)
    if activation.name == "TopK":
        return "signed_topk", k, None, ()  # a mask over the k largest: no ReLU
    if "activation.threshold" in state:
        return "batch_topk", k, tensor(state, "activation.threshold", source, ndim=0), ()
    note = (
        f"a BatchTopK from before its threshold was learned: the {k} largest of each token are "
        "kept, negative ones too, as its code then did with one token"
    )
    return "signed_topk", k, None, (note,)


def _training(found: Found, name: str) -> dict[str, Any]:
    """What the training's config.json, where it is there, says of the embeddings."""
    path = (found.folder / name).with_name("config.json")
    config = json_object(path) if path.is_file() else {}
    parts = (config, settings_of(config.get("data")), settings_of(config.get("train_data")))
    told = ("layer", "patches", "tokens", "scale_mean", "scale_norm")
    return {name: part[name] for part in parts for name in told if name in part}


def _lacks(training: Mapping[str, Any]) -> Lacks:
    """What was taken from the input."""
    if training.keys() & {"scale_mean", "scale_norm"}:
        return _lacking(bool(training.get("scale_mean")), bool(training.get("scale_norm")))
    return "perhaps"


def _lacking(mean: bool, scale: bool) -> Lacks:
    if mean and scale:
        return "mean_scale"
    if mean:
        return "mean"
    return "scale" if scale else ""
