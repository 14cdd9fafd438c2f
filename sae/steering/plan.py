"""The latents of classes and a store's images -> who is steered with which latents, on what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from sae.core.errors import UserError
from sae.core.files import did_you_mean
from sae.data.classes.latents import Floats, Ints
from sae.data.store import EmbeddingStore
from sae.model.sae import SAE
from sae.steering.config import SteerConfig
from sae.steering.control import draw_controls

KS = (1, 2, 5, 10, 50, 100, 500, 1000, 2000)
"""PatchSAE's; the SAE's own number of latents comes last."""
PLAIN, CONTROL = "no_sae", "control_"
_AT_ONCE = 64

Bools = NDArray[np.bool_]


class Configuration(NamedTuple):
    """One way to change the codes."""

    name: str  # "no_sae", "on_5", "off_5", "control_off_5"
    k: int  # 0 for "no_sae"

    @property
    def takes_out(self) -> bool:
        """Whether its latents are set to 0; else all others are."""
        return "off_" in self.name


class Sets(NamedTuple):
    """Sets of latents, for each class that can be steered."""

    rows: Ints  # (n_classes,) place of a class below; -1 for one that is not steered
    mass: Floats  # (n, n_latents) activation on the class's own images
    chosen: dict[int, Ints]  # by k (n, k): the class's first latents
    control: dict[int, Ints]  # by k (n, k): random others; only of the k that have them

    def latents(self, which: Configuration) -> Ints:
        """(n, k): those that a configuration keeps or takes out."""
        return (self.control if which.name.startswith(CONTROL) else self.chosen)[which.k]

    def members(self, which: Configuration, classes: Ints) -> Bools:
        """(len(classes), n_latents): the same as masks, of some classes."""
        found = np.zeros((len(classes), self.mass.shape[1]), bool)
        np.put_along_axis(found, self.latents(which)[self.rows[classes]], True, 1)
        return found

    def share(self, which: Configuration) -> Floats:
        """(n,): the part of a class's mass that those latents have; NaN for no_sae."""
        share: Floats = np.full(len(self.mass), np.nan)
        if which.k:
            part = np.take_along_axis(self.mass, self.latents(which), 1).sum(1)
            total = self.mass.sum(1)
            np.divide(part, total, out=share, where=total > 0)
        return share


class Pairs(NamedTuple):
    """Which images are looked at for which class."""

    images: Ints  # (p,) places among the chosen rows, ascending
    classes: Ints  # (p,) numbers of the steered classes
    own: Bools  # (p,) whether the image is of the class


def choose_ks(ks: Sequence[int], n_latents: int) -> list[int]:
    """PatchSAE's numbers that the SAE has and all its latents; or those asked for, rising."""
    for k in ks:
        if not 1 <= k <= n_latents:
            raise UserError(f"--k {k} is not in 1..{n_latents}, the SAE's latents")
    return sorted(set(ks)) or [*(k for k in KS if k < n_latents), n_latents]


def number_steered(known: list[str], there: Sequence[str], only: Sequence[str]) -> Ints:
    """Numbers of the classes to steer, among those `known`; `there` are the store's.

    Raises `UserError` for a class in `only` that one of them lacks; without `only`, for any.
    """
    for name in only:
        if name not in known:
            near = did_you_mean(name, known)
            raise UserError(f"--class {name!r} is no class of --classes-from{near}")
    both = "take those that both have with --class"
    for name in only or known:
        if name not in there:
            raise UserError(
                f"the class {name!r} of --classes-from has no image in the store; {both}"
            )
    for name in () if only else there:
        if name not in known:
            raise UserError(
                f"the class {name!r} of the store is not in --classes-from; run `sae classes` on "
                f"this store, or {both}"
            )
    return np.array([known.index(name) for name in dict.fromkeys(only)] or range(len(known)))


def choose_images(ids: NDArray[np.object_], truth: Ints, n_images: int) -> Ints:
    """Rows, ascending: of each class those with the least content hashes; 0: all of them."""
    chosen = []
    for number in np.unique(truth[truth >= 0]):
        rows = np.flatnonzero(truth == number)
        chosen.append(rows[np.argsort(ids[rows], kind="stable")][: n_images or None])
    return np.sort(np.concatenate(chosen))


def pair_images(ids: NDArray[np.object_], truth: Ints, steered: Ints, n_others: int) -> Pairs:
    """All images of each class, and of the other classes those with the least content hashes."""
    by_hash = np.argsort(ids, kind="stable")
    images, classes = [], []
    for number in steered:
        others = by_hash[truth[by_hash] != number][: n_others or None]
        images.append(np.concatenate([np.flatnonzero(truth == number), others]))
        classes.append(np.full(len(images[-1]), number))
    image, of_class = np.concatenate(images), np.concatenate(classes)
    order = np.lexsort((of_class, image))
    image, of_class = image[order], of_class[order]
    return Pairs(image, of_class, truth[image] == of_class)


def gather_sets(
    order: Ints, mass: Floats, classes: Ints, ks: Sequence[int], how: SteerConfig
) -> Sets:
    """The latents of `classes`, by k, from the order (n_classes, n_latents) of all classes.

    `mass` (len(classes), n_latents) is what `measure_mass` gives.
    """
    rows = np.full(len(order), -1)
    rows[classes] = np.arange(len(classes))
    chosen = {k: order[classes, :k] for k in ks}
    control = {
        k: draw_controls(mass, latents, np.random.default_rng([how.seed, k]))
        for k, latents in chosen.items()
        if how.control and 2 * k <= order.shape[1]
    }
    return Sets(rows, mass, chosen, control)


def name_configurations(
    chosen: Mapping[int, Ints], control: Mapping[int, Ints]
) -> list[Configuration]:
    """PatchSAE's, in its order, and then the same of the controls that there are."""
    own = [Configuration(f"{word}_{k}", k) for k, word in product(chosen, ("on", "off"))]
    others = [Configuration(CONTROL + c.name, c.k) for c in own if c.k in control]
    return [Configuration(PLAIN, 0), *own, *others]


def measure_mass(
    model: SAE, store: EmbeddingStore, rows: Ints, truth: Ints, classes: Ints
) -> Floats:
    """(len(classes), n_latents): each latent's activation, summed over the class's own tokens."""
    mass = torch.zeros(len(classes), model.n_latents, dtype=torch.float64)
    for place, number in enumerate(classes):
        for batch in store.batches(_AT_ONCE, rows[truth == number]):
            with torch.inference_mode():
                codes = model.encode(batch.x.to(model.W_enc.device).flatten(0, 1).float())
            acts, latents = codes.acts.abs().double().cpu(), codes.latents.cpu()
            mass[place].index_add_(0, latents.flatten(), acts.flatten())
    return mass.numpy()
