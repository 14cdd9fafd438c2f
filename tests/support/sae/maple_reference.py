"""MaPLe's forward pass, written from its description: plain tensors in, features out.

Tokens stand in the first axis, as in the authors' CLIP: (tokens, batch, width).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = dict[str, Tensor]
HEAD = 32


def image_rows(clip: Weights, maple: Weights, pixels: Tensor, n_blocks: int) -> list[Tensor]:
    """Tokens that leave each block, (b, 1 + patches, width): without the prompts."""
    n_ctx = len(maple["prompt_learner.ctx"])
    kernel = clip["visual.conv1.weight"]
    patches = F.conv2d(pixels, kernel, stride=kernel.shape[-1]).flatten(2).permute(2, 0, 1)
    cls = clip["visual.class_embedding"].expand(1, len(pixels), -1)
    x = torch.cat([cls, patches]) + clip["visual.positional_embedding"][:, None]
    shared = linear(maple, "prompt_learner.proj", maple["prompt_learner.ctx"])
    x = torch.cat([x, shared[:, None].expand(-1, len(pixels), -1)])
    x = norm(clip, "visual.ln_pre", x)
    rows = []
    for block in range(n_blocks):
        text = maple.get(f"prompt_learner.compound_prompts_text.{block - 1}")
        if block > 0 and text is not None:
            name = f"prompt_learner.compound_prompt_projections.{block - 1}"
            deep = linear(maple, name, text)[:, None].expand(-1, len(pixels), -1)
            x = torch.cat([x[:-n_ctx], deep])
        x = residual_block(clip, f"visual.transformer.resblocks.{block}", x, None)
        rows.append(x[:-n_ctx].transpose(0, 1))
    return rows


def image_features(clip: Weights, maple: Weights, pixels: Tensor, n_blocks: int) -> Tensor:
    """(b, d_embed), raw."""
    last = image_rows(clip, maple, pixels, n_blocks)[-1]
    return norm(clip, "visual.ln_post", last[:, 0]) @ clip["visual.proj"]


def text_features(clip: Weights, maple: Weights, tokens: Tensor, n_blocks: int) -> Tensor:
    """(n, d_embed), unit rows, of whole texts in tokens (n, context): what stands behind the start
    token is overwritten by the prompts."""
    ctx = maple["prompt_learner.ctx"]
    n_ctx, n, length = len(ctx), *tokens.shape
    embedded = clip["token_embedding.weight"][tokens]
    whole = [embedded[:, :1], ctx.expand(n, -1, -1), embedded[:, 1 + n_ctx :]]
    x = (torch.cat(whole, 1) + clip["positional_embedding"]).transpose(0, 1)
    mask = torch.full((length, length), -torch.inf).triu(1)
    for block in range(n_blocks):
        deep = maple.get(f"prompt_learner.compound_prompts_text.{block - 1}")
        if block > 0 and deep is not None:
            x = torch.cat([x[:1], deep[:, None].expand(-1, n, -1), x[1 + n_ctx :]])
        x = residual_block(clip, f"transformer.resblocks.{block}", x, mask)
    x = norm(clip, "ln_final", x.transpose(0, 1))
    ends = x[torch.arange(n), tokens.argmax(1)]
    return F.normalize(ends @ clip["text_projection"], dim=1)


def residual_block(clip: Weights, name: str, x: Tensor, mask: Tensor | None) -> Tensor:
    x = x + attention(clip, f"{name}.attn", norm(clip, f"{name}.ln_1", x), mask)
    hidden = F.gelu(linear(clip, f"{name}.mlp.c_fc", norm(clip, f"{name}.ln_2", x)))
    return x + linear(clip, f"{name}.mlp.c_proj", hidden)


def attention(clip: Weights, name: str, x: Tensor, mask: Tensor | None) -> Tensor:
    t, b, d = x.shape
    parts = x @ clip[f"{name}.in_proj_weight"].T + clip[f"{name}.in_proj_bias"]
    heads = [part.reshape(t, b, d // HEAD, HEAD).permute(1, 2, 0, 3) for part in parts.chunk(3, -1)]
    query, key, value = heads  # (b, heads, t, HEAD)
    logits = query @ key.transpose(2, 3) / HEAD**0.5
    mixed = (logits if mask is None else logits + mask).softmax(-1) @ value
    return linear(clip, f"{name}.out_proj", mixed.permute(2, 0, 1, 3).reshape(t, b, d))


def linear(weights: Weights, name: str, x: Tensor) -> Tensor:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def norm(clip: Weights, name: str, x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    scale = (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return centred / scale * clip[f"{name}.weight"] + clip[f"{name}.bias"]


def patches_of(rows: Sequence[Tensor], block: int) -> Tensor:
    """(b, patches, width) behind a block."""
    return rows[block][:, 1:]
