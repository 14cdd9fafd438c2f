"""A store's images and classes -> a linear probe, fitted by scikit-learn on what CLIP pools."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from sae.clip.store_images import read_store_image, require_same_weights
from sae.core.errors import Notice, UserError
from sae.core.progress import Progress
from sae.core.shares import wilson_interval
from sae.data.classes.names import class_name
from sae.data.split import fraction, holdout_rows
from sae.data.store import EmbeddingStore
from sae.steering.probe import Probe, ProbeInfo

if TYPE_CHECKING:
    from sae.clip.model import Clip

N_FOLDS = 5
BATCH_IMAGES = 64
MAX_STEPS = 1000


def fit_probe(
    store: EmbeddingStore,
    clip: Clip,
    holdout: float,
    cs: Sequence[float],
    progress: Progress | None = None,
) -> Probe:
    """Fit classes on the pooled vectors (after the last norm, before the projection) of a store.

    C is the one of the best mean accuracy over five folds. Which images are held out, and in which
    fold one is, its content alone decides. Raises `UserError` with fewer than two classes.
    """
    require_same_weights(clip, store)
    labels = np.array([class_name(label) for label in store.images["label"]], dtype=object)
    rows = np.flatnonzero(labels != "")
    held_out = holdout_rows(store.images.iloc[rows], holdout)
    classes = sorted(set(labels[rows[~held_out]]))
    if len(classes) < 2:
        raise UserError(
            f"{store.path} has {len(classes)} classes in the images to fit on; a probe needs two: "
            "folders of images named after their classes"
        )
    numbers = {name: number for number, name in enumerate(classes)}
    truth = np.array([numbers.get(label, -1) for label in labels[rows]])
    x = _pooled(store, clip, rows, progress)  # (n, width)
    ids = store.images["image_id"].iloc[rows]
    folds = np.array([int(fraction(image_id, "split") * N_FOLDS) for image_id in ids])
    train = ~held_out
    fitted = fit_logistic(x[train], truth[train], folds[train], len(classes), cs)
    weight, bias = torch.from_numpy(fitted.weight), torch.from_numpy(fitted.bias)
    probe = Probe(weight, bias, tuple(classes))
    right = probe.logits(torch.from_numpy(x[held_out])).argmax(1).numpy() == truth[held_out]
    info = ProbeInfo(
        reads="pooled",
        clip=store.info.clip,
        clip_sha=clip.sha,
        d=x.shape[1],
        classes=classes,
        c=fitted.c,
        cv_accuracy={f"{c:g}": accuracy for c, accuracy in fitted.cv_accuracy.items()},
        store=store.info.identity,
        holdout=holdout,
        n_train=int(train.sum()),
        n_test=len(right),
        accuracy=None,
        accuracy_low=None,
        accuracy_high=None,
    )
    return probe._replace(
        info=_with_accuracy(info, right, store.images["domain"].iloc[rows[held_out]])
    )


class Fitted(NamedTuple):
    """A multinomial logistic regression on raw vectors."""

    weight: NDArray[np.float32]  # (n_classes, d)
    bias: NDArray[np.float32]  # (n_classes,)
    c: float
    cv_accuracy: dict[float, float]
    """Empty where there was one C alone."""


def fit_logistic(
    x: NDArray[np.float32],
    y: NDArray[np.int64],
    folds: NDArray[np.int64],
    n_classes: int,
    cs: Sequence[float],
) -> Fitted:
    """scikit-learn's logistic regression of the classes y (n,) on x (n, d), each dimension
    standardised; of several `cs` the one of the best mean accuracy over the `folds` (n,).

    Equal accuracies: the smaller C, which penalises more.
    """
    mean, deviation = x.mean(0), x.std(0)
    deviation[deviation == 0] = 1
    z = (x - mean) / deviation
    accuracies: dict[float, float] = {}
    if len(cs) > 1:
        parts = [folds == fold for fold in np.unique(folds)]
        for c in sorted(cs):
            shares = [_share_right(z, y, part, c) for part in parts if len(set(y[~part])) > 1]
            accuracies[c] = float(np.mean(shares)) if shares else 0.0
    c = max(sorted(accuracies), key=accuracies.__getitem__, default=cs[0])
    model = _fit(z, y, c)
    weight = np.zeros((n_classes, x.shape[1]))
    # A class that is not there never wins.
    bias = np.full(n_classes, -1e4)
    two = len(model.classes_) == 2  # then scikit-learn has one row: the log odds of the second
    coefficients, intercepts = model.coef_, model.intercept_
    weight[model.classes_] = np.vstack([-coefficients, coefficients]) / 2 if two else coefficients
    bias[model.classes_] = np.hstack([-intercepts, intercepts]) / 2 if two else intercepts
    weight /= deviation
    bias -= weight @ mean
    return Fitted(weight.astype(np.float32), bias.astype(np.float32), c, accuracies)


def _share_right(
    z: NDArray[np.float32], y: NDArray[np.int64], part: NDArray[np.bool_], c: float
) -> float:
    return float((_fit(z[~part], y[~part], c).predict(z[part]) == y[part]).mean())


def _fit(z: NDArray[np.float32], y: NDArray[np.int64], c: float) -> Any:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = LogisticRegression(C=c, max_iter=MAX_STEPS).fit(z, y)
    if model.n_iter_.max() >= MAX_STEPS:
        told = f"the logistic regression with C {c:g} is not at its optimum after {MAX_STEPS} steps"
        warnings.warn(told, Notice, stacklevel=2)
    return model


def _pooled(
    store: EmbeddingStore, clip: Clip, rows: NDArray[np.int64], progress: Progress | None
) -> NDArray[np.float32]:
    """(n, width)."""
    clip.grid()  # a tower without blocks is refused by its name
    last = str(clip.n_blocks - 1)
    parts = []
    for first in range(0, len(rows), BATCH_IMAGES):
        part = rows[first : first + BATCH_IMAGES]
        images = [read_store_image(store, int(row)) for row in part]
        pixels = torch.stack([clip.preprocess(image) for image in images])
        parts.append(clip.finish(clip.run_to(pixels, last), output="pooled").cpu().numpy())
        if progress is not None:
            progress(min(first + BATCH_IMAGES, len(rows)), len(rows))
    return np.concatenate(parts)


def _with_accuracy(info: ProbeInfo, right: NDArray[np.bool_], domains: Any) -> ProbeInfo:
    if not len(right):
        return info
    low, high = wilson_interval(int(right.sum()), len(right))
    named = {name: float(right[domains == name].mean()) for name in dict.fromkeys(domains)}
    share = float(right.mean())
    return replace(info, accuracy=share, accuracy_low=low, accuracy_high=high, by_domain=named)
