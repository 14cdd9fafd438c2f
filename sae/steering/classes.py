"""An SAE and a store -> which latents belong to each class: cls_sae_cnt.npy, classes.parquet."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from sae.core.csv_cells import mark_label, read_cell
from sae.core.errors import UserError
from sae.core.files import package_version, replacing_folder, write_json
from sae.core.output import require_own
from sae.core.progress import Progress
from sae.data.classes.config import ClassConfig, ClassInfo
from sae.data.classes.latents import (
    COLUMNS,
    COUNTS,
    INFO,
    MEANS,
    TABLE,
    Floats,
    Ints,
    Ranking,
    lift,
    rank_latents,
)
from sae.data.classes.names import class_name, class_names
from sae.data.store import EmbeddingStore
from sae.model.identity import sae_identity
from sae.model.match import require_match
from sae.model.sae import SAE, Codes

_MAX_CELLS = 1 << 26
"""Tokens times latents at once: 256 MB of pre-activations."""


class ClassCounts(NamedTuple):
    """What was counted of each class."""

    names: list[str]
    n_images: Ints  # (n_classes,)
    counts: Floats  # (n_classes, n_latents): tokens above the threshold
    means: Floats  # (n_classes, n_latents): mean over the images of the pooled activation


def find_class_latents(
    model: SAE,
    store: EmbeddingStore,
    out: Path,
    how: ClassConfig,
    labels: Path | None = None,
    progress: Progress | None = None,
) -> ClassInfo:
    """One pass over the labelled images of a store; then the files, complete or absent.

    `labels` is a run or its labels.csv: the words beside the latents. Raises `UserError` when SAE
    and store do not fit, there are fewer than two classes, or `out` holds something else.
    """
    require_match(model.config, store.info)
    require_own(out, "classes", (out / INFO).exists())
    words = read_latent_labels(labels, model.n_latents) if labels else [""] * model.n_latents
    found = count_by_class(model, store, how, progress)
    ranking = rank_latents(found.counts, found.means, found.n_images, how)
    info = ClassInfo(
        **asdict(how),
        version=package_version(),
        store_identity=store.info.identity,
        sae_identity=sae_identity(model),
        n_latents=model.n_latents,
        n_left_out=int(ranking.left_out.sum()),
        tokens_per_image=store.info.tokens_per_image,
        names=found.names,
        n_images=found.n_images.tolist(),
    )
    with replacing_folder(out) as folder:
        np.save(folder / COUNTS, found.counts.T, allow_pickle=False)
        np.save(folder / MEANS, found.means.T.astype(np.float32), allow_pickle=False)
        list_latents(found, ranking, how, words).to_parquet(folder / TABLE, index=False)
        write_json(folder / INFO, info)
    return info


def count_by_class(
    model: SAE, store: EmbeddingStore, how: ClassConfig, progress: Progress | None = None
) -> ClassCounts:
    """Run the SAE over all images that have a class. Memory grows with classes times latents."""
    if how.pool == "cls" and store.info.tokens == "patch":
        raise UserError(f"pool 'cls' needs CLS tokens, but {store.path} holds patches alone")
    names, numbers = number_classes(store)
    rows = np.flatnonzero(numbers >= 0)
    n_tokens = torch.zeros(len(names), model.n_latents, dtype=torch.float64)
    sums = torch.zeros_like(n_tokens)
    device = model.W_enc.device
    at_once = max(1, min(256, _MAX_CELLS // (model.n_latents * store.info.tokens_per_image)))
    n_done, is_seen = 0, np.zeros(len(numbers), np.bool_)
    for batch in store.batches(at_once, rows):
        with torch.inference_mode():
            codes = model.encode(batch.x.to(device).flatten(0, 1).float())
            above, pooled = _by_image(codes, len(batch.rows), model.n_latents, how)
        classes = torch.from_numpy(numbers[batch.rows])
        n_tokens.index_add_(0, classes, above.cpu().double())
        sums.index_add_(0, classes, pooled.cpu().double())
        n_done += len(batch.rows)
        is_seen[batch.rows] = True
        if progress is not None:
            progress(n_done, len(rows))
    n_images = np.bincount(numbers[is_seen], minlength=len(names))
    if not n_images.all():
        raise UserError(f"no image of class {names[n_images.argmin()]!r} can be read")
    n_pooled = n_images * (store.info.tokens_per_image if how.pool == "mean" else 1)
    means = sums.numpy() / n_pooled[:, None]
    # As float32 keeps them: what is read back ranks alike.
    return ClassCounts(names, n_images, n_tokens.numpy(), means.astype(np.float32).astype(float))


def number_classes(store: EmbeddingStore) -> tuple[list[str], Ints]:
    """The classes of a store as words, sorted, and the number of each image's; -1 without one.

    Raises `UserError` for fewer than two.
    """
    names = class_names(store.images["label"].unique())
    if len(names) < 2:
        raise UserError(
            f"{store.path} has {len(names)} classes; two are needed: embed folders of classes, "
            "or name them with `sae embed --classes FILE`"
        )
    place = {label: class_name(label) for label in store.images["label"].unique()}
    words = store.images["label"].map(place)
    return names, np.asarray(pd.Index(names, dtype=object).get_indexer(pd.Index(words)), np.int64)


def list_latents(
    found: ClassCounts, ranking: Ranking, how: ClassConfig, words: Sequence[str]
) -> pd.DataFrame:
    """classes.parquet: of each class its first latents that are active at all."""
    lifts = lift(found.means, found.n_images)
    scores = {"count": found.counts, "mean": found.means, "lift": lifts}[how.by]
    parts: list[pd.DataFrame] = []
    for number, name in enumerate(found.names):
        first = ranking.order[number, : how.top]
        first = first[~ranking.left_out[first] & (scores[number, first] > 0)]
        columns = (
            [name] * len(first),
            np.arange(1, len(first) + 1, dtype=np.int32),
            first.astype(np.int32),
            found.counts[number, first].astype(np.int64),
            found.means[number, first],
            lifts[number, first],
            [words[latent] for latent in first],
        )
        parts.append(pd.DataFrame(dict(zip(COLUMNS, columns, strict=True))))
    return pd.concat(parts, ignore_index=True).astype({"class": "str", "label": "str"})


def read_latent_labels(path: Path, n_latents: int) -> list[str]:
    """A label for each latent, "" without one, from a run or a CSV such as its labels.csv.

    Raises `UserError` for a table without the columns `latent_id` and `label` (or
    `interpretation`), or with a latent that the SAE does not have.
    """
    path = path / "labels.csv" if path.is_dir() else path
    words = [""] * n_latents
    if not path.exists():
        raise UserError(f"there is no {path}; `interp explain` writes it")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.DictReader(file)
            columns = lines.fieldnames or ()
            text = next((name for name in ("interpretation", "label") if name in columns), None)
            if text is None or "latent_id" not in columns:
                raise UserError(f"{path} has no columns latent_id and label")
            for line in lines:
                latent = int(line["latent_id"])
                if not 0 <= latent < n_latents:
                    raise UserError(f"{path}: the SAE has {n_latents} latents, none is {latent}")
                guess = "" if line.get("human_label") else line.get("verdict") or ""
                words[latent] = mark_label(read_cell(line[text] or ""), guess)
    except (OSError, TypeError, ValueError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as a table of labels: {error}") from None
    return words


def _by_image(
    codes: Codes, n_images: int, n_latents: int, how: ClassConfig
) -> tuple[Tensor, Tensor]:
    """(b, n_latents) both: tokens above the threshold, and the pooled activation (of the mean its
    sum)."""
    latents = codes.latents.view(n_images, -1, codes.latents.shape[1])  # (b, t, k)
    acts = codes.acts.float().view(latents.shape)
    above = acts.new_zeros(n_images, n_latents)
    pooled = torch.zeros_like(above)
    above.scatter_add_(1, latents.flatten(1), (acts > how.threshold).float().flatten(1))
    if how.pool == "max":
        pooled.scatter_reduce_(1, latents.flatten(1), acts.flatten(1), "amax")
    else:
        part = slice(0, 1) if how.pool == "cls" else slice(None)
        pooled.scatter_add_(1, latents[:, part].flatten(1), acts[:, part].flatten(1))
    return above, pooled
