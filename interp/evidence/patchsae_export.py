"""A store and an SAE -> the files that PatchSAE's analysis and steering read.

DIR/
    max_activating_image_indices.pt        (n_latents, 10) float32: rows of images.parquet
    max_activating_image_values.pt         (n_latents, 10) float32
    max_activating_image_label_indices.pt  (n_latents, 10) int64; only with classes, as there
    sae_mean_acts.pt                       (n_latents,) float32; NaN where never active
    sae_sparsity.pt                        (n_latents,) float32
    cls_sae_cnt.npy                        (n_classes, n_latents) float64; only with classes
    images.parquet                         row, image_id, path, domain, label, label_index
    export.json                            what this is (`ExportInfo`); written last

An image's value is the mean over all its tokens; row r of the tensors is the r-th image of the
store, where PatchSAE counts a shuffled data set. As there, a place without an image has value 0
and index 0. All tensors load with weights_only=True.
"""

from __future__ import annotations

import io
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from interp.evidence.stream.activations import EncodedStore, Encoder, Seen
from interp.evidence.stream.top_k import Ints, Largest, act_keys
from sae.core.errors import UserError
from sae.core.files import FORMAT, package_version, replacing, write_json
from sae.core.lock import LOCK, hold
from sae.core.output import require_own
from sae.core.progress import Progress
from sae.data.store import EmbeddingStore
from sae.model.identity import sae_identity
from sae.model.match import require_match

N_TOP = 10
THRESHOLD = 0.2
"""Activation from which on PatchSAE counts a token."""
INFO, UNFINISHED = "export.json", "export.unfinished.json"
MAX_EXACT = 1 << 24
"""Rows beyond are no whole float32 any more; the indices are then float64."""


@dataclass(frozen=True, kw_only=True)
class ExportInfo:
    """export.json."""

    format: int = FORMAT
    kind: str = "patchsae"
    version: str
    store_identity: str
    sae_identity: str
    n_images: int
    n_latents: int
    tokens_per_image: int
    threshold: float
    """A token counts in cls_sae_cnt.npy when its activation is above."""
    class_names: list[str]
    """By label index: sorted, as ImageFolder numbers them; [] without classes."""


@dataclass(frozen=True)
class _Classes:
    names: list[str]
    numbers: Ints
    """(n_images,) place in `names`; -1 without a class."""

    @classmethod
    def of(cls, labels: pd.Series[str]) -> _Classes:
        names = sorted(set(labels) - {""})
        found = pd.Index(names, dtype=object).get_indexer(pd.Index(labels))
        return cls(names, np.asarray(found, np.int64))


class Totals:
    """What is kept of the stream: it grows with latents and classes, not with images."""

    def __init__(self, n_latents: int, classes: _Classes, threshold: float) -> None:
        self.top = Largest(n_latents, N_TOP)
        self.sum_values = np.zeros(n_latents)
        self.n_active = np.zeros(n_latents, np.int64)
        """Images with a value above 0."""
        self.n_tokens = np.zeros((len(classes.names), n_latents), np.uint32)
        """By class, tokens above the threshold."""
        self._classes, self._threshold = classes, threshold

    def update(self, seen: Seen) -> None:
        """Take a batch in."""
        n_latents = len(self.n_active)
        images, latents, values = _image_values(seen, n_latents)
        active = values > 0
        images, latents, values = images[active], latents[active], values[active]
        keys = act_keys(values, np.zeros(len(values), np.uint64))
        self.top.update(latents, keys, seen.rows[images], values)
        np.add.at(self.sum_values, latents, values)
        np.add.at(self.n_active, latents, 1)
        if self._classes.names:
            self._count(seen)

    def _count(self, seen: Seen) -> None:
        image, token, place = torch.nonzero(seen.acts > self._threshold, as_tuple=True)
        latents = seen.latents[image, token, place].cpu().numpy()
        classes = self._classes.numbers[seen.rows][image.cpu().numpy()]
        known = classes >= 0
        np.add.at(self.n_tokens, (classes[known], latents[known]), 1)


def export_patchsae(
    store: EmbeddingStore,
    model: Encoder,
    out: Path,
    device: str | torch.device = "cpu",
    threshold: float = THRESHOLD,
    progress: Progress | None = None,
) -> ExportInfo:
    """One pass over the store; then the files above. Files of an earlier export are replaced.

    Raises `UserError` when store and SAE do not fit, or `out` is a file.
    """
    require_match(model.config, store.info)
    require_own(
        out, "export", any((out / name).exists() for name in (INFO, UNFINISHED)), "--export"
    )
    if not threshold >= 0:
        raise UserError(f"the threshold is {threshold}; it must be at least 0")
    with closing(hold(out / LOCK)):
        write_json(out / UNFINISHED, {"format": FORMAT})
        (out / INFO).unlink(missing_ok=True)
        info = _export(store, model, out, device, threshold, progress)
        write_json(out / INFO, info)
        (out / UNFINISHED).unlink(missing_ok=True)
    return info


def _export(
    store: EmbeddingStore,
    model: Encoder,
    out: Path,
    device: str | torch.device,
    threshold: float,
    progress: Progress | None,
) -> ExportInfo:
    classes = _Classes.of(store.images["label"].astype(str))
    totals = Totals(model.n_latents, classes, threshold)
    for seen in EncodedStore.of(store, model, device).batches(progress=progress):
        totals.update(seen)
    _write(out, totals, classes, store)
    return ExportInfo(
        version=package_version(),
        store_identity=store.info.identity,
        sae_identity=sae_identity(model),
        n_images=store.info.n_images,
        n_latents=model.n_latents,
        tokens_per_image=store.info.tokens_per_image,
        threshold=threshold,
        class_names=classes.names,
    )


def _image_values(seen: Seen, n_latents: int) -> tuple[Ints, Ints, NDArray[np.float32]]:
    """Place in the batch, latent, and mean over all tokens, of the pairs that any token has."""
    n, t, k = seen.acts.shape
    image = torch.arange(n, device=seen.acts.device).view(n, 1, 1).expand(n, t, k)
    pairs = (image * n_latents + seen.latents).flatten()
    distinct, where = torch.unique(pairs, return_inverse=True)
    total = torch.zeros(len(distinct), dtype=torch.float32, device=seen.acts.device)
    total.index_add_(0, where, seen.acts.flatten().float())
    flat = distinct.cpu().numpy()
    return flat // n_latents, flat % n_latents, (total / t).cpu().numpy()


def _write(out: Path, totals: Totals, classes: _Classes, store: EmbeddingStore) -> None:
    top, n_images = totals.top.result(), store.info.n_images
    rows = np.where(top.rows < 0, 0, top.rows)  # (n_latents, 10)
    values = np.where(top.rows < 0, np.float32(0), top.acts)
    indices = rows.astype(np.float32 if n_images <= MAX_EXACT else np.float64)
    with np.errstate(invalid="ignore"):
        mean_acts = (totals.sum_values / totals.n_active).astype(np.float32)
    tensors = {
        "max_activating_image_indices": torch.from_numpy(indices),
        "max_activating_image_values": torch.from_numpy(values),
        "sae_mean_acts": torch.from_numpy(mean_acts),
        "sae_sparsity": torch.from_numpy((totals.n_active / n_images).astype(np.float32)),
    }
    labels, counts = "max_activating_image_label_indices", out / "cls_sae_cnt.npy"
    if classes.names:
        tensors[labels] = torch.from_numpy(classes.numbers[rows])
    else:
        (out / f"{labels}.pt").unlink(missing_ok=True)
        counts.unlink(missing_ok=True)
    for name, tensor in tensors.items():
        with replacing(out / f"{name}.pt") as part:
            buffer = io.BytesIO()  # of a full disk torch says what nobody understands
            torch.save(tensor, buffer)
            part.write_bytes(buffer.getbuffer())
    if classes.names:
        with replacing(counts) as part, part.open("wb") as file:
            np.save(file, totals.n_tokens.astype(np.float64), allow_pickle=False)
    images = store.images[["image_id", "path", "domain", "label"]].reset_index(drop=True)
    images.insert(0, "row", np.arange(n_images))
    with replacing(out / "images.parquet") as part:
        images.assign(label_index=classes.numbers).to_parquet(part, index=False)
