"""Labels of images -> groups, each with a name that comes from its images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from interp.evidence.stream.top_k import Ints
from interp.records.split import name_group


@dataclass(frozen=True)
class Groups:
    """Which images of a store belong together."""

    labels: Ints
    """(n_images,) the place of an image's group in `names`; -1 where it is alone."""
    names: tuple[str, ...]
    """As `records.split.name_group` gives it."""

    @classmethod
    def of(cls, labels: Ints, image_ids: Sequence[str]) -> Groups:
        """From a label (n_images,) that images of one group share."""
        _, labels, sizes = np.unique(labels, return_inverse=True, return_counts=True)
        members: dict[int, list[str]] = {}
        for row in np.flatnonzero(sizes[labels] > 1).tolist():
            members.setdefault(int(labels[row]), []).append(image_ids[row])
        numbers = np.full(len(sizes), -1)
        numbers[list(members)] = np.arange(len(members))
        return cls(numbers[labels], tuple(map(name_group, members.values())))

    @classmethod
    def none(cls, n_images: int) -> Groups:
        """Each image alone."""
        return cls(np.full(n_images, -1), ())

    def name(self, row: int) -> str:
        """`Example.group` of an image."""
        label = int(self.labels[row])
        return self.names[label] if label >= 0 else ""

    def sizes(self) -> list[int]:
        """Images of each group."""
        counts: list[int] = np.bincount(self.labels[self.labels >= 0]).tolist()
        return counts
