"""classes.json, classes.parquet and cls_sae_cnt.npy -> which latents each class has, and in order.

DIR/
    cls_sae_cnt.npy    (n_latents, n_classes) float64: tokens of the class above the threshold
    cls_sae_mean.npy   (n_latents, n_classes) float32: mean over the class's images, pooled
    classes.parquet    class, rank, latent, count, mean, lift, label
    classes.json       what this is (`ClassInfo`); written last

PatchSAE's cls_sae_cnt.npy, which lies the other way, is read too, and `interp collect --export
patchsae`'s with its export.json.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sae.core.errors import UserError, quote
from sae.core.files import read_config
from sae.data.classes.config import ClassConfig, ClassInfo
from sae.data.classes.names import class_name, class_names
from sae.data.table import Kind, read_frame
from sae.untrusted.json_file import json_object
from sae.untrusted.npy_file import mapped_array

if TYPE_CHECKING:
    import pandas as pd

COUNTS, MEANS, TABLE, INFO = (
    "cls_sae_cnt.npy",
    "cls_sae_mean.npy",
    "classes.parquet",
    "classes.json",
)
EXPORT = "export.json"
"""Of `interp collect --export patchsae`."""
COLUMNS: dict[str, Kind] = {
    "class": "text",
    **dict.fromkeys(("rank", "latent", "count"), "whole"),
    **dict.fromkeys(("mean", "lift"), "number"),
    "label": "text",
}
"""Of classes.parquet."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class ClassLatents(NamedTuple):
    """What is known of the latents of some classes."""

    names: list[str]
    counts: Floats  # (n_classes, n_latents)
    order: Ints  # (n_classes, n_latents): all latents, the class's first one first


class Ranking(NamedTuple):
    """All latents in the order of each class."""

    order: Ints  # (n_classes, n_latents)
    left_out: NDArray[np.bool_]  # (n_latents,): these come last in every order


def rank_latents(counts: Floats, means: Floats, n_images: Ints, how: ClassConfig) -> Ranking:
    """Rank by `how.by`, then by the mean, then by number; those in too many lists come last."""
    scores = {"count": counts, "mean": means}.get(how.by)
    return _rank(lift(means, n_images) if scores is None else scores, means, how)


def lift(means: Floats, n_images: Ints) -> Floats:
    """A class's means over those of all images; 0 where a latent is silent on all."""
    sums = n_images[:, None] * means
    total = sums.sum(0)
    # Of latents that one class alone has, the share is 1 without rounding: they rank alike.
    share = np.divide(sums, total, out=np.zeros_like(means), where=total > 0)
    found: Floats = share * (n_images.sum() / n_images)[:, None]
    return found


def read_info(folder: Path) -> ClassInfo:
    """Read classes.json. Raises `UserError` where `sae classes` has not finished."""
    remedy = f"`sae classes SAE STORE --out {quote(folder)}` writes it"
    return read_config(folder / INFO, ClassInfo, remedy)


def read_table(folder: Path, info: ClassInfo) -> pd.DataFrame:
    """classes.parquet. Raises `UserError` where its classes are not those of classes.json."""
    remedy = f"run `sae classes SAE STORE --out {quote(folder)}` again"
    table = read_frame(folder / TABLE, COLUMNS, remedy)
    stray = sorted(set(table["class"]) - set(info.names))
    if stray:
        raise UserError(f"{folder / TABLE} has the class {stray[0]!r}, {INFO} has not; {remedy}")
    latents = table["latent"]
    if len(latents) and not 0 <= latents.min() <= latents.max() < info.n_latents:
        raise UserError(f"{folder / TABLE} has latents beyond {info.n_latents - 1}; {remedy}")
    return table


def read_class_latents(
    folder: Path, n_latents: int, sae_identity: str, labels: Iterable[str]
) -> ClassLatents:
    """All latents in the order of each class, from a folder of ours or of PatchSAE's.

    A file of PatchSAE's without names counts the store's folders, whose `labels` are given, in the
    order of their names. Raises `UserError` where the files are not of this SAE, or do not agree
    with each other.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; `sae classes SAE STORE --out DIR` writes one")
    if not (folder / INFO).exists():
        return _read_patchsae(folder, n_latents, labels)
    info = read_info(folder)
    _require_sae(folder, info, n_latents, sae_identity)
    read_table(folder, info)
    counts = read_counts(folder / COUNTS, n_latents, len(info.names))
    means = read_counts(folder / MEANS, n_latents, len(info.names))
    order = rank_latents(counts, means, np.array(info.n_images), info).order
    return ClassLatents(info.names, counts, order)


def read_counts(path: Path, n_latents: int, n_classes: int, first: str = "latents") -> Floats:
    """(n_classes, n_latents), whichever of the two is the file's first axis.

    Where both are equal, `first` says which it is: "latents" or "classes"; "" refuses. Raises
    `UserError` for other shapes, and for what is no count.
    """
    array = mapped_array(path)
    wanted = (n_latents, n_classes)
    if array.shape not in (wanted, wanted[::-1]) or array.dtype.kind not in "fiu":
        raise UserError(
            f"{path} holds {array.shape} {array.dtype}, but the SAE has {n_latents} latents and "
            f"there are {n_classes} classes; run `sae classes` with this SAE"
        )
    if n_latents == n_classes and not first:
        raise UserError(
            f"{path} has as many classes as latents, so that nothing says which axis is which; "
            "run `sae classes`"
        )
    turned = array.shape == wanted and (n_latents != n_classes or first == "latents")
    values = np.asarray(array.T if turned else array, np.float64)
    if not np.isfinite(values).all() or (values < 0).any():
        raise UserError(f"{path} has values that are no counts: negative, infinite or NaN")
    return values


def _rank(scores: Floats, means: Floats, how: ClassConfig) -> Ranking:
    first = np.argsort(-means, axis=1, kind="stable")
    again = np.argsort(-np.take_along_axis(scores, first, 1), axis=1, kind="stable")
    order = np.take_along_axis(first, again, 1)
    listed = np.zeros(scores.shape[1], np.int64)
    for latents, score in zip(order[:, : how.top], scores, strict=True):
        listed[latents[score[latents] > 0]] += 1
    left_out = listed > how.max_classes * len(scores)
    last = np.argsort(left_out[order], axis=1, kind="stable")
    return Ranking(np.take_along_axis(order, last, 1), left_out)


def _require_sae(folder: Path, info: ClassInfo, n_latents: int, sae_identity: str) -> None:
    if info.n_latents != n_latents:
        raise UserError(
            f"{folder / INFO} is of an SAE with {info.n_latents} latents, this one has "
            f"{n_latents}; run `sae classes` with this SAE"
        )
    if info.sae_identity != sae_identity:
        raise UserError(f"{folder / INFO} is of another SAE; run `sae classes` with this one")
    if len(info.n_images) != len(info.names) or len(set(info.names)) != len(info.names):
        raise UserError(f"{folder / INFO} names a class twice, or not each with its images")


def _read_patchsae(folder: Path, n_latents: int, labels: Iterable[str]) -> ClassLatents:
    """Ranked by the count; folders of the same class are added up."""
    exported = (folder / EXPORT).exists()
    folders = _export_names(folder / EXPORT) if exported else sorted(set(labels) - {""})
    counts = read_counts(folder / COUNTS, n_latents, len(folders), "classes" if exported else "")
    names = class_names(folders)
    of_class = np.zeros((len(names), n_latents))
    np.add.at(of_class, [names.index(class_name(label)) for label in folders], counts)
    return ClassLatents(names, of_class, np.argsort(-of_class, axis=1, kind="stable"))


def _export_names(path: Path) -> list[str]:
    names = json_object(path).get("class_names")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path} has no list `class_names`")
    return names
