"""Latents that were written down (latents.npy) -> what stands in the place of an SAE."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from interp.evidence.stream.activations import Encoder
from sae.core.errors import UserError, quote
from sae.core.places import kind_of, refuse_place
from sae.core.progress import Progress
from sae.data.formats import dense
from sae.data.sources.folders import parse_domains
from sae.data.store import EmbeddingStore
from sae.interchange.load import load
from sae.model.sae import SAEConfig
from sae.model.sparsity import Codes

N_COMPARED = 2048
"""Images on which two latents are compared: there is no decoder that tells which are near."""


class WrittenLatents:
    """What an `SAE` is for `collect`, where a store's embeddings are the latents themselves."""

    def __init__(self, store: EmbeddingStore) -> None:
        n = store.info.d
        self.config = SAEConfig(d=n, n_latents=n, k=0, activation="relu", source=dense.NAME)
        self.n_latents = n
        self._store = store

    @property
    def W_dec(self) -> Tensor:
        """(n_latents, up to 2048): what stands for a latent's direction is its activation on images
        drawn from all of the store. Near are those that answer to the same images.
        """
        n_images = self._store.info.n_images
        chosen = np.random.default_rng(0).choice(n_images, min(n_images, N_COMPARED), replace=False)
        return self._store.read(np.sort(chosen))[:, 0].float().clamp(min=0).T.contiguous()

    def encode(self, x: Tensor) -> Codes:
        """x (n, n_latents): those above 0, largest first; padded with activation 0."""
        k = int((x > 0).sum(1).amax()) if len(x) else 0
        found = x.clamp(min=0).topk(max(1, k), dim=1)
        return Codes(found.values, found.indices)

    def state_dict(self) -> dict[str, Tensor]:
        """No weights: the number of latents alone tells one from another of the same store."""
        return {"n_latents": torch.tensor(self.n_latents)}


def open_subject(sae: Path, store: Path | EmbeddingStore | None) -> tuple[EmbeddingStore, Encoder]:
    """What to collect from, and what says which latents are active.

    Without a store `sae` is a place of written latents. Raises `UserError` when it is not.
    """
    if store is not None:
        opened = store if isinstance(store, EmbeddingStore) else EmbeddingStore.open(store)
        return opened, load(sae)
    if kind_of(sae) in ("missing", "images", "run", "world"):
        raise refuse_place(sae, "SAE")
    if not (sae / "store.json").exists() and dense.find(sae) is None:
        raise UserError(
            f"{sae} has no {dense.ARRAY}, which alone needs no SAE: "
            f"name a store too, `interp collect {quote(sae)} STORE`"
        )
    opened = EmbeddingStore.open(sae)
    if opened.info.layer != dense.LAYER:
        raise UserError(
            f"{sae} is a store of embeddings: name an SAE, `interp collect SAE {quote(sae)}`"
        )
    return opened, WrittenLatents(opened)


def take_images(
    sae: Path,
    store: Path | None,
    run_dir: Path,
    images: Sequence[str],
    domain: str,
    follow_links: bool,
    progress: Progress,
) -> tuple[Path, Path | None]:
    """`sae` and `store`, of which the store now knows where its images are.

    A store of ours takes them as its roots. Foreign embeddings become a store in the run. Raises
    `UserError` when they are not the images of the store.
    """
    from sae.data.adopt import adopt
    from sae.data.roots import confirm

    source = sae if store is None else store
    if (source / "store.json").exists():
        confirm(source, images, follow_links)
        return sae, store
    roots = parse_domains([item if "=" in item else f"{domain}={item}" for item in images])
    if len(roots) > 1:
        raise UserError(f"{source} is of one folder of images; give one --images")
    place = run_dir / "store"
    for name, root in roots.items():
        adopt(source, place, None, root, name, progress)
    return (place, None) if store is None else (sae, place)
