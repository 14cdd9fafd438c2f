"""Evidence and verdicts -> the images that cards show of them: by columns, many cards at a time.

Of a large run they are millions; as records, one by one, they cost several times as much.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from interp.records.types import Example
from interp.report.figures import numbers
from interp.run.verdict_table import Rows, VerdictTable

if TYPE_CHECKING:
    from interp.evidence.reader import EvidenceReader

N_TOP = 8
"""Strongest images shown per domain."""
N_PER_STRATUM = 4
"""Images shown per fifth of the activation range."""

Json = Any
"""A plain JSON value."""
Ints = NDArray[np.int64]


class Shown(NamedTuple):
    """What one card shows. An image is named by its place in `images`."""

    top: list[list[Json]]
    """The strongest of each domain: place, activation, heat."""
    quantiles: list[list[Json]]
    """Some of each stratum, from the weakest: likewise."""
    verdicts: list[Json]
    """Held-out images, positives first by activation, then the hard and the other negatives: place,
    truth, activation, kind, grade, heat of active ones."""
    images: list[int]
    """Every image once, in the order of first use, by its number in `ShownReader`."""
    keys: list[int]
    """Of each of them, the same where id, domain, class and path are the same."""
    strongest: list[str]
    """Ids of the strongest images of all domains."""


class _Uses(NamedTuple):
    """Images that cards show, a line a use."""

    card: Ints
    group: Ints
    """The domain of a strongest image, then the strata, the last one for what was judged."""
    number: Ints
    """A line of the table of examples; below 0: of the judged images that it lacks."""

    def take(self, which: Any) -> _Uses:
        return _Uses(*(column[which] for column in self))


class ShownReader:
    """Reads what cards show. State: columns of the table, and judged images that it lacks."""

    def __init__(self, reader: EvidenceReader, verdicts: VerdictTable) -> None:
        """`verdicts`: the table whose places `of` is given."""
        self._rows = rows = reader.example_rows
        self._texts = {name: rows.texts(name) for name in ("side", "kind", "label", "path")}
        domains = list(reader.store.domains)
        domain, named = rows.texts("domain")
        self._domain = np.array([domains.index(name) for name in named], int)[domain]
        self._stratum, self._act = rows.numbers("stratum"), rows.numbers("act")
        self._n_domains = len(domains)
        self._n_groups = len(domains) + 3 + int(self._stratum.max(initial=-1))
        self._has_heat = rows.has_heat()
        self._image, ids = rows.texts("image_id")
        self._ids = np.array(ids, object)
        known = {image_id: at for at, image_id in enumerate(ids)}
        self._judged = np.array([known.get(one, -1) for one in verdicts.image_ids], int)
        alphabetic = np.argsort(np.array(verdicts.image_ids, "U64"), kind="stable")
        self._rank = np.argsort(alphabetic, kind="stable")
        self._judged_ids, self._verdicts = verdicts.image_ids, verdicts.rows()
        self._words = np.array(verdicts.words, object)
        self._lacking: list[Example] = []

    def of(self, latents: Sequence[int], judged: Sequence[slice | None]) -> list[Shown]:
        """What each card shows; `judged`: where the verdicts of the latent's score lie, if any."""
        n = len(latents)
        parts = [self._rows.places(latent) for latent in latents]
        lines = np.concatenate([_span(part) for part in parts])
        card = np.repeat(np.arange(n), [part.stop - part.start for part in parts])
        spans = [one or slice(0, 0) for one in judged]
        asked = self._verdicts[np.concatenate([_span(one) for one in spans])]
        asker = np.repeat(np.arange(n), [one.stop - one.start for one in spans])
        explain = self._is("side", "explain", lines)
        top = explain & self._is("kind", "top", lines)
        sample = explain & self._is("kind", "quantile", lines)
        held = self._is("side", "score", lines)
        strata = self._n_domains + 1 + self._stratum[lines[sample]].astype(int)
        uses = (
            _first(_Uses(card[top], self._domain[lines[top]], lines[top]), N_TOP),
            _first(_Uses(card[sample], strata, lines[sample]), N_PER_STRATUM),
            _Uses(
                asker,
                np.full(len(asked), self._n_groups - 1),
                self._match(asked, asker, latents, lines[held], card[held]),
            ),
        )
        tops = _split(self._ids[self._image[lines[top]]].tolist(), card[top], n)
        return self._arrange(_Uses(*map(np.concatenate, zip(*uses, strict=True))), asked, tops)

    def example(self, number: int) -> Example:
        """The image of a number of `Shown.images`."""
        if number < 0:
            return self._lacking[-1 - number]
        return self._rows.at(slice(number, number + 1))[0]

    def has_heat(self, number: int) -> bool:
        """Whether the image of a number has a heat map."""
        return number >= 0 and bool(self._has_heat[number])

    def _is(self, column: str, word: str, lines: Ints) -> NDArray[np.bool_]:
        codes, words = self._texts[column]
        found: NDArray[np.bool_] = codes[lines] == (words.index(word) if word in words else -1)
        return found

    def _match(
        self, asked: Rows, asker: Ints, latents: Sequence[int], lines: Ints, card: Ints
    ) -> Ints:
        """The number of each judged image: among the card's held-out `lines`, or a new one."""
        n_images = len(self._ids) + 1
        known = card * n_images + self._image[lines]
        order = np.argsort(known, kind="stable")
        image = self._judged[asked["image"]]
        wanted = np.where(image < 0, -1, asker * n_images + image)
        at = np.searchsorted(known[order], wanted, side="right") - 1
        found = np.full(len(asked), -1)
        if len(lines):
            there = (wanted >= 0) & (at >= 0) & (known[order[at]] == wanted)
            found[there] = lines[order[at[there]]]
        for one in np.flatnonzero(found < 0).tolist():
            self._lacking.append(self._unlisted(latents[asker[one]], asked[one]))
            found[one] = -len(self._lacking)
        return found

    def _unlisted(self, latent: int, v: Any) -> Example:
        """A judged image that the evidence does not hold (any more): class and name unknown."""
        image_id = self._judged_ids[v["image"]]
        kind, domain = self._words[v["kind"]], self._words[v["domain"]]
        act = float(v["act"])
        return Example(latent, "score", kind, 0, -1, int(v["row"]), image_id, domain, "", "", act)

    def _arrange(self, uses: _Uses, asked: Rows, strongest: list[list[str]]) -> list[Shown]:
        """Uses in any order of cards, those of a card's group in their order -> all cards."""
        n, n_groups = len(strongest), self._n_groups - 1  # but for what was judged
        uses = uses.take(np.lexsort((uses.group, uses.card)))
        is_judged = uses.group == n_groups  # in the order of `asked`
        image = self._image[np.maximum(uses.number, 0)].astype(int)
        lacks = uses.number < 0
        image[lacks] = len(self._ids) + asked["image"][lacks[is_judged]]
        places, first = _find_places(uses.card, image)
        judged = self._verdict_rows(uses.take(is_judged), places[is_judged], asked)
        verdicts = _split(judged, uses.card[is_judged], n)
        images = _split(uses.number[first].tolist(), uses.card[first], n)
        keys = _split(self._keys(uses.number[first]).tolist(), uses.card[first], n)
        rest, places = uses.take(~is_judged), places[~is_judged]
        acts = numbers(self._act[rest.number])
        cells = list(map(list, zip(places.tolist(), acts, self._heats(rest.number), strict=True)))
        groups = _split(cells, rest.card * n_groups + rest.group, n * n_groups)
        found = []
        for at, ids in enumerate(strongest):
            of = groups[at * n_groups : (at + 1) * n_groups]
            tops, strata = of[: self._n_domains], list(filter(None, of[self._n_domains :]))
            found.append(Shown(tops, strata, verdicts[at], images[at], keys[at], ids))
        return found

    def _keys(self, numbers: Ints) -> Ints:
        at = np.maximum(numbers, 0)
        keys = self._image[at].astype(np.int64)
        for name in ("label", "path"):
            codes, words = self._texts[name]
            keys = keys * len(words) + codes[at]
        return np.where(numbers < 0, numbers, keys * self._n_domains + self._domain[at])

    def _verdict_rows(self, uses: _Uses, places: Ints, asked: Rows) -> list[Json]:
        """The judge's clearest mistakes among the negatives come first."""
        truth, act, grade = asked["truth"], asked["act"], asked["grade"]
        kinds = self._words[asked["kind"]]
        keys = (self._rank[asked["image"]], -np.nan_to_num(grade), -act, kinds != "hard", ~truth)
        order = np.lexsort((*keys, uses.card))
        marks = np.floor(np.nan_to_num(grade)).astype(int).astype(object)  # under 50 never reads 50
        marks[np.isnan(grade)] = None
        columns = (places, truth.astype(int), marks, kinds)
        ordered, true, mark, kind = (column[order].tolist() for column in columns)
        heats = self._heats(np.where(truth, uses.number, -1)[order])
        cells = zip(ordered, true, numbers(act[order]), kind, mark, heats, strict=True)
        return list(map(list, cells))

    def _heats(self, numbers: Ints) -> list[str | None]:
        """In base64; None of numbers below 0."""
        found: list[str | None] = [None] * len(numbers)
        there = np.flatnonzero(numbers >= 0)
        for at, heat in zip(there.tolist(), self._rows.heats(numbers[there]), strict=True):
            found[at] = base64.b64encode(heat).decode("ascii") if heat else None
        return found


def _span(places: slice) -> Ints:
    return np.arange(places.start, places.stop)


def _first(uses: _Uses, n: int) -> _Uses:
    """The first n of each group of a card."""
    key = uses.card * (int(uses.group.max(initial=0)) + 1) + uses.group
    order = np.argsort(key, kind="stable")
    rank = np.arange(len(order)) - np.searchsorted(key[order], key[order])
    return uses.take(np.sort(order[rank < n]))


def _find_places(card: Ints, image: Ints) -> tuple[Ints, Ints]:
    """Of each use, by card, the place of its image among the card's, in the order of first use;
    and the uses that come first."""
    n_images = int(image.max(initial=0)) + 1
    _, first, which = np.unique(card * n_images + image, return_index=True, return_inverse=True)
    ordered = np.sort(first)
    place = np.searchsorted(ordered, first) - np.searchsorted(card[ordered], card[first])
    return place[which], ordered


def _split(values: list[Any], card: Ints, n: int) -> list[list[Any]]:
    """Values by ascending card -> a list of each of n cards."""
    ends = np.searchsorted(card, np.arange(n + 1)).tolist()
    return [values[slice(*of)] for of in pairwise(ends)]
