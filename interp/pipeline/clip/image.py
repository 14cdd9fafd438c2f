"""A run and an image file -> the latents that are active on it, as the run's SAE sees it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from interp.evidence.dense_latents import open_subject
from interp.evidence.stream.activations import Pairs, Seen, draw_heat, reduce_to_images
from interp.evidence.stream.top_k import Ints
from interp.records.types import LatentStats
from interp.run.run import Run
from sae.clip.store_images import load_clip_of, require_same_weights
from sae.clip.vectors import embed_batch
from sae.core.errors import UserError
from sae.data.formats import dense
from sae.data.images import BadImage, read_image
from sae.data.view import Heat


class ActiveLatent(NamedTuple):
    """A latent on one image."""

    latent: int
    act: float
    """Of the image: of its tokens as the run's pooling says."""
    percentile: float
    """0 to 100: share of the latent's active images of the run on which it is at most as active,
    by the 32 bins of its histogram; NaN of a latent that none of them activates."""
    n_tokens: int
    """Tokens of the image on which it is active."""
    heat: Heat | None
    """Where on the image; None without patches."""


class ExplainedImage(NamedTuple):
    """What a run says of one image."""

    image_id: str
    image: Image.Image
    is_known: bool
    """Whether the run was collected from this image too."""
    n_tokens: int
    """Of the image, as the SAE sees it."""
    latents: list[ActiveLatent]
    """All that are active, the most active first."""


def explain_image(run: Run, file: Path, device: str = "auto") -> ExplainedImage:
    """Embed an image as the run's images were, and encode it.

    Raises `UserError` for an image that cannot be read, a run without an SAE, and a CLIP that is
    not known, cannot be had or has other weights now.
    """
    store = run.evidence.store
    if store.info.layer == dense.LAYER:
        raise UserError(
            f"{run.path} is of latents that were written down: there is no SAE to ask about {file}"
        )
    try:
        image_id, image = read_image(file, store.info.max_pixels)
    except BadImage as error:
        raise UserError(f"{file}: {error.reason}") from None
    model = open_subject(run.sae, store)[1]
    clip = load_clip_of(store, device)
    require_same_weights(clip, store)
    [x] = embed_batch(clip, [store.info], [clip.preprocess.resize(image)])  # (1, t, d)
    with torch.inference_mode():
        codes = model.encode(x.flatten(0, 1).float())
    acts, latents = (part.reshape(1, x.shape[1], -1) for part in (codes.acts, codes.latents))
    found = reduce_to_images(acts, latents, model.n_latents, run.evidence.info.pool)
    order = np.argsort(-found.acts, kind="stable")
    active = found.latents[order]
    seen = Seen(np.zeros(1, np.int64), found, acts, latents)
    return ExplainedImage(
        image_id,
        image,
        bool((store.images["image_id"] == image_id).any()),
        x.shape[1],
        [
            ActiveLatent(n, act, percentile(run.evidence.stats(n), act), k, heat)
            for n, act, k, heat in zip(
                active.tolist(),
                found.acts[order].tolist(),
                found.n_tokens[order].tolist(),
                _heats(run, seen, active),
                strict=True,
            )
        ],
    )


def percentile(stats: LatentStats, act: float) -> float:
    """0 to 100: share of the latent's active images that are at most so active, evenly spread
    within a bin of the histogram; NaN where it has none."""
    n = sum(stats.hist)
    if not n or not stats.max_act > 0:
        return math.nan
    place = min(act / stats.max_act, 1.0) * len(stats.hist)
    whole = min(int(place), len(stats.hist) - 1)
    below = sum(stats.hist[:whole]) + (place - whole) * stats.hist[whole]
    return 100 * below / n


def _heats(run: Run, seen: Seen, latents: Ints) -> list[Heat | None]:
    store = run.evidence.store
    if not store.info.grid or not len(latents):
        return [None] * len(latents)
    pairs = Pairs(np.zeros(len(latents), np.int64), latents)
    maps, _ = draw_heat(seen, pairs, math.prod(store.info.grid))
    grid = tuple(store.info.grid)
    return [Heat.of(one.tobytes(), store.view, grid) for one in maps]
