"""Pixels and text -> vectors: open_clip's models and the built-in tiny one, at any block."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.func import functional_call

from sae.clip.names import open_clip_parts
from sae.clip.tower import Tower, find_tower, tower_name, without_projection
from sae.core.errors import UserError

TEXTS_AT_ONCE = 256


def load_clip(name: str, device: str = "auto", texts: bool = True) -> Clip:
    """Load a model by name.

    "tiny" (built in), "ViT-B-32/openai" (an open_clip model and its tag), "ViT-B-32/random"
    (weights from seed 0), "ViT-B-32/file:weights.pt", "hf-hub:org/name", or "local-dir:path";
    behind each of them "+maple:checkpoint.pth". Raises `UserError` for a name that does not exist,
    with near ones, and for weights that cannot be had; before anything is fetched for a library
    that is missing, which with `texts` False may be that of texts.
    """
    return Clip(name, resolve_device(device), texts)


def resolve_device(device: str) -> torch.device:
    """For "auto" CUDA, else MPS, else the CPU. Raises `UserError` for one that is not there."""
    if device == "auto":
        found = "cuda" if torch.cuda.is_available() else "mps" if _has_mps() else "cpu"
        return torch.device(found)
    try:
        resolved = torch.device(device)
    except RuntimeError:
        raise UserError(f"no such device: {device!r}; use auto, cpu, cuda or mps") from None
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": _has_mps()}
    if not there.get(resolved.type, False):
        raise UserError(f"this machine has no {resolved.type!r} device; use --device auto")
    if resolved.type == "cuda" and (resolved.index or 0) >= torch.cuda.device_count():
        raise UserError(f"no {device!r}: this machine has {torch.cuda.device_count()} CUDA devices")
    return resolved


class Preprocess:
    """open_clip's own transform, cut where Pillow ends: workers send bytes, not floats.

    Calling it does the whole; `resize`, then `normalise` for a whole batch, give the same bits.
    """

    def __init__(self, transform: Any) -> None:
        *self._pillow_steps, self._to_tensor, self._normalise = transform.transforms
        self._mean = torch.tensor(self._normalise.mean).view(1, 3, 1, 1)
        self._std = torch.tensor(self._normalise.std).view(1, 3, 1, 1)

    def __call__(self, image: Image.Image) -> Tensor:
        """(3, s, s) float32, ready for the model."""
        return self.normalise(torch.from_numpy(self.resize(image)[None]))[0]

    def resize(self, image: Image.Image) -> NDArray[np.uint8]:
        """(s, s, 3), resized and cropped."""
        for step in self._pillow_steps:
            image = step(image)
        return np.array(image)

    def normalise(self, pixels: Tensor) -> Tensor:
        """(b, s, s, 3) uint8 on any device -> (b, 3, s, s) float32."""
        scaled = pixels.permute(0, 3, 1, 2).contiguous().float().div_(255)
        return scaled.sub_(self._mean.to(pixels.device)).div_(self._std.to(pixels.device))


class Halfway(NamedTuple):
    """Images on their way through a network, stopped behind a layer."""

    layer: str
    row: Tensor
    """(b, all tokens, d): what left the block; of "projected" (b, 1, d_embed), raw."""
    pixels: Tensor  # (b, 3, s, s)


class Clip:
    """One image tower and one text tower, in float32 (TF32 products on CUDA), without gradients."""

    def __init__(self, name: str, device: torch.device, texts: bool = True) -> None:
        parts = open_clip_parts(name, texts)
        self.name = parts.name
        self.adapter_sha = parts.adapter_sha
        self.device = device
        self._model: Any = parts.model.to(device).eval().requires_grad_(False)
        self._make_tokenizer = parts.make_tokenizer
        self._tower: Tower | None = find_tower(self._model.visual)
        self.preprocess = Preprocess(parts.transform)
        self.d_embed = parts.d_embed
        self.image_size = parts.image_size
        self.view = parts.view
        self.n_blocks = 0 if self._tower is None else len(self._tower.blocks)
        self.logit_scale = float(self._model.logit_scale.exp())

    @cached_property
    def _tokenizer(self) -> Any:
        return self._make_tokenizer()

    @cached_property
    def sha(self) -> str:
        """First 16 hex digits of the sha256 over all weights' names and bytes."""
        digest = hashlib.sha256()
        for name, weight in sorted(self._model.state_dict().items()):
            digest.update(name.encode())
            digest.update(weight.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def resolve_layer(self, layer: str | int) -> str:
        """ "projected" stays; a block may count from the end: "-1" is the last."""
        if layer == "projected":
            return layer
        if self._tower is None:
            self._blocks()
        try:
            block = int(layer)
        except ValueError:
            raise UserError(f"no layer {layer!r}; {self._layers_text()}") from None
        if not -self.n_blocks <= block < self.n_blocks:
            raise UserError(f"no layer {layer}; {self._layers_text()}")
        return str(block % self.n_blocks)

    def width(self, layer: str | int) -> int:
        """Dimensions of a token at a layer."""
        if self.resolve_layer(layer) == "projected":
            return self.d_embed
        return self._blocks().width

    def grid(self) -> tuple[int, int]:
        """(h, w) patches."""
        return self._blocks().grid

    def tokens_per_image(self, layer: str | int, tokens: str) -> int:
        """Tokens that `embed_images` gives an image. Raises `UserError` for what is not there."""
        if self.resolve_layer(layer) == "projected":
            if tokens != "cls":
                raise UserError(
                    f"layer 'projected' is one vector an image; {tokens!r} needs a block"
                )
            return 1
        return len(self._blocks().positions(tokens))

    @torch.no_grad()
    def embed_images(self, pixels: Tensor, layer: str = "projected", tokens: str = "cls") -> Tensor:
        """(b, 3, s, s) -> (b, t, d) float32, raw: not normalised. "projected" has t = 1."""
        self.tokens_per_image(layer, tokens)
        return self.tokens_at(self.run_to(pixels, layer), tokens)

    @torch.no_grad()
    def run_to(self, pixels: Tensor, layer: str) -> Halfway:
        """(b, 3, s, s) -> the network stopped behind a layer; `finish` goes on from there."""
        [halfway] = self.run_through(pixels, [layer])
        return halfway

    @torch.no_grad()
    def run_through(self, pixels: Tensor, layers: Sequence[str]) -> list[Halfway]:
        """(b, 3, s, s) -> the network stopped behind each of these layers, in one pass."""
        names, pixels = [self.resolve_layer(layer) for layer in layers], pixels.to(self.device)
        blocks = sorted({int(name) for name in names if name != "projected"})
        rows: dict[str, Tensor] = {}
        with _tf32(self.device), ExitStack() as skipped:
            if blocks:
                rows |= self._rows(pixels, blocks)
            if "projected" in names:
                for block in blocks[-1:]:
                    skipped.enter_context(self._blocks().resuming(block, rows[str(block)]))
                rows["projected"] = self._projected(pixels)[:, None]
        return [Halfway(name, rows[name], pixels) for name in names]

    def _rows(self, pixels: Tensor, blocks: list[int]) -> dict[str, Tensor]:
        """By block: all tokens that leave it (b, n, d), the prefix first."""
        tower = self._blocks()
        output = self._model.visual.forward_intermediates(
            pixels,
            indices=blocks,
            stop_early=True,
            intermediates_only=True,
            output_fmt="NLC",
            output_extra_tokens=True,
        )
        found = output["image_intermediates"]
        prefixes = output.get("image_intermediates_prefix") or [row[:, :0] for row in found]
        rows = [torch.cat(parts, dim=1) for parts in zip(prefixes, found, strict=True)]
        n_tokens = rows[0].shape[1]
        if n_tokens != tower.n_tokens:
            raise UserError(
                f"{self.name} has {n_tokens} tokens at block {blocks[0]}, not {tower.n_tokens}: "
                f"no grid of {tower.grid[0]} x {tower.grid[1]} patches; use --layer projected"
            )
        return {str(block): row for block, row in zip(blocks, rows, strict=True)}

    def tokens_at(self, halfway: Halfway, tokens: str) -> Tensor:
        """(b, t, d) float32: the tokens that left the layer at which the network was stopped."""
        if halfway.layer == "projected":
            return halfway.row
        where = torch.tensor(self._blocks().positions(tokens), device=halfway.row.device)
        return halfway.row.index_select(1, where).float()

    @torch.no_grad()
    def finish(
        self,
        halfway: Halfway,
        tokens: str = "cls",
        x: Tensor | None = None,
        output: Literal["projected", "pooled", "patches"] = "projected",
    ) -> Tensor:
        """The rest of the network, as often as asked for, with the tokens x (b, t, d) at the layer.

        Without `x`, and in all tokens that `tokens` does not name, nothing is changed. Gives unit
        rows (b, d_embed); "pooled": (b, width), after the last norm and before the projection;
        "patches": (b, h * w, width), the last block's after that norm. Only the first of them can
        be had of the layer "projected".
        """
        row = halfway.row
        if x is not None:
            row = self._replaced(halfway, tokens, x)
        if halfway.layer == "projected":
            if output != "projected":
                raise UserError(f"behind the layer 'projected' there is no {output!r}; use a block")
            return F.normalize(row[:, 0], dim=-1)
        tower, visual = self._blocks(), self._model.visual
        last: list[Tensor] = []
        with (
            tower.resuming(int(halfway.layer), row),
            tower.watching(last),
            nullcontext() if output == "projected" else without_projection(visual),
            _tf32(self.device),
        ):
            features = self._projected(halfway.pixels)
            if output == "patches":
                patches = last[0][:, tower.positions("patch")]
                return tower.final_norm(patches).float()
        return F.normalize(features, dim=-1) if output == "projected" else features

    def image_features(
        self,
        pixels: Tensor,
        layer: str = "projected",
        tokens: str = "cls",
        edit: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """(b, 3, s, s) -> (b, d_embed) unit rows.

        `edit` (b, t, d) -> (b, t, d) replaces the tokens at `layer` on the way; those that `tokens`
        does not cover stay as they are.
        """
        self.tokens_per_image(layer, tokens)
        halfway = self.run_to(pixels, "projected" if edit is None else layer)
        return self.finish(halfway, tokens, edit and edit(self.tokens_at(halfway, tokens)))

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """(n, d_embed) float32 unit rows."""
        rows = [torch.empty(0, self.d_embed, device=self.device)]
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            tokens = self._tokenizer(list(texts[start : start + TEXTS_AT_ONCE])).to(self.device)
            with _tf32(self.device):
                rows.append(self._encode_texts(tokens).float())
        return torch.cat(rows)

    def _encode_texts(self, tokens: Tensor) -> Tensor:
        """(n, d_embed) unit rows, without the padding that would be nine tenths of the work.

        Under a causal mask nothing reads what stands behind a text's end token.
        """
        model = self._model
        causal = type(model).__name__ == "CLIP" and model.attn_mask is not None
        if not (causal and model.text_pool_type == "argmax"):
            unit_rows: Tensor = model.encode_text(tokens, normalize=True)
            return unit_rows
        length = int(tokens.argmax(dim=-1).max()) + 1
        cut = {
            "positional_embedding": model.positional_embedding[:length],
            "attn_mask": model.attn_mask[:length, :length],
        }
        out = functional_call(model, cut, (None, tokens[:, :length]))
        found: Tensor = out["text_features"] if isinstance(out, dict) else out[1]
        return found

    def _projected(self, pixels: Tensor) -> Tensor:
        features: Tensor = self._model.encode_image(pixels.to(self.device), normalize=False)
        return features.float()  # (b, d_embed)

    def _replaced(self, halfway: Halfway, tokens: str, x: Tensor) -> Tensor:
        """The row of tokens with x in the place of those that `tokens` names."""
        before = self.tokens_at(halfway, tokens)
        if x.shape != before.shape:
            raise ValueError(f"edit made {tuple(x.shape)} of {tuple(before.shape)}")
        if halfway.layer == "projected":
            return x.to(halfway.row)
        where = torch.tensor(self._blocks().positions(tokens), device=halfway.row.device)
        return halfway.row.index_copy(1, where, x.to(halfway.row))

    def _blocks(self) -> Tower:
        if self._tower is None:
            name = tower_name(self._model.visual)
            raise UserError(
                f"{self._layers_text()}: what leaves the blocks of its {name} is no row of tokens"
            )
        return self._tower

    def _layers_text(self) -> str:
        blocks = f" and blocks 0..{self.n_blocks - 1}" if self.n_blocks else " only"
        return f"{self.name} has the layer 'projected'{blocks}"


@contextmanager
def _tf32(device: torch.device) -> Iterator[None]:
    """Products with 10-bit mantissas on CUDA, as a float16 store keeps them; elsewhere nothing."""
    if device.type != "cuda":
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _has_mps() -> bool:
    return torch.backends.mps.is_available()
