"""A TopK SAE and what comes behind a block of open_clip's ViT, in plain numpy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sae.model.sae import SAE

Floats = NDArray[np.float64]
_GRID = np.linspace(-6, 6, 60_001)
_ERF = np.array([math.erf(x) for x in _GRID])


def encode(model: SAE, x: Floats) -> Floats:
    """(n, n_latents): the k largest of each row, and of them what is above 0."""
    w = {name: value.double().numpy() for name, value in model.state_dict().items()}
    centred = (x - w["mean"]) / w["scale"]
    pre = (centred - w["b_dec"]) @ w["W_enc"].T + w["b_enc"]
    kept = np.argsort(-pre, axis=1)[:, : model.config.k]
    z = np.zeros_like(pre)
    np.put_along_axis(z, kept, np.maximum(np.take_along_axis(pre, kept, 1), 0), 1)
    return z


def decode(model: SAE, z: Floats) -> Floats:
    """(n, d), in the input's own scale."""
    w = {name: value.double().numpy() for name, value in model.state_dict().items()}
    return (z @ w["W_dec"] + w["b_dec"]) * w["scale"] + w["mean"]


def finish(visual: Any, x: Floats, block: int, n_heads: int) -> Floats:
    """(b, t, d) tokens that leave `block` -> (b, d_embed) unit rows."""
    w = {name: value.double().numpy() for name, value in visual.state_dict().items()}
    for number in range(block + 1, len(visual.transformer.resblocks)):
        p = {n.split(".", 3)[3]: v for n, v in w.items() if f"resblocks.{number}." in n}
        x = x + _attend(_norm(x, p["ln_1.weight"], p["ln_1.bias"]), p, n_heads)
        h = _norm(x, p["ln_2.weight"], p["ln_2.bias"])
        h = h @ p["mlp.c_fc.weight"].T + p["mlp.c_fc.bias"]
        h = h * (1 + np.interp(h / math.sqrt(2), _GRID, _ERF)) / 2  # GELU
        x = x + h @ p["mlp.c_proj.weight"].T + p["mlp.c_proj.bias"]
    features = _norm(x[:, 0], w["ln_post.weight"], w["ln_post.bias"]) @ w["proj"]
    unit: Floats = features / np.linalg.norm(features, axis=1, keepdims=True)
    return unit


def _norm(x: Floats, weight: Floats, bias: Floats) -> Floats:
    centred = x - x.mean(-1, keepdims=True)
    normed: Floats = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    return normed * weight + bias


def _attend(x: Floats, p: dict[str, Floats], n_heads: int) -> Floats:
    b, t, d = x.shape
    qkv = x @ p["attn.in_proj_weight"].T + p["attn.in_proj_bias"]
    q, k, v = qkv.reshape(b, t, 3, n_heads, d // n_heads).transpose(2, 0, 3, 1, 4)
    scores = q @ k.transpose(0, 1, 3, 2) / math.sqrt(d // n_heads)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    out = (weights @ v).transpose(0, 2, 1, 3).reshape(b, t, d)
    result: Floats = out @ p["attn.out_proj.weight"].T + p["attn.out_proj.bias"]
    return result
