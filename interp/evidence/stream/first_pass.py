"""Batches of all images -> counts, strongest images and even samples of every latent."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from interp.evidence.groups.groups import Groups
from interp.evidence.stream.activations import Seen
from interp.evidence.stream.counts import Tally
from interp.evidence.stream.top_k import Ints, Keys, Largest, act_keys, image_digits, splitmix64
from interp.records.split import split_of
from interp.records.types import SIDES, Side

_ONE = np.uint64(1)  # keys of 0 mean "empty"


@dataclass(frozen=True)
class ImageIndex:
    """What must be known of each image besides its embedding; some 20 bytes an image."""

    digits: Keys  # (n_images,) from the content hash
    sides: NDArray[np.int8]  # (n_images,) place in side_names
    domains: NDArray[np.int16]  # (n_images,) place in domain_names
    classes: NDArray[np.int32]  # (n_images,) place in class_names; -1 without a label
    domain_names: tuple[str, ...]
    class_names: tuple[str, ...]
    side_names: tuple[Side, ...]
    groups: Groups

    @classmethod
    def of(
        cls,
        images: pd.DataFrame,
        domain_names: tuple[str, ...],
        groups: Groups | None = None,
        side_names: tuple[Side, ...] = SIDES,
    ) -> ImageIndex:
        """Read it from a store's table of images; without `groups` each image is alone."""
        ids = images["image_id"].tolist()
        groups = Groups.none(len(ids)) if groups is None else groups
        select = "select" in side_names
        known = (groups.name(row) or image_id for row, image_id in enumerate(ids))
        sides = (side_names.index(split_of(group_id, select)) for group_id in known)
        labels = images["label"].astype(str)
        class_names = tuple(sorted(set(labels) - {""}))
        return cls(
            digits=image_digits(ids),
            sides=np.fromiter(sides, np.int8, len(ids)),
            domains=_codes(images["domain"], domain_names).astype(np.int16),
            classes=_codes(labels, class_names).astype(np.int32),
            domain_names=domain_names,
            class_names=class_names,
            side_names=side_names,
            groups=groups,
        )

    def domain_counts(self, side: int | None = None) -> Ints:
        """(n_domains,) images of each domain, on one side or on all."""
        domains = self.domains if side is None else self.domains[self.sides == side]
        return np.bincount(domains, minlength=len(self.domain_names))


class Survey:
    """State of the first pass. It grows with latents times kept images, not with images."""

    def __init__(
        self,
        index: ImageIndex,
        n_latents: int,
        n_top: int,
        n_sample: int,
        reservoir: int,
        n_by_domain: int = 0,
    ) -> None:
        self.index = index
        n_sides, n_domains = len(index.side_names), len(index.domain_names)
        self.tally = Tally(n_latents, n_sides, n_domains, len(index.class_names))
        self.top = Largest(n_latents * n_sides * n_domains, n_top)
        """Strongest images; group = (latent, side, domain) in row-major order."""
        self.sample = Largest(n_latents * n_sides, n_sample)
        """Active images drawn evenly, whatever their activation; group = (latent, side)."""
        self.by_domain: Largest | None = None
        """The same of each domain by itself, where there are several; group = (latent, side,
        domain)."""
        if n_domains > 1 and n_by_domain:
            self.by_domain = Largest(n_latents * n_sides * n_domains, n_by_domain)
        self.reservoir = Largest(n_sides * n_domains, reservoir)
        """Images drawn evenly; group = (side, domain)."""

    def update(self, seen: Seen) -> None:
        """Take a batch in."""
        found, index = seen.images, self.index
        rows = seen.rows[found.images]
        sides = index.sides[rows].astype(np.int64)
        domains = index.domains[rows].astype(np.int64)
        self.tally.update(found, sides, domains, index.classes[rows].astype(np.int64))
        chance = splitmix64(index.digits[rows] ^ found.latents.astype(np.uint64)) | _ONE
        by_side = found.latents * len(index.side_names) + sides
        by_domain = by_side * len(index.domain_names) + domains
        self.top.update(by_domain, act_keys(found.acts, chance), rows, found.acts)
        self.sample.update(by_side, chance, rows, found.acts)
        if self.by_domain is not None:
            self.by_domain.update(by_domain, chance, rows, found.acts)
        self._fill_reservoir(seen.rows)

    def arrays(self) -> list[NDArray[Any]]:
        """Where the state lies: of the same shapes for the same index and sizes."""
        kept = [some.arrays() for some in self._kept]
        return [*self.tally.arrays(), *chain.from_iterable(kept)]

    def merge(self, other: Survey) -> None:
        """Take in what another has seen of other images: as if this had seen them, in any order."""
        self.tally.merge(other.tally)
        for mine, theirs in zip(self._kept, other._kept, strict=True):
            mine.merge(theirs)

    @property
    def _kept(self) -> list[Largest]:
        of_domains = [] if self.by_domain is None else [self.by_domain]
        return [self.top, self.sample, *of_domains, self.reservoir]

    def _fill_reservoir(self, rows: Ints) -> None:
        index = self.index
        groups = index.sides[rows].astype(np.int64) * len(index.domain_names) + index.domains[rows]
        # The digits are turned round, lest latent 0's sample be the reservoir's first images.
        keys = splitmix64(~index.digits[rows]) | _ONE
        self.reservoir.update(groups, keys, rows, np.zeros(len(rows), np.float32))


def _codes(values: pd.Series[str], names: tuple[str, ...]) -> NDArray[np.int64]:
    """Place of each value in `names`, -1 when it is not there."""
    return np.asarray(pd.Index(names, dtype=object).get_indexer(pd.Index(values)), np.int64)
