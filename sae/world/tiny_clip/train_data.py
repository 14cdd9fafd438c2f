"""Seeds -> what the tiny CLIP is trained on: drawings, captions, and what both say is true."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sae.world.drawing.draw import draw
from sae.world.scene.captions import caption, one_attribute_caption, plural
from sae.world.scene.concepts import BY_NAME, OBJECTS, PLANTED
from sae.world.scene.scene import Scene, concepts_of, sample

FIRST_SEED = 10**12
"""Where the training scenes of seed 0 begin; no world that `sae world` writes reaches that far.
Those of seed s begin at (1 + s) times this."""

IMAGE_SIZE = 64
"""Pixels a side, as the tiny CLIP sees them."""
DRAWN_SIZE = 128
"""Pixels a side, as `sae world` writes them: training sees the same reduction as embedding does."""
N_PATCHES = 8
"""Patches a side of the tiny CLIP: 64 / 8."""
CONTEXT = 20
"""Tokens a caption, start and end included."""
MENTIONS = (0.4, 0.75, 1.0)
"""Share of a scene's attributes that the three full captions mention."""
N_CAPTIONS = 2 * len(MENTIONS)
"""Captions a scene: full ones first, then as many of one attribute."""
NO_OBJECT = len(OBJECTS)
"""Patch label of the background; others are places in OBJECTS."""
CHUNK = 250
"""Scenes drawn at once by one worker."""

NAMES = tuple(concept.name for concept in PLANTED)


@dataclass(frozen=True)
class Examples:
    """n drawn scenes with their captions and their truth."""

    images: NDArray[np.uint8]  # (n, 64, 64, 3)
    tokens: NDArray[np.int16]  # (n, 6, 20)
    claims: NDArray[np.bool_]  # (n, 6, concepts): what each caption says
    truth: NDArray[np.bool_]  # (n, concepts): what is drawn
    patches: NDArray[np.uint8]  # (n, 64): the object that covers each patch, or NO_OBJECT
    easy: NDArray[np.bool_]  # (n,): one clear object


def make_examples(
    n: int,
    seed: int = 0,
    workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Examples:
    """Draw the first `n` training scenes of a seed.

    They are the same on any machine with any number of workers; two seeds share none.
    """
    first = FIRST_SEED * (1 + seed)
    starts = range(first, first + n, CHUNK)
    work = partial(_chunk, end=first + n)
    with multiprocessing.get_context("spawn").Pool(workers or os.cpu_count()) as pool:
        parts: list[Examples] = []
        for part in pool.imap(work, starts):
            parts.append(part)
            if progress is not None:
                progress(min(len(parts) * CHUNK, n), n)
    names = [field.name for field in fields(Examples)]
    return Examples(**{n: np.concatenate([getattr(part, n) for part in parts]) for n in names})


def _chunk(start: int, end: int) -> Examples:
    from open_clip.tokenizer import SimpleTokenizer

    vocabulary = Path(__file__).with_name("vocab.txt.gz")
    tokenizer = SimpleTokenizer(bpe_path=str(vocabulary), context_length=CONTEXT)
    scenes = [sample(seed) for seed in range(start, min(start + CHUNK, end))]
    images = np.empty((len(scenes), IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
    patches = np.empty((len(scenes), N_PATCHES**2), np.uint8)
    said = [_captions(scene) for scene in scenes]
    for i, scene in enumerate(scenes):
        drawing = draw(scene, DRAWN_SIZE)
        images[i] = reduce_drawing(drawing.pixels)
        patches[i] = patch_labels(scene, drawing.masks)
    texts = [text for captions in said for text in captions]
    return Examples(
        images=images,
        tokens=tokenizer(texts).numpy().astype(np.int16).reshape(len(scenes), N_CAPTIONS, CONTEXT),
        claims=np.array(
            [
                [_flags(claims_of(text, s)) for text in texts]
                for s, texts in zip(scenes, said, strict=True)
            ]
        ),
        truth=np.stack([_flags(concepts_of(scene)) for scene in scenes]),
        patches=patches,
        easy=np.array([_is_easy(scene) for scene in scenes]),
    )


def reduce_drawing(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(size, size, 3) -> (64, 64, 3), exactly as open_clip's preprocessing of a square image."""
    image = Image.fromarray(pixels).resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC)
    return np.asarray(image)


def patch_labels(scene: Scene, masks: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """(64,) the object with the most pixels in each patch, if it covers an eighth of the patch."""
    n_objects, size, _ = masks.shape
    patch = size // N_PATCHES
    cover = masks.reshape(n_objects, N_PATCHES, patch, N_PATCHES, patch).mean((2, 4))
    cover = cover.reshape(n_objects, -1)  # (n_objects, 64)
    names = np.array([OBJECTS.index(placed.name) for placed in scene.objects], np.uint8)
    return np.where(cover.max(0) >= 1 / 8, names[cover.argmax(0)], NO_OBJECT).astype(np.uint8)


def claims_of(text: str, scene: Scene) -> frozenset[str]:
    """The concepts of the scene that a true caption of it mentions, by any of their words."""
    padded = f" {text} "
    concepts = concepts_of(scene)
    mentioned = frozenset(
        name for name in concepts if any(f" {word} " in padded for word in _wordings(name))
    )
    return mentioned or concepts  # a claim of nothing would be true of everything


def _wordings(name: str) -> tuple[str, ...]:
    concept = BY_NAME[name]
    return (name, concept.phrase, plural(name), *concept.synonyms)


def _captions(scene: Scene) -> list[str]:
    rng = np.random.default_rng([scene.seed, len(MENTIONS)])
    full = [caption(scene, rng, mention) for mention in MENTIONS]
    return full + [one_attribute_caption(scene, rng) for _ in MENTIONS]


def _flags(names: Iterable[str]) -> NDArray[np.bool_]:
    named = frozenset(names)
    return np.array([name in named for name in NAMES])


def _is_easy(scene: Scene) -> bool:
    return len(scene.objects) == 1 and scene.objects[0].size != "small" and scene.stroke != "dotted"
