"""An SAE on patches, a store and masks -> a head, each class's latent, and what setting it does."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from sae.clip.store_images import require_same_weights
from sae.core.errors import Notice, UserError
from sae.core.progress import Progress
from sae.core.shares import wilson_interval
from sae.data.split import holdout_rows
from sae.data.store import EmbeddingStore
from sae.model.match import require_match
from sae.model.sae import SAE
from sae.steering.probe import Probe
from sae.steering.segment.config import SegmentConfig
from sae.steering.segment.head import (
    count_pixels,
    fit_head,
    iou_of,
    predict_pixels,
    stopped_images,
)
from sae.steering.segment.masks import IGNORED, Masks
from sae.steering.segment.select import (
    THRESHOLDS,
    ClassLatent,
    choose_latents,
    count_hits,
    f1_of,
    measure_latents,
)
from sae.steering.segment.steer import Counts, Steered, plan_steering, steer_images

if TYPE_CHECKING:
    from sae.clip.model import Clip


class Part(NamedTuple):
    """Images of one side of the split."""

    rows: NDArray[np.int64]
    truth: NDArray[np.uint8]  # (len(rows), patches)


@dataclass(frozen=True)
class Segmented:
    """All that is reported."""

    head: Probe
    names: dict[int, str]
    """Of the head's classes, by number."""
    chosen: list[ClassLatent]
    """Of the classes that are reported on: without 0, and shown on both sides."""
    plans: list[Steered]
    f1: list[float]
    """Of each on the held-out images."""
    iou: NDArray[np.float64]  # (classes of the head,)
    counts: Counts
    n_train: int
    """Images."""
    n_test: int

    @property
    def miou(self) -> float:
        """Mean over the classes that held-out images show, without 0."""
        shown = self.iou[[number != 0 for number in self.names]]
        return float(np.nanmean(shown))


def segment(
    model: SAE,
    store: EmbeddingStore,
    clip: Clip,
    masks: Masks,
    config: SegmentConfig,
    progress: Progress | None = None,
) -> Segmented:
    """Fit on the training part, report on the held-out images.

    Raises `UserError` for an SAE of another layer, a store without patches, masks that do not fit,
    and where no class is left.
    """
    require_patches(model, store)
    require_same_weights(clip, store)
    model, device = model.to(clip.device).eval(), clip.device
    train, test = _split(store, masks, config.holdout)
    classes, reported = _classes(train, test, masks)
    names = {number: masks.name(number) for number in classes}
    head = fit_head(clip, store, *train, names, config, progress)
    figures = measure_latents(model, store, train.rows, device)
    chosen = choose_latents(model, store, *train, reported, figures, config.max_frequency, device)
    plans = plan_steering(chosen, classes, figures, config, model.d)
    found = _evaluate(model, store, clip, masks, head, test, plans, classes, progress)
    assert head.info is not None
    low, high = wilson_interval(found.n_right, found.n_patches)
    info = replace(
        head.info,
        n_test=found.n_patches,
        accuracy=found.n_right / found.n_patches,
        accuracy_low=low,
        accuracy_high=high,
    )
    f1 = _held_out_f1(model, store, test, chosen, figures.most, device)
    iou = iou_of(found.confusion)
    sides = len(train.rows), len(test.rows)
    return Segmented(head._replace(info=info), names, chosen, plans, f1, iou, found.counts, *sides)


class Found(NamedTuple):
    """What one pass over the held-out images gives."""

    counts: Counts
    confusion: NDArray[np.int64]
    n_right: int
    """Patches whose class the head predicts, of `n_patches`."""
    n_patches: int


def _evaluate(
    model: SAE,
    store: EmbeddingStore,
    clip: Clip,
    masks: Masks,
    head: Probe,
    test: Part,
    plans: Sequence[Steered],
    classes: Sequence[int],
    progress: Progress | None,
) -> Found:
    n = len(classes)
    counts, confusion = Counts(len(plans)), np.zeros((n, n), np.int64)
    n_right, done = 0, 0
    for rows, halfway in stopped_images(clip, store, test.rows, progress):
        truth = test.truth[done : done + len(rows)]
        logits = head.logits(clip.finish(halfway, output="patches"))  # (b, patches, n)
        before = logits.argmax(2).cpu().numpy()
        steer_images(model, clip, head, halfway, truth, before, plans, counts)
        pixels = np.stack([masks.read(int(row)).pixels for row in rows])
        pixels[~np.isin(pixels, classes)] = IGNORED
        predicted = predict_pixels(logits, store.info.grid, pixels.shape[1:])
        confusion += count_pixels(predicted.cpu().numpy(), pixels, classes)
        n_right += int((np.asarray(classes)[before] == truth).sum())
        done += len(rows)
    return Found(counts, confusion, n_right, int((test.truth != IGNORED).sum()))


def require_patches(model: SAE, store: EmbeddingStore) -> None:
    """Raise `UserError` unless the SAE is of the store's layer, and both are of patch tokens."""
    require_match(model.config, store.info)
    if model.config.tokens == "cls":
        raise UserError("this SAE reads the CLS token alone; masks need one on patch tokens")
    if not store.info.grid or store.info.tokens == "cls":
        raise UserError(
            f"{store.path} has no patch tokens; embed with --layer BLOCK --tokens patch"
        )


def _split(store: EmbeddingStore, masks: Masks, holdout: float) -> tuple[Part, Part]:
    """The images that have a mask: training part and held-out part."""
    rows = masks.rows()
    truth = np.stack([masks.read(int(row)).patches.ravel() for row in rows])
    held_out = holdout_rows(store.images.iloc[rows], holdout)
    parts = Part(rows[~held_out], truth[~held_out]), Part(rows[held_out], truth[held_out])
    for part, words in zip(parts, ("is left to fit on", "is held out"), strict=True):
        if not len(part.rows):
            raise UserError(
                f"of {len(rows)} images with a mask none {words}; change --holdout {holdout:g}"
            )
    return parts


def _classes(train: Part, test: Part, masks: Masks) -> tuple[list[int], list[int]]:
    """Those of the head, and those that are reported on: without 0, on patches of both sides.

    What only held-out images show is ignored there.
    """
    sides = [set(np.unique(part.truth).tolist()) - {IGNORED} for part in (train, test)]
    for alone, others, words in (
        (sides[0], sides[1], "training images; nothing is reported of them"),
        (sides[1], sides[0], "held-out images; they are ignored"),
    ):
        if lost := sorted(alone - others - {0}):
            told = ", ".join(f"{number} ({masks.name(number)})" for number in lost)
            warnings.warn(f"classes shown by {words}: {told}", Notice, stacklevel=2)
    test.truth[~np.isin(test.truth, list(sides[0]))] = IGNORED
    reported = sorted((sides[0] & sides[1]) - {0})
    if not reported or len(sides[0]) < 2:
        raise UserError(
            "no class is left: a class needs patches in training images and in held-out ones, and "
            "another class (or 0, the background) beside it"
        )
    return sorted(sides[0]), reported


def _held_out_f1(
    model: SAE,
    store: EmbeddingStore,
    test: Part,
    chosen: Sequence[ClassLatent],
    most: NDArray[np.float32],
    device: torch.device,
) -> list[float]:
    numbers = [one.number for one in chosen]
    hits, named = count_hits(model, store, *test, numbers, most, device)
    found = []
    for place, one in enumerate(chosen):
        at = THRESHOLDS.index(one.threshold)
        n_class = int((test.truth == one.number).sum())
        f1 = f1_of(hits[at, place, one.latent], named[at, one.latent], n_class)
        found.append(float(f1))
    return found
