"""Patches and their classes -> a linear head on the last block's patch tokens, and its mIoU."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sae.clip.store_images import run_to_layer
from sae.core.progress import Progress
from sae.data.store import EmbeddingStore
from sae.steering.fit_probe import fit_logistic
from sae.steering.probe import Probe, ProbeInfo
from sae.steering.segment.config import SegmentConfig
from sae.steering.segment.masks import IGNORED

if TYPE_CHECKING:
    from sae.clip.model import Clip, Halfway

BATCH_IMAGES = 64


def stopped_images(
    clip: Clip, store: EmbeddingStore, rows: NDArray[np.int64], progress: Progress | None = None
) -> Iterator[tuple[NDArray[np.int64], Halfway]]:
    """Some rows at a time, with the network stopped behind the store's layer."""
    for first in range(0, len(rows), BATCH_IMAGES):
        part = rows[first : first + BATCH_IMAGES]
        yield part, run_to_layer(clip, store, part)
        if progress is not None:
            progress(first + len(part), len(rows))


def fit_head(
    clip: Clip,
    store: EmbeddingStore,
    rows: NDArray[np.int64],
    truth: NDArray[np.uint8],
    names: Mapping[int, str],
    config: SegmentConfig,
    progress: Progress | None = None,
) -> Probe:
    """A head on the patches of `rows` with the classes `truth` (len(rows), patches), of which
    `names` are by number.

    Where there are more than `head_patches` that are not ignored, so many are drawn of them.
    """
    flat, n_patches = truth.ravel(), truth.shape[1]
    usable = np.flatnonzero(flat != IGNORED)
    if len(usable) > config.head_patches:
        rng = np.random.default_rng(config.seed)
        usable = np.sort(rng.choice(usable, config.head_patches, replace=False))
    parts, first = [], 0
    for part, halfway in stopped_images(clip, store, rows, progress):
        features = clip.finish(halfway, output="patches").flatten(0, 1)
        last = first + len(part) * n_patches
        wanted = usable[np.searchsorted(usable, first) : np.searchsorted(usable, last)]
        parts.append(features[torch.from_numpy(wanted - first)].cpu().numpy())
        first = last
    x, classes = np.concatenate(parts), np.array(list(names))
    y = np.searchsorted(classes, flat[usable])
    fitted = fit_logistic(x, y, np.zeros_like(y), len(classes), [config.c])
    info = ProbeInfo(
        reads="patches",
        clip=store.info.clip,
        clip_sha=clip.sha,
        d=x.shape[1],
        classes=list(names.values()),
        c=config.c,
        store=store.info.identity,
        holdout=config.holdout,
        n_train=len(x),
        n_test=0,
        accuracy=None,
        accuracy_low=None,
        accuracy_high=None,
    )
    weight, bias = torch.from_numpy(fitted.weight), torch.from_numpy(fitted.bias)
    return Probe(weight, bias, tuple(info.classes), info)


def predict_pixels(logits: Tensor, grid: Sequence[int], size: tuple[int, int]) -> Tensor:
    """(b, patches, n_classes) -> (b, *size): the class of the largest logit, bilinear between
    the patches' middles.
    """
    b, _, n_classes = logits.shape
    maps = logits.transpose(1, 2).reshape(b, n_classes, *grid)
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False).argmax(1)


def count_pixels(
    predicted: NDArray[np.int64], truth: NDArray[np.uint8], classes: Sequence[int]
) -> NDArray[np.int64]:
    """(n_classes, n_classes) pixels by true and predicted class; ignored ones count nowhere."""
    n = len(classes)
    counted = truth != IGNORED
    places = np.searchsorted(np.asarray(classes), truth[counted])
    cells = places * n + predicted[counted]
    return np.bincount(cells, minlength=n * n).reshape(n, n)


def iou_of(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """(n_classes,) intersection over union; NaN for a class that no pixel has."""
    right, true = np.diag(confusion), confusion.sum(1)
    union = true + confusion.sum(0) - right
    return np.where(true > 0, right / np.maximum(union, 1), np.nan)
