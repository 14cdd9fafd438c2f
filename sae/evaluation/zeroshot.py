"""An SAE, a store and its CLIP -> zero-shot accuracy with the SAE in the way and without it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sae.clip.class_vectors import class_vectors, fill_template
from sae.clip.store_images import read_store_image, require_same_weights
from sae.core.progress import Progress
from sae.data.classes.names import class_name, class_names
from sae.data.store import EmbeddingStore
from sae.evaluation.intervals import Difference, binomial_tail, paired_difference
from sae.model.intervene import error_kept
from sae.model.match import require_match
from sae.model.sae import SAE

if TYPE_CHECKING:
    from sae.clip.model import Clip

TEMPLATES = {"1": ("a photo of a {}",)}
"""By name; `template_sets` has the others."""
SKETCH = "sketch"
"""The set of the one template that only domains of sketches are classified with."""
BATCH_IMAGES = 64


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
    kept_top1: float
    """With the reconstruction and the SAE's error: must be raw_top1, for nothing is changed. Any
    intervention goes the same way, so that what it does is not mixed with what the SAE loses."""
    delta_top1: float
    """sae_top1 - raw_top1; then its 95% confidence interval (Newcombe's for paired data). All three
    are NaN where raw_top1 is not above chance: nothing can be lost there."""
    delta_low: float
    delta_high: float


class Hits(NamedTuple):
    """Whose class was named; a row an image, the columns are first and among the first five."""

    raw: NDArray[np.bool_]  # (n, 2)
    sae: NDArray[np.bool_]
    kept: NDArray[np.bool_]


def zeroshot(
    model: SAE,
    store: EmbeddingStore,
    clip: Clip,
    rows: NDArray[np.int64],
    templates: Mapping[str, Sequence[str]] = TEMPLATES,
    n_max: int = 2000,
    progress: Progress | None = None,
) -> dict[str, dict[str, ZeroShot]]:
    """Classify up to `n_max` labelled images of each domain among `rows`.

    Comes back by the name of the templates, then by domain, "" for all (of the set "sketch" only
    domains of sketches); empty when there are fewer
    than two classes or no labelled images. The candidates are all classes of the store: its
    folders' names. What comes after the SAE's layer is computed from the images, which are read
    again; of the projected layer there is nothing after. Raises `UserError` when `clip` has other
    weights than the store's, or an image has changed.
    """
    require_match(model.config, store.info)
    require_same_weights(clip, store)
    names = class_names(store.images["label"].unique())
    chosen = _choose(store, rows, n_max)
    if len(names) < 2 or len(chosen) == 0:
        return {}
    model = model.to(clip.device).eval()
    images = store.images.iloc[chosen]
    numbers = {name: number for number, name in enumerate(names)}
    truth = torch.tensor([numbers[class_name(label)] for label in images["label"]])
    classes = {key: class_vectors(clip, names, texts) for key, texts in templates.items()}
    parts: dict[str, list[Hits]] = {key: [] for key in classes}
    for first in range(0, len(chosen), BATCH_IMAGES):
        part = slice(first, first + BATCH_IMAGES)
        features = _features(model, store, clip, chosen[part])
        for key, vectors in classes.items():
            parts[key].append(Hits(*(_top(f, vectors, truth[part]) for f in features)))
        if progress is not None:
            progress(min(first + BATCH_IMAGES, len(chosen)), len(chosen))
    domains = images["domain"].to_numpy()
    found = {
        key: _by_domain(Hits(*map(np.concatenate, zip(*part, strict=True))), domains, len(names))
        for key, part in parts.items()
    }
    if SKETCH in found:
        found[SKETCH] = {name: shares for name, shares in found[SKETCH].items() if is_sketch(name)}
    return found


def template_sets(
    domains: Iterable[str], templates: int = 1, own: Sequence[str] = ()
) -> dict[str, tuple[str, ...]]:
    """The sets to classify with, by name: "1", "80" (of CLIP's authors), "sketch", "own".

    Raises `UserError` for a template that holds no {}.
    """
    for text in own:
        fill_template(text, "cup")
    sets: dict[str, tuple[str, ...]] = dict(TEMPLATES)
    if templates == 80:
        sets["80"] = openai_templates()
    if any(map(is_sketch, domains)):
        sets[SKETCH] = ("a sketch of a {}",)
    return sets | ({"own": tuple(own)} if own else {})


def is_sketch(domain: str) -> bool:
    """Whether a domain is of sketches, by its name."""
    return "sketch" in domain.lower()


def openai_templates() -> tuple[str, ...]:
    """The 80 templates with which CLIP's authors classify ImageNet (Radford et al. 2021)."""
    from open_clip.zero_shot_metadata import OPENAI_IMAGENET_TEMPLATES

    return tuple(template("{}") for template in OPENAI_IMAGENET_TEMPLATES)


def _choose(store: EmbeddingStore, rows: NDArray[np.int64], n_max: int) -> NDArray[np.int64]:
    """Labelled rows, ascending: of each domain those with the least content hashes."""
    images = store.images.iloc[rows]
    labelled = images[[bool(class_name(label)) for label in images["label"]]]
    least = labelled.sort_values("image_id").groupby("domain", sort=False).head(n_max)
    return np.sort(least.index.to_numpy(dtype=np.int64))


@torch.no_grad()
def _features(
    model: SAE, store: EmbeddingStore, clip: Clip, rows: NDArray[np.int64]
) -> list[Tensor]:
    """Unit rows (b, d_embed): without the SAE, with it, and with it and its error."""

    def through_sae(tokens: Tensor) -> Tensor:
        return model(tokens.flatten(0, 1)).x_hat.view_as(tokens)  # type: ignore[no-any-return]

    def through_unchanged(tokens: Tensor) -> Tensor:
        return error_kept(model, tokens.flatten(0, 1), lambda codes: codes).view_as(tokens)

    edits = (None, through_sae, through_unchanged)
    if store.info.layer == "projected":
        x = store.read(rows).to(clip.device).float()  # (b, 1, d)
        edited = [x if edit is None else edit(x) for edit in edits]
        return [F.normalize(tokens[:, 0], dim=-1) for tokens in edited]
    remedy = "put it back, or add --no-zeroshot"
    images = [read_store_image(store, int(row), remedy) for row in rows]
    pixels = torch.stack([clip.preprocess(image) for image in images]).to(clip.device)
    place = (store.info.layer, store.info.tokens)
    return [clip.image_features(pixels, *place, edit) for edit in edits]


def _top(features: Tensor, classes: Tensor, truth: Tensor) -> NDArray[np.bool_]:
    """(b, 2): is the true class first, among the first five."""
    n_shown = min(5, len(classes))
    shown = (features @ classes.T).topk(n_shown, dim=1).indices.cpu()  # (b, n_shown)
    right = shown == truth[:, None]
    return torch.stack([right[:, 0], right.any(1)], dim=1).numpy()


def _by_domain(hits: Hits, domains: NDArray[np.object_], n_classes: int) -> dict[str, ZeroShot]:
    parts = {"": np.ones(len(domains), dtype=bool)}
    parts |= {domain: domains == domain for domain in dict.fromkeys(domains)}
    return {
        domain: _shares(Hits(*(column[part] for column in hits)), n_classes)
        for domain, part in parts.items()
    }


def _shares(hits: Hits, n_classes: int) -> ZeroShot:
    difference = Difference(math.nan, math.nan, math.nan)
    if binomial_tail(int(hits.raw[:, 0].sum()), len(hits.raw), 1 / n_classes) < 0.05:
        difference = paired_difference(hits.raw[:, 0], hits.sae[:, 0])
    return ZeroShot(
        n_images=len(hits.raw),
        n_classes=n_classes,
        raw_top1=float(hits.raw[:, 0].mean()),
        raw_top5=float(hits.raw[:, 1].mean()),
        sae_top1=float(hits.sae[:, 0].mean()),
        sae_top5=float(hits.sae[:, 1].mean()),
        kept_top1=float(hits.kept[:, 0].mean()),
        delta_top1=difference.delta,
        delta_low=difference.low,
        delta_high=difference.high,
    )
