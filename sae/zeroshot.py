"""Zero-shot classification, with the SAE in the way or not: what its reconstruction loses."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from sae.errors import UserError
from sae.images import BadImage, read_image
from sae.model import SAE, require_match
from sae.progress import Progress
from sae.store import EmbeddingStore

if TYPE_CHECKING:
    from sae.clip import Clip

TEMPLATES = ("a photo of a {}", "a sketch of a {}", "a {}")
BATCH_IMAGES = 64
SOUNDS_LIKE_VOWEL = re.compile(r"(?!uni|use|usu|eu|one\b|once)[aeiou]|hour|honest|heir", re.I)


@dataclass(frozen=True)
class ZeroShot:
    """Shares of images whose class is named first, or among the first five."""

    n_images: int
    n_classes: int
    raw_top1: float
    raw_top5: float
    sae_top1: float
    """With the SAE's reconstruction in place of the embedding."""
    sae_top5: float


def zeroshot(
    model: SAE,
    store: EmbeddingStore,
    clip: Clip,
    rows: NDArray[np.int64],
    templates: Sequence[str] = TEMPLATES,
    n_max: int = 2000,
    progress: Progress | None = None,
) -> dict[str, ZeroShot]:
    """Classify up to `n_max` labelled images of each domain among `rows`.

    Comes back by domain, and "" for all; empty when there are fewer than two classes or no labelled
    images. The candidates are all classes of the store: its folders' names. Images are read again.
    Raises `UserError` when `clip` has other weights than the store's, or an image has changed.
    """
    require_match(model.config, store.info)
    _require_same_weights(clip, store)
    names = class_names(store.images["label"].unique())
    chosen = _choose(store, rows, n_max)
    if len(names) < 2 or len(chosen) == 0:
        return {}
    model = model.to(clip.device).eval()
    classes = class_vectors(clip, names, templates)  # (n_classes, d_embed)
    images = store.images.iloc[chosen]
    numbers = {name: number for number, name in enumerate(names)}
    truth = torch.tensor([numbers[class_name(label)] for label in images["label"]])
    hits = np.zeros((len(chosen), 4), dtype=bool)  # raw top 1, raw top 5, SAE top 1, SAE top 5
    for first in range(0, len(chosen), BATCH_IMAGES):
        part = slice(first, first + BATCH_IMAGES)
        hits[part] = _hits(model, store, clip, chosen[part], classes, truth[part])
        if progress is not None:
            progress(min(first + BATCH_IMAGES, len(chosen)), len(chosen))
    domains = images["domain"].to_numpy()
    results = {"": _shares(hits, len(names))}
    for domain in store.domains:
        if (domains == domain).any():
            results[domain] = _shares(hits[domains == domain], len(names))
    return results


def class_name(label: str) -> str:
    """A folder's name as words: "ice_cream" -> "ice cream"."""
    return " ".join(re.sub(r"[_-]", " ", label).split())


def class_names(labels: Iterable[str]) -> list[str]:
    """The different classes among labels, sorted; "" is none."""
    return sorted({class_name(label) for label in labels} - {""})


def class_vectors(clip: Clip, names: Sequence[str], templates: Sequence[str]) -> Tensor:
    """(n_classes, d_embed) unit rows: the mean over the templates for each class."""
    texts = [fill(template, name) for name in names for template in templates]
    vectors = clip.embed_texts(texts).view(len(names), len(templates), -1)
    return F.normalize(vectors.mean(1), dim=-1)


def fill(template: str, name: str) -> str:
    """Put a class into a template, with the right article: "a {}", "apple" -> "an apple"."""
    if template.count("{}") != 1:
        raise UserError(f"the template {template!r} must hold {{}} once, e.g. 'a photo of a {{}}'")
    if SOUNDS_LIKE_VOWEL.match(name):
        template = re.sub(r"\b([aA]) \{\}", r"\1n {}", template)
    return template.replace("{}", name)


def _require_same_weights(clip: Clip, store: EmbeddingStore) -> None:
    if clip.sha != store.info.clip_sha:
        raise UserError(
            f"{clip.name} now has weights {clip.sha}, but {store.path} was embedded with "
            f"{store.info.clip_sha}; run `sae embed` again"
        )


def _choose(store: EmbeddingStore, rows: NDArray[np.int64], n_max: int) -> NDArray[np.int64]:
    """Labelled rows, ascending: of each domain those with the least content hashes."""
    images = store.images.iloc[rows]
    labelled = images[[bool(class_name(label)) for label in images["label"]]]
    least = labelled.sort_values("image_id").groupby("domain", sort=False).head(n_max)
    return np.sort(least.index.to_numpy(dtype=np.int64))


def _hits(
    model: SAE,
    store: EmbeddingStore,
    clip: Clip,
    rows: NDArray[np.int64],
    classes: Tensor,
    truth: Tensor,
) -> NDArray[np.bool_]:
    """(b, 4): is the true class first, among the first five; without, then with the SAE."""

    def through_sae(tokens: Tensor) -> Tensor:
        x_hat = model.decode(model.encode(tokens.flatten(0, 1)))  # (b * t, d)
        return x_hat.view_as(tokens)

    pixels = torch.stack([clip.preprocess(_image(store, row)) for row in rows]).to(clip.device)
    raw = clip.image_features(pixels)
    rebuilt = clip.image_features(pixels, store.info.layer, store.info.tokens, through_sae)
    return np.hstack([_top(raw, classes, truth), _top(rebuilt, classes, truth)])


def _image(store: EmbeddingStore, row: int) -> Image.Image:
    path = store.image_path(row)
    try:
        image_id, image = read_image(path)
    except BadImage as error:
        raise UserError(f"{path}: {error.reason}; put it back, or add --no-zeroshot") from None
    if image_id != store.images["image_id"].iloc[row]:
        raise UserError(f"{path} has changed since it was embedded; run `sae embed` again")
    return image


def _top(features: Tensor, classes: Tensor, truth: Tensor) -> NDArray[np.bool_]:
    """(b, 2): is the true class first, among the first five."""
    n_shown = min(5, len(classes))
    shown = (features @ classes.T).topk(n_shown, dim=1).indices.cpu()  # (b, n_shown)
    right = shown == truth[:, None]
    return torch.stack([right[:, 0], right.any(1)], dim=1).numpy()


def _shares(hits: NDArray[np.bool_], n_classes: int) -> ZeroShot:
    return ZeroShot(len(hits), n_classes, *(float(share) for share in hits.mean(0)))
