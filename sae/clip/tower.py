"""Where a vision tower keeps its blocks and tokens: open_clip's own ViT, and timm's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from sae.core.errors import UserError


@dataclass(frozen=True)
class Tower:
    """Blocks that hand on a row of tokens: a prefix (CLS first, then registers), patches, and an
    adapter's prompts.
    """

    blocks: nn.ModuleList | nn.Sequential
    width: int
    grid: tuple[int, int]
    """(h, w) patches."""
    n_prefix: int
    has_cls: bool
    batch_first: bool
    final_norm: Callable[[Tensor], Tensor]
    """What the last block's tokens (b, t, d) go through, before they are pooled or after."""
    n_suffix: int = 0
    """Tokens behind the patches: an adapter's prompts, which nobody is shown."""

    @property
    def n_tokens(self) -> int:
        """In the row, of all kinds."""
        return self.n_prefix + self.grid[0] * self.grid[1] + self.n_suffix

    def positions(self, tokens: str) -> list[int]:
        """Where they stand in the row; registers and prompts never count.

        Raises `UserError` without CLS.
        """
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
    def resuming(self, block: int, row: Tensor) -> Iterator[None]:
        """While this lasts, `row` (b, all tokens, d) leaves `block`, and nothing before it runs."""
        native = row if self.batch_first else row.transpose(0, 1)
        skipped = list(self.blocks)[: block + 1]
        try:
            for module in skipped[:-1]:
                module.forward = _hand_on
            skipped[-1].forward = lambda *_inputs, **_options: native
            yield
        finally:
            for module in skipped:
                module.__dict__.pop("forward", None)

    @contextmanager
    def watching(self, rows: list[Tensor]) -> Iterator[None]:
        """While this lasts, `rows` gets what leaves the last block, (b, all tokens, d)."""

        def keep(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            rows.append(output if self.batch_first else output.transpose(0, 1))

        handle = self.blocks[-1].register_forward_hook(keep)
        try:
            yield
        finally:
            handle.remove()


def _hand_on(x: Tensor, *_inputs: Any, **_options: Any) -> Tensor:
    return x


@contextmanager
def without_projection(visual: Any) -> Iterator[None]:
    """While this lasts, the tower gives what it pools: after its last norm, before the projection.

    Of a timm model whose own classifier projects, it is what comes out of that.
    """
    name, nothing = ("proj", None) if hasattr(visual, "proj") else ("head", nn.Identity())
    kept = getattr(visual, name)
    setattr(visual, name, nothing)
    try:
        yield
    finally:
        setattr(visual, name, kept)


def find_tower(visual: Any) -> Tower | None:
    """The tower's blocks, or None where they are no row of tokens (ResNets, ConvNeXt, ...)."""
    if hasattr(visual, "class_embedding") and hasattr(visual, "transformer"):
        return _open_clip_tower(visual)
    if hasattr(visual, "trunk"):
        return _timm_tower(visual.trunk, visual.image_size)
    return None


def tower_name(visual: Any) -> str:
    """What the architecture is called: "ModifiedResNet", "ConvNeXt"."""
    return type(getattr(visual, "trunk", visual)).__name__


def _open_clip_tower(visual: Any) -> Tower:
    # open_clip puts a CLS token first whatever the pooling. Behind attention that pools, ln_post is
    # of another width.
    return Tower(
        blocks=visual.transformer.resblocks,
        width=visual.transformer.width,
        grid=(int(visual.grid_size[0]), int(visual.grid_size[1])),
        n_prefix=1,
        has_cls=True,
        batch_first=visual.transformer.batch_first,
        final_norm=nn.Identity() if visual.attn_pool is not None else visual.ln_post,
        n_suffix=visual.maple.n_ctx if hasattr(visual, "maple") else 0,
    )


def _timm_tower(trunk: Any, image_size: tuple[int, int]) -> Tower | None:
    blocks = getattr(trunk, "blocks", None)
    patch_embed: Any = getattr(trunk, "patch_embed", None)
    grid = getattr(patch_embed, "grid_size", None)
    if getattr(trunk, "dynamic_img_size", False):  # its own size is that of its training
        grid = patch_embed.dynamic_feat_size(image_size)
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
        final_norm=nn.Sequential(*(getattr(trunk, n, nn.Identity()) for n in ("norm", "fc_norm"))),
    )
