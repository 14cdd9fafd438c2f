"""Where a vision tower keeps its blocks and tokens: open_clip's own ViT, and timm's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sae.core.errors import UserError


@dataclass(frozen=True)
class Tower:
    """Blocks that hand on a row of tokens: a prefix (CLS first, then registers), then patches."""

    blocks: nn.ModuleList | nn.Sequential
    width: int
    grid: tuple[int, int]
    """(h, w) patches."""
    n_prefix: int
    has_cls: bool
    batch_first: bool

    def positions(self, tokens: str) -> list[int]:
        """Where they stand in the row; registers never count. Raises `UserError` without CLS."""
        n_patches = self.grid[0] * self.grid[1]
        patches = list(range(self.n_prefix, self.n_prefix + n_patches))
        if tokens == "patch":
            return patches
        if tokens not in ("cls", "all"):
            raise UserError(f"no tokens {tokens!r}; use cls, patch or all")
        if not self.has_cls:
            raise UserError(
                f"tokens {tokens!r} need a CLS token, which this model has not; "
                "use --tokens patch, or --layer projected"
            )
        return [0] if tokens == "cls" else [0, *patches]

    @contextmanager
    def editing(self, block: int, tokens: str, edit: Callable[[Tensor], Tensor]) -> Iterator[None]:
        """While this lasts, what leaves `block` has its `tokens` (b, t, d) replaced by `edit`."""
        positions = torch.tensor(self.positions(tokens))

        def replace(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
            row = output if self.batch_first else output.transpose(0, 1)  # (b, all tokens, d)
            where = positions.to(row.device)
            row = row.index_copy(1, where, edit(row.index_select(1, where)))
            return row if self.batch_first else row.transpose(0, 1)

        handle = self.blocks[block].register_forward_hook(replace)
        try:
            yield
        finally:
            handle.remove()


def find_tower(visual: Any) -> Tower | None:
    """The tower's blocks, or None where they are no row of tokens (ResNets, ConvNeXt, ...)."""
    if hasattr(visual, "class_embedding") and hasattr(visual, "transformer"):
        return _open_clip_tower(visual)
    if hasattr(visual, "trunk"):
        return _timm_tower(visual.trunk)
    return None


def _open_clip_tower(visual: Any) -> Tower:
    # open_clip puts a CLS token first whatever the pooling.
    return Tower(
        blocks=visual.transformer.resblocks,
        width=visual.transformer.width,
        grid=(int(visual.grid_size[0]), int(visual.grid_size[1])),
        n_prefix=1,
        has_cls=True,
        batch_first=visual.transformer.batch_first,
    )


def _timm_tower(trunk: Any) -> Tower | None:
    blocks = getattr(trunk, "blocks", None)
    grid = getattr(getattr(trunk, "patch_embed", None), "grid_size", None)
    if not isinstance(blocks, nn.ModuleList | nn.Sequential) or grid is None:
        return None
    if not hasattr(trunk, "num_prefix_tokens"):
        return None
    return Tower(
        blocks=blocks,
        width=trunk.embed_dim,
        grid=(int(grid[0]), int(grid[1])),
        n_prefix=trunk.num_prefix_tokens,
        has_cls=getattr(trunk, "cls_token", None) is not None,
        batch_first=True,
    )
