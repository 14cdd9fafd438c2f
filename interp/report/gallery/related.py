"""Decoder rows, strongest images and labels of all latents -> those that are like each one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations, islice, pairwise, starmap
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from interp.records.wording import wording
from interp.report.figures import numbers

if TYPE_CHECKING:
    from interp.evidence.reader import EvidenceReader

N_NEAREST = 6
"""Latents listed of each kind."""
BLOCK = 1024
"""Latents that are compared with as many others at a time: 4 MB of cosines."""
_WIDTH = 64  # columns whose maximum is looked at first
LEAST_SHARED = 2
"""Images that two latents have in common at least, to be listed."""

Near = list[list[int | float | None]]
"""[latent, similarity] of the nearest ones, nearest first."""


class Related(NamedTuple):
    """Of every latent, in their order; None where the run does not have what it takes."""

    cosine: list[Near] | None
    """By the cosine of decoder rows."""
    together: list[Near]
    """By the strongest images that both have, of those that either has (Jaccard)."""
    same: list[list[int]]
    """Other latents of the same label, the first few."""

    def of(self, latent: int) -> dict[str, Near | list[int]]:
        """As a card holds it, without what is empty."""
        found: dict[str, Near | list[int]] = {
            "cosine": self.cosine[latent] if self.cosine else [],
            "together": self.together[latent],
            "same": self.same[latent],
        }
        return {name: values for name, values in found.items() if values}


def find_related(
    reader: EvidenceReader, decoder: NDArray[np.float32] | None, labels: Mapping[int, str | None]
) -> Related:
    """`decoder`: (n_latents, d) or None; `labels`: what each latent is called. Dead latents, which
    nothing can be shown of, are near to none."""
    alive = np.array([status != "dead" for status in reader.status], bool)
    cosine = None if decoder is None else nearest_rows(decoder, alive)
    together = nearest_sets(reader.strongest(), len(alive))
    return Related(cosine, together, same_labels(labels, len(alive)))


def nearest_rows(rows: NDArray[np.float32], alive: NDArray[np.bool_]) -> list[Near]:
    """Of each living row of (n, d) those of the largest cosine to it; of equal ones the first."""
    ids = np.flatnonzero(alive)
    norms = np.linalg.norm(rows[ids], axis=1, keepdims=True)
    unit = (rows[ids] / np.maximum(norms, 1e-12)).astype(np.float32)
    places = np.zeros((len(ids), N_NEAREST), np.int64)
    values = np.full((len(ids), N_NEAREST), -np.inf, np.float32)
    starts = range(0, len(ids), BLOCK)
    for start in starts:
        part = slice(start, start + BLOCK)
        cosines = unit[part] @ unit[part].T
        np.fill_diagonal(cosines, -np.inf)
        near, found = _largest(cosines, N_NEAREST)
        places[part, : near.shape[1]], values[part, : near.shape[1]] = near + start, found
    # A pair's cosine is the same from both sides: half of the other blocks have all of them. Few
    # are as large as the smallest that is kept of a row by now.
    for start, other in combinations(starts, 2):
        part, beyond = slice(start, start + BLOCK), slice(other, other + BLOCK)
        cosines = unit[part] @ unit[beyond].T
        larger = np.flatnonzero(cosines >= values[part, -1:])
        row, column = np.divmod(larger, cosines.shape[1])
        _merge(places, values, row + start, column + other, cosines[row, column])
        larger = np.flatnonzero(cosines >= values[beyond, -1])
        row, column = np.divmod(larger, cosines.shape[1])
        order = np.argsort(column, kind="stable")
        row, column = row[order], column[order]
        _merge(places, values, column + other, row + start, cosines[row, column])
    shown = zip(ids[places].reshape(-1).tolist(), numbers(values.reshape(-1), 3), strict=True)
    nearest: list[Near] = [[] for _ in alive]
    for latent in ids.tolist():
        nearest[latent] = [[i, c] for i, c in islice(shown, N_NEAREST) if c is not None]
    return nearest


def _merge(
    places: NDArray[np.int64],
    values: NDArray[np.float32],
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    found: NDArray[np.float32],
) -> None:
    """Keep of each row (n, k) of `values` the largest, largest first, with those `found` at `rows`
    (ascending) and `columns`; of equal ones the first place."""
    if not len(rows):
        return
    kept = values.shape[1]
    changed, first, counts = np.unique(rows, return_index=True, return_counts=True)
    at = np.repeat(np.arange(len(changed)), counts)
    beside = kept + np.arange(len(rows)) - np.repeat(first, counts)
    width = kept + int(counts.max())
    all_values = np.full((len(changed), width), -np.inf, values.dtype)
    all_places = np.zeros((len(changed), width), places.dtype)
    all_values[:, :kept], all_places[:, :kept] = values[changed], places[changed]
    all_values[at, beside], all_places[at, beside] = found, columns
    order = np.lexsort((all_places, -all_values), axis=1)[:, :kept]
    values[changed] = np.take_along_axis(all_values, order, 1)
    places[changed] = np.take_along_axis(all_places, order, 1)


def _largest(values: NDArray[np.float32], n: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Places and values of the n largest of each row, largest first; of equal ones the first.

    They lie in the n groups of columns with the largest maxima, so most columns are looked at once.
    """
    n_rows, n_columns = values.shape
    padded = -(-n_columns // _WIDTH) * _WIDTH
    if padded != n_columns:
        rest = np.full((n_rows, padded - n_columns), -np.inf, values.dtype)
        values = np.concatenate([values, rest], 1)
    groups = values.reshape(n_rows, -1, _WIDTH)
    best = np.sort(np.argsort(-groups.max(2), axis=1, kind="stable")[:, :n], axis=1)
    columns = (best[:, :, None] * _WIDTH + np.arange(_WIDTH)).reshape(n_rows, -1)
    chosen = np.take_along_axis(values, columns, 1)
    order = np.argsort(-chosen, axis=1, kind="stable")[:, : min(n, n_columns)]
    return np.take_along_axis(columns, order, 1), np.take_along_axis(chosen, order, 1)


def nearest_sets(pairs: NDArray[np.int64], n_sets: int) -> list[Near]:
    """Of each set those with the largest Jaccard share of members in common with it.

    `pairs`: (n, 2) a set and a member of it, each pair once.
    """
    from scipy.sparse import csr_array

    ones = np.ones(len(pairs), np.float32)
    width = int(pairs[:, 1].max()) + 1 if len(pairs) else 1
    table = csr_array((ones, (pairs[:, 0], pairs[:, 1])), shape=(n_sets, width))
    turned, sizes = table.T.tocsr(), np.asarray(table.sum(1)).reshape(-1)
    found: list[list[int]] = []
    shares_found = []
    for start in range(0, n_sets, BLOCK):
        shared = (table[start : start + BLOCK] @ turned).tocoo()
        one, other, count = shared.row.astype(np.int64) + start, shared.col, shared.data
        kept = np.flatnonzero((count >= LEAST_SHARED) & (other != one))
        one, other, count = one[kept], other[kept].astype(np.int64), count[kept]
        share = count / (sizes[one] + sizes[other] - count)
        ends = np.searchsorted(one, np.arange(start, start + shared.shape[0] + 1)).tolist()
        for part in starmap(slice, pairwise(ends)):
            others, shares = other[part], share[part]
            first = np.lexsort((others, -shares))[:N_NEAREST]
            found.append(others[first].tolist())
            shares_found.append(shares[first])
    values = iter(numbers(np.concatenate(shares_found), 3)) if shares_found else iter(())
    return [[[latent, next(values)] for latent in near] for near in found]


def same_labels(labels: Mapping[int, str | None], n: int) -> list[list[int]]:
    """Of each latent the first others whose label is the same but for case and blanks."""
    groups: defaultdict[str, list[int]] = defaultdict(list)
    for latent, label in sorted(labels.items()):
        if label:
            groups[wording(label)].append(latent)
    found: list[list[int]] = [[] for _ in range(n)]
    for group in groups.values():
        for latent in group:
            found[latent] = _others(group, latent)
    return found


def _others(group: Sequence[int], latent: int) -> list[int]:
    return [other for other in group[: N_NEAREST + 1] if other != latent][:N_NEAREST]
