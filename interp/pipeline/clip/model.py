"""Settings -> the CLIP that stands in for a vision model, and the images that it compares with."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from interp.evidence.reader import EvidenceReader
from interp.pictures.cache import EvidenceSource, read_images
from interp.pipeline.settings import ModelSettings
from interp.records.types import Example
from interp.run.run import Run
from sae.core.errors import Notice, UserError

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from interp.local.clip_encoder import ClipEncoder

N_BACKGROUND = 1024
"""Images of the explain side that tell the local model what is usual."""


def clip_name(run: Run, settings: ModelSettings) -> str:
    """The name under which the local model's CLIP is recorded; nothing is loaded."""
    if settings.clip:
        from sae.clip.names import resolve_name

        return resolve_name(settings.clip).name
    from sae.data.store import EmbeddingStore

    name = EmbeddingStore.open(run.store).info.clip
    if not name:
        raise UserError(
            f"{run.store} does not say which CLIP it is of; name one that sees the images: "
            "--clip ViT-B-32/openai, or --clip tiny, which needs no download"
        )
    return name


def judge_clip_name(run: Run, settings: ModelSettings) -> str:
    """The name of the CLIP that judges: the one asked for; on a built-in world the built-in one
    that the SAE is not made of; else `clip_name`, so the judge is circular and is said to be."""
    if settings.clip or not _is_of_world(run):
        return clip_name(run, settings)
    from interp.local.vocabulary import WORLD_CLIPS

    return next(name for name in reversed(WORLD_CLIPS) if name != run.info.clip)


def local_encoder(run: Run, settings: ModelSettings) -> ClipEncoder:
    """The local namer's CLIP; in one process every stage sees with the same, each image once."""
    return _encoder_of(run, clip_name(run, settings), settings)


def judge_encoder(run: Run, settings: ModelSettings) -> ClipEncoder:
    """The local judge's CLIP, likewise."""
    return _encoder_of(run, judge_clip_name(run, settings), settings)


def _encoder_of(run: Run, name: str, settings: ModelSettings) -> ClipEncoder:
    """Raises `UserError` where it is the store's own CLIP with another adapter than then."""
    from sae.data.store import EmbeddingStore

    encoder = _encoder(name, settings.device)
    if settings.clip:  # named by the user, store or no store
        return encoder
    store = EmbeddingStore.open(run.store)
    if store.info.clip == name and store.info.adapter_sha:
        from sae.clip.model import Clip
        from sae.clip.store_images import require_same_adapter

        assert isinstance(encoder.clip, Clip)
        require_same_adapter(encoder.clip, store)
    return encoder


def background(
    reader: EvidenceReader, domain: str = "", encoder: ClipEncoder | None = None
) -> Iterator[tuple[str, Image.Image]]:
    """Ids and images of `background_examples`, without those that cannot be read; blank where the
    `encoder` knows the image."""
    from interp.local.clip_encoder import SeenOnce

    examples = background_examples(reader, domain)
    source: EvidenceSource = reader
    if encoder is not None:
        source = seen = SeenOnce(reader, encoder)
        seen.look_at(examples)
    for wanted in examples:
        for example, image in read_images(source.image, [wanted]).items():
            yield example.image_id, image


def background_examples(reader: EvidenceReader, domain: str = "") -> list[Example]:
    """An even sample of the explain side (of one domain), the same whenever it is asked for.

    Images that leave some latent silent; where each latent is active on all, those drawn evenly of
    the active ones. Raises `UserError` when no latent is active on any.
    """
    examples = reader.examples[reader.examples["side"] == "explain"]
    if domain:
        examples = examples[examples["domain"] == domain]
    for kind in ("silent", "quantile"):
        drawn = examples[examples["kind"] == kind].drop_duplicates("image_id")
        if not drawn.empty:
            chosen = drawn.sort_values("image_id")[:N_BACKGROUND]
            return [Example(*values) for values in chosen.itertuples(index=False)]
    raise UserError(
        f"{reader.run_dir} has no image to compare with: none of its latents is active; "
        "train another SAE, or collect from more images"
    )


def warn_of_misfit(run: Run, clip: str, words: Sequence[str], images: Tensor) -> None:
    """A `Notice` where CLIP and words do not fit the images, of which (n, d) are a sample."""
    from interp.local.fit import misfit

    said = misfit(clip, words, _is_of_world(run), images)
    if said:
        warnings.warn(Notice(said), stacklevel=2)


def _is_of_world(run: Run) -> bool:
    """Whether all images of the run's store lie in built-in worlds."""
    from interp.local.fit import is_world
    from sae.data.store import EmbeddingStore

    store = EmbeddingStore.open(run.store)
    roots = store.info.roots.values()
    return bool(roots) and all(r and is_world(store.path.resolve() / r) for r in roots)


@functools.cache
def _encoder(clip: str, device: str) -> ClipEncoder:
    from interp.local.clip_encoder import ClipEncoder
    from sae.clip.model import load_clip

    return ClipEncoder(load_clip(clip, device))
