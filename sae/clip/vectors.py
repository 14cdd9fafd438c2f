"""Pixels -> the vectors that a store holds, of several layers in one pass over the network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sae.clip.config import SourceConfig
from sae.clip.model import Clip
from sae.core.distributed import forward_threads
from sae.core.errors import UserError
from sae.core.output import require_own
from sae.data.store_format import Source, Vectors, torch_dtype

PIECE = 16
"""Images of a forward pass on a CPU."""
Images = Sequence[NDArray[np.uint8]]
"""Resized, (s, s, 3) each."""
Embed = Callable[[Images], list[Tensor]]
Map = Callable[[Embed, Iterable[Images]], Iterable[list[Tensor]]]


def name_store(clip: Clip, config: SourceConfig) -> Source:
    """What a store of one layer holds. Raises `UserError` where several are named."""
    if "," in config.layer:
        raise UserError(f"--layer {config.layer}: one layer at a time, but for `sae embed`")
    layer = clip.resolve_layer(config.layer)
    return Source(clip.name, layer, config.checked_tokens, config.normalise)


def name_stores(clip: Clip, out: Path, config: SourceConfig) -> dict[Path, Source]:
    """`--layer` -> the store of each layer: `out` itself, or of "6,10,projected" a folder each.

    Beside blocks "projected" is one vector an image, whatever their tokens are. Raises `UserError`
    for a layer that is not there or is named twice.
    """
    layers, tokens, normalised = config.layer, config.checked_tokens, config.normalise
    words = [word.strip() for word in layers.split(",")]
    names = [clip.resolve_layer(word) for word in words]
    if len(names) == 1:
        return {out: Source(clip.name, names[0], tokens, normalised)}
    for word, name in zip(words, names, strict=True):
        if names.count(name) > 1:
            raise UserError(f"--layer {layers} has layer {name} twice ({word})")
    there = [path.name for path in out.iterdir()] if out.is_dir() else []
    are_stores = all(name == "projected" or name.startswith("layer-") for name in there)
    require_own(out, "folder of stores", are_stores)
    return {
        out / (name if name == "projected" else f"layer-{name}"): Source(
            clip.name, name, "cls" if name == "projected" else tokens, normalised
        )
        for name in names
    }


def vectors_of(clip: Clip, source: Source, dtype: str) -> Vectors:
    """What is known of a store's vectors before any is computed.

    Raises `UserError` for a layer or tokens that the model does not have.
    """
    layer = clip.resolve_layer(source.layer)
    if source.normalised and layer != "projected":
        raise UserError(
            f"--normalise is for the layer 'projected': the blocks behind block {layer} use the "
            "length of its tokens; leave it out"
        )
    return Vectors(
        clip=clip.name,
        clip_sha=clip.sha,
        layer=layer,
        tokens=source.tokens,
        dtype=dtype,
        d=clip.width(layer),
        tokens_per_image=clip.tokens_per_image(layer, source.tokens),
        grid=list(clip.grid()) if source.tokens != "cls" else [],
        normalised=source.normalised,
        view=clip.view,
        adapter_sha=clip.adapter_sha,
    )


@contextmanager
def forward_lanes(clip: Clip, wanted: Sequence[Vectors], batch_size: int) -> Iterator[Map | None]:
    """What `embed_batch` is to map pieces of a batch with, some at a time. The pieces are the same
    for any number of threads, so their vectors are too.

    None on an accelerator, which takes a batch as a whole.
    """
    layers = {vectors.layer for vectors in wanted}
    if clip.device.type != "cpu":
        yield None
    elif "projected" in layers and len(layers) > 1:
        yield map  # `Tower.resuming` changes the network while it runs
    else:
        with forward_threads(clip.device, batch_size // PIECE) as pool:
            yield pool.map


def embed_batch(
    clip: Clip, wanted: Sequence[Vectors], images: Images, lanes: Map | None = None
) -> list[Tensor]:
    """Resized images (s, s, 3) -> (b, t, d) on the CPU, in the stored type, for each of `wanted`.

    With `lanes` piece by piece. Raises `UserError` for values that the type cannot hold.
    """
    if lanes is None:
        return _embed(clip, wanted, images)
    pieces = (images[start : start + PIECE] for start in range(0, len(images), PIECE))
    made = zip(*lanes(partial(_embed, clip, wanted), pieces), strict=True)
    return [torch.cat(parts) for parts in made]


def _embed(clip: Clip, wanted: Sequence[Vectors], images: Images) -> list[Tensor]:
    pixels = torch.from_numpy(np.stack(images))  # (b, s, s, 3)
    if clip.device.type == "cuda":
        pixels = pixels.pin_memory()
    normalised = clip.preprocess.normalise(pixels.to(clip.device, non_blocking=True))
    stopped = clip.run_through(normalised, [vectors.layer for vectors in wanted])
    made = []
    for vectors, halfway in zip(wanted, stopped, strict=True):
        x = clip.tokens_at(halfway, vectors.tokens)
        if vectors.normalised:
            x = F.normalize(x, dim=-1)
        made.append(x.to(torch_dtype(vectors.dtype)).cpu())
        if not made[-1].isfinite().all():
            raise UserError(
                f"{vectors.clip}, layer {vectors.layer}, gives values that {vectors.dtype} cannot "
                "hold; use --dtype float32 and another --out"
            )
    return made
