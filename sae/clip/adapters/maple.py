"""MaPLe's prompts and a CLIP of open_clip -> the same CLIP, whose towers read the prompts too.

The image tower: behind the patches, before `ln_pre`; the text tower: behind the start token. Before
each of the blocks 2 to depth they are replaced by that block's own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sae.clip.adapters.maple_file import MapleWeights, read_maple
from sae.core.errors import UserError
from sae.core.files import sha256_of

_START = re.compile(r"\s*(a\s+photo\s+of\s+an?)\s+", re.IGNORECASE)
PLACE = "x"
"""A word of one token, which stands where a prompt comes."""
ALMOST = 1e-3
"""Of a value: half precision keeps 11 bits, and of values near 0 steps of 6e-8."""


class Attached(NamedTuple):
    """What is on the CLIP now."""

    n_ctx: int
    sha: str
    """First 16 hex digits of the sha256 of the file."""
    behind: Tensor | None
    """As in `MapleWeights`."""
    embedding: nn.Embedding
    """The CLIP's, of text tokens."""

    def tokenizer(self, plain: Any) -> Callable[[Sequence[str]], Tensor]:
        """The CLIP's tokenizer for texts in MaPLe's form."""
        if int(plain([PLACE]).argmax()) != 2:
            raise UserError(
                f"the word {PLACE!r} is not one token of this CLIP: no place for prompts"
            )
        keeps = self._keeps_words(plain)
        return lambda texts: plain([maple_text(text, self.n_ctx, keeps) for text in texts])

    def _keeps_words(self, plain: Any) -> bool:
        """Whether the prompts were learned before the last of the words "a photo of a".

        MaPLe's code begins with these words, or, where none are set, with none. A file without the
        embedded texts of its classes tells neither: then as its authors have set it.
        """
        tokens = plain(["a photo of a"])[0]
        last = tokens[1 + self.n_ctx : int(tokens.argmax())]
        if self.behind is None or len(last) == 0 or self.behind.shape[1] < len(last):
            return True
        wanted = self.embedding.weight[last.to(self.embedding.weight.device)].cpu().float()
        return _is_same(wanted, self.behind[0, : len(last)])


class Prompts(nn.Module):
    """The prompts of one tower."""

    tokens: Tensor  # (depth, n_ctx, width)

    def __init__(self, by_block: Sequence[Tensor]) -> None:
        super().__init__()
        self.register_buffer("tokens", torch.stack(list(by_block)))

    @property
    def n_ctx(self) -> int:
        """In a row of tokens."""
        return self.tokens.shape[1]

    def at(self, block: int, x: Tensor) -> Tensor:
        """(b, n_ctx, width) for the rows x (b, t, width)."""
        return self.tokens[block].to(x.dtype).expand(len(x), -1, -1)

    def put(self, block: int, x: Tensor, first: int) -> Tensor:
        """The rows x (b, t, width) with the block's prompts in the place of the tokens from `first`
        on, which may count from the end."""
        first %= x.shape[1]
        parts = (x[:, :first], self.at(block, x), x[:, first + self.n_ctx :])
        return torch.cat(parts, dim=1)


def attach_maple(model: Any, name: str, path: Path) -> Attached:
    """Put MaPLe's checkpoint on the CLIP `name`, in place.

    Raises `UserError` for a CLIP of another build than OpenAI's ViT, and for a checkpoint that was
    learned on another CLIP.
    """
    maple = read_maple(path)
    _require_build(model, name)
    _require_fit(model, name, path, maple)
    _attach_to_images(model.visual, Prompts(maple.images))
    _attach_to_texts(model, Prompts(maple.texts))
    return Attached(maple.n_ctx, sha256_of(path)[:16], maple.behind, model.token_embedding)


def maple_text(text: str, n_ctx: int, keeps: bool = True) -> str:
    """A text as MaPLe's text tower learned to read it, with `PLACE` where a prompt comes.

    The prompts stand for the first words of "a photo of a", and a full stop ends the text:
    "a photo of a cup" -> "x x of a cup." Before a text that begins otherwise they are put, so that
    no word of it is lost: "a red cup" -> "x x a red cup." Unless it `keeps` them, the prompts stand
    for all four words: "a photo of a cup" -> "x x cup."
    """
    start = _START.match(text)
    kept = start[1].split()[n_ctx:] if start and keeps else []
    rest = text[start.end() :] if start else text
    return " ".join([*[PLACE] * n_ctx, *kept, rest.strip().rstrip(".")]) + "."


def _require_build(model: Any, name: str) -> None:
    """Raise `UserError` where there are no two rows of tokens as in OpenAI's ViT models."""
    visual = model.visual
    is_vit = hasattr(visual, "class_embedding") and hasattr(visual, "ln_pre")
    fits = type(model).__name__ == "CLIP" and model.attn_mask is not None
    if not (fits and model.text_pool_type == "argmax" and is_vit) or (
        visual.attn_pool is not None or visual.pool_type != "tok"
    ):
        raise UserError(
            f"{name} is not built like OpenAI's ViT models, which MaPLe is made for; put its "
            "checkpoint on the CLIP that it was learned on, e.g. ViT-B-16/openai"
        )


def _require_fit(model: Any, name: str, path: Path, maple: MapleWeights) -> None:
    remedy = "name the CLIP that it was learned on before +maple:"
    widths = (model.token_embedding.weight.shape[1], model.visual.transformer.width)
    learned = (maple.texts[0].shape[1], maple.images[0].shape[1])
    if widths != learned:
        raise UserError(
            f"{path} is of a CLIP of widths {learned[0]} (texts) and {learned[1]} (images), but "
            f"{name} has {widths[0]} and {widths[1]}; {remedy}"
        )
    depth = len(maple.texts)
    n_blocks = min(len(model.transformer.resblocks), len(model.visual.transformer.resblocks))
    if depth > n_blocks:
        raise UserError(
            f"{path} has prompts for {depth} blocks, but {name} has {n_blocks}; {remedy}"
        )
    if maple.n_ctx + 3 > model.context_length:
        raise UserError(
            f"{path} has {maple.n_ctx} prompts a text, but texts of {name} have "
            f"{model.context_length} tokens; {remedy}"
        )
    ours = model.state_dict()
    for key, theirs in maple.backbone.items():
        if key not in ours:
            raise UserError(f"{path} has weights {key!r}, which {name} has not; {remedy}")
        if ours[key].shape != theirs.shape or not _is_same(ours[key], theirs):
            raise UserError(
                f"{path} was learned on other weights {key!r} than {name} has; {remedy}"
            )


def _is_same(ours: Tensor, theirs: Tensor) -> bool:
    """But for the rounding of half precision: MaPLe leaves CLIP's own weights as they were."""
    return torch.allclose(ours.float(), theirs.float(), rtol=ALMOST, atol=1e-7)


def _attach_to_images(visual: Any, prompts: Prompts) -> None:
    visual.maple = prompts

    def append(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        x = inputs[0]  # (b, 1 + n patches, width)
        return (torch.cat([x, prompts.at(0, x)], dim=1), *inputs[1:])

    visual.ln_pre.register_forward_pre_hook(append)
    _replace_before(visual.transformer, prompts, -prompts.n_ctx)


def _attach_to_texts(model: Any, prompts: Prompts) -> None:
    model.maple = prompts

    def put(_module: nn.Module, _inputs: Any, embedded: Tensor) -> Tensor:
        return prompts.put(0, embedded, 1)  # before their positions are added

    model.token_embedding.register_forward_hook(put)
    _replace_before(model.transformer, prompts, 1)


def _replace_before(transformer: Any, prompts: Prompts, first: int) -> None:
    """Before each block from the second on that has prompts of its own."""
    batch_first = transformer.batch_first

    def hook(block: int) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
        def replace(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
            x = inputs[0] if batch_first else inputs[0].transpose(0, 1)
            x = prompts.put(block, x, first)
            return (x if batch_first else x.transpose(0, 1), *inputs[1:])

        return replace

    for block in range(1, len(prompts.tokens)):
        transformer.resblocks[block].register_forward_pre_hook(hook(block))
