"""Evidence -> the held-out images that a label is tested on, and their order in grids and looks.

Everything comes from the score side and from the latent's number: no seed to carry around.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from interp.records.split import check_side, check_unseen
from interp.records.types import Evidence, Example, Side
from sae.core.errors import UserError
from sae.core.shares import apportion

BASE_RATE_SPREAD = 0.2
"""A grid's share of positives differs from the whole's by up to this share of itself, so that
nothing can be learnt from it."""


@dataclass(frozen=True)
class SampleConfig:
    """How many held-out images test a label."""

    n_positive: int = 20
    """Active images. 20 + 20 give a 95% half-width of about .14 at an AUROC of .8."""
    n_negative: int = 20
    """Silent images, half of them hard; weak ones where a latent is silent on too few."""
    n_least: int = 5
    """With fewer of either no score is given."""
    grey: float = 0.05
    """Active images under this share of the latent's maximum are neither positive nor negative."""
    n_tiles: int = 10
    """Images per question to the judge, at most 12: more and vision models mix them up."""
    side: Side = "score"
    """Where the images come from; on "select" labels are chosen, on "score" they are tested."""
    steps: tuple[int, ...] = ()
    """After about so many positives, and as many negatives, an adaptive test is looked at: it ends
    where its intervals leave out .5, else with all images. () judges all of them at once."""

    def __post_init__(self) -> None:
        if not 2 <= self.n_tiles <= 12:
            raise UserError(f"n_tiles is {self.n_tiles}; a grid holds 2 to 12 images")
        if list(self.steps) != sorted(set(self.steps)) or not all(n > 0 for n in self.steps):
            raise UserError(f"steps are {self.steps}; each must be larger than the one before")
        if min(self.n_positive, self.n_negative) < self.n_least:
            raise UserError(
                f"{self.n_positive} positives and {self.n_negative} negatives; "
                f"a score needs at least {self.n_least} of each"
            )


ALL_KEPT = SampleConfig(n_positive=64, n_negative=48)
"""For a judge that costs nothing: the active, silent and hard images that evidence keeps."""
ADAPTIVE = SampleConfig(n_positive=50, n_negative=50, n_tiles=12, steps=(8, 14, 20, 32))
"""8 + 8 images in two questions, then whole questions of 12: 3, 4, 6 and 9 in all."""


class Sample(NamedTuple):
    """The images of one latent's test."""

    positives: tuple[Example, ...]
    negatives: tuple[Example, ...]


class Look(NamedTuple):
    """What is judged before an adaptive test is looked at once more; a fixed test has one."""

    grids: tuple[tuple[Example, ...], ...]
    share: float
    """Of all images of the test, those judged by then."""


def draw_sample(evidence: Evidence, config: SampleConfig) -> Sample:
    """Choose the test images of a latent; fewer than asked for where there are not enough.

    Positives: as many from every stratum of the uniform sample, the top list fills up what lacks.
    Negatives: half silent, half hard, in the positives' mix of domains; weak ones make up for what
    both lack, and then only the stronger half of the active images is positive. Near-duplicates,
    and other images of one group, say no more than one of them: of each group at most one is among
    the positives, and one among the negatives. Raises `LeakError`.
    """
    sample = _draw(evidence, config)
    check_side((*sample.positives, *sample.negatives), config.side)
    return sample


def n_left_out(evidence: Evidence, config: SampleConfig, sample: Sample) -> int:
    """Images that a test has fewer than if each counted that `sample` leaves out for its group."""
    if not any(example.group for example in evidence.examples):
        return 0
    apart = tuple(replace(example, group="") for example in evidence.examples)
    whole = _draw(replace(evidence, examples=apart), config)
    return sum(map(len, whole)) - sum(map(len, sample))


def is_enough(sample: Sample, config: SampleConfig) -> bool:
    """Whether a score from these images would mean anything."""
    return min(len(sample.positives), len(sample.negatives)) >= config.n_least


def turn_of(latent: int) -> float:
    """0 to 1: those nearest to 1 are asked more. It follows from the latent's number alone.

    The multiples of the golden section are spread evenly over [0, 1), whichever latents there are.
    """
    return latent * _GOLDEN % 1


def looks_of(sample: Sample, config: SampleConfig, latent: int) -> tuple[Look, ...]:
    """The images in grids, and these by the look that they belong to; () for too few images.

    What was judged by a look is a part of what is judged by the next, as even a draw as the whole.
    """
    if not is_enough(sample, config):
        return ()
    if not config.steps:
        return (Look(deal(sample, config.n_tiles, latent), 1.0),)
    n = len(sample.positives) + len(sample.negatives)
    ends = look_ends(config, n)
    parts = zip((0, *ends), ends, strict=False)
    sizes = [even_sizes(end - start, config.n_tiles) for start, end in parts]
    grids = iter(deal_in_turn(sample, [size for part in sizes for size in part], latent))
    return tuple(
        Look(tuple(next(grids) for _ in part), end / n)
        for part, end in zip(sizes, ends, strict=True)
    )


def look_ends(config: SampleConfig, n: int) -> list[int]:
    """Of a test of `n` images, how many are judged by each look; less than a grid is no look."""
    return [*(2 * step for step in config.steps if 2 * step + config.n_tiles <= n), n]


def n_grids(n_images: int, n_tiles: int) -> int:
    """Into how many grids `deal` puts so many images."""
    return -(-n_images // n_tiles)


def check_held_out(
    examples: Iterable[Example],
    shown: Iterable[str] = (),
    known: Iterable[Example] = (),
    side: Side = "score",
) -> None:
    """Raise `LeakError` for an image of another side, or one that an explainer was shown, or
    a near-duplicate of that; `known` are records that tell which images belong together."""
    examples = tuple(examples)
    check_side(examples, side)
    check_unseen(examples, shown, (*examples, *known))


def deal(sample: Sample, n_tiles: int, latent: int) -> tuple[tuple[Example, ...], ...]:
    """Shuffle the images into grids of at most `n_tiles`, as equal in size as they can be.

    Every grid mixes positives and negatives; how many positives it has varies, and over the grids
    every slot holds a positive about equally often.
    """
    rng = np.random.default_rng([_DEAL, latent])
    sizes = even_sizes(len(sample.positives) + len(sample.negatives), n_tiles)
    counts = _positive_counts(sizes, len(sample.positives), rng)
    positives = deque(_shuffled(sample.positives, rng))
    negatives = deque(_shuffled(sample.negatives, rng))
    return _fill(sizes, counts, positives, negatives, rng)


def deal_in_turn(
    sample: Sample, sizes: Sequence[int], latent: int
) -> tuple[tuple[Example, ...], ...]:
    """The same in grids of these sizes, of which the first few, however many, are an even draw.

    Strata come in turn, negatives in the domains of the positives beside them and half hard, as
    long as there are hard ones.
    """
    rng = np.random.default_rng([_DEAL, latent])
    counts = _positive_counts(sizes, len(sample.positives), rng)
    in_turn = _evenly(sample.positives, lambda e: e.stratum, rng)
    positives, negatives = deque(in_turn), deque(_beside(in_turn, sample.negatives, rng))
    shuffled: tuple[deque[Example], deque[Example]] = deque(), deque()
    for size, count in zip(sizes, counts, strict=True):  # no slot is for the strongest
        for side, of, n in zip(
            shuffled, (positives, negatives), (count, size - count), strict=True
        ):
            side.extend(_shuffled([of.popleft() for _ in range(n)], rng))
    return _fill(sizes, counts, *shuffled, rng)


def _fill(
    sizes: Sequence[int],
    counts: Sequence[int],
    positives: deque[Example],
    negatives: deque[Example],
    rng: np.random.Generator,
) -> tuple[tuple[Example, ...], ...]:
    """Grids of these sizes with so many positives each, at every slot about equally often."""
    used = np.zeros(max(sizes), dtype=int)  # positives that each slot has had
    grids = []
    for size, count in zip(sizes, counts, strict=True):
        # The slots that had fewest positives come first; equals in random order.
        slots = np.lexsort((rng.random(size), used[:size]))[:count]
        used[slots] += 1
        chosen = frozenset(slots.tolist())
        grids.append(
            tuple((positives if s in chosen else negatives).popleft() for s in range(size))
        )
    return tuple(grids)


_POSITIVES, _DEAL = 1, 2
"""Names of the random streams."""
_GOLDEN = (math.sqrt(5) - 1) / 2


def _draw(evidence: Evidence, config: SampleConfig) -> Sample:
    positives = _positives(evidence, config)
    mix = Counter(example.domain for example in positives)
    return Sample(positives, _negatives(evidence, mix, config.n_negative, config.side))


def _positives(evidence: Evidence, config: SampleConfig) -> tuple[Example, ...]:
    side = config.side
    rng = np.random.default_rng([_POSITIVES, evidence.stats.latent])
    floor = config.grey * evidence.stats.max_act
    clear = [e for e in evidence.positives(side, "quantile") if e.act > 0 and e.act >= floor]
    strata: dict[int, list[Example]] = {}
    for example in _shuffled(_distinct(clear), rng):
        strata.setdefault(example.stratum, []).append(example)
    from_strata = _round_robin([strata[stratum] for stratum in sorted(strata, reverse=True)])
    from_top = [e for e in evidence.positives(side, "top") if e.act >= floor]
    return tuple(_distinct([*from_strata, *from_top])[: config.n_positive])


def _negatives(
    evidence: Evidence, mix: Mapping[str, int], n: int, side: Side
) -> tuple[Example, ...]:
    """Up to `n`; a domain that has no more silent or weak images is left short, never made up for
    by another: otherwise the medium alone would tell positives from negatives."""
    silent = _distinct(evidence.of(side, "silent"))
    hard = _distinct(evidence.of(side, "hard"))
    weak = _distinct(evidence.of(side, "weak"))
    chosen: list[Example] = []
    shares = apportion(n, np.array([*mix.values()], dtype=int)).tolist()
    for domain, share in zip(mix, shares, strict=True):
        taken = {example.group_id for example in chosen}
        of_domain = _half_and_half(
            [e for e in silent if e.domain == domain and e.group_id not in taken],
            [e for e in hard if e.domain == domain and e.group_id not in taken],
            share,
            extra_hard=len(chosen) % 2 == 0,
        )
        weakest = [e for e in weak if e.domain == domain and e.group_id not in taken]
        chosen += _distinct([*of_domain, *weakest])[:share]
    return tuple(chosen)


def _half_and_half(
    silent: Sequence[Example], hard: Sequence[Example], n: int, extra_hard: bool
) -> list[Example]:
    """Hard ones first for half of `n`, then silent ones; each makes up for what the other lacks."""
    n_hard = (n + extra_hard) // 2
    return _distinct([*hard[:n_hard], *silent, *hard[n_hard:]])[:n]


def even_sizes(n: int, n_tiles: int) -> list[int]:
    """[10, 10, 9, 9] for 38 tiles by 10."""
    grids = n_grids(n, n_tiles)
    return [n // grids + (grid < n % grids) for grid in range(grids)]


def _positive_counts(sizes: Sequence[int], n_positive: int, rng: np.random.Generator) -> list[int]:
    """Positives per grid: their share of its tiles, moved about between grids by chance."""
    counts: list[int] = apportion(n_positive, np.array(sizes)).tolist()
    order = rng.permutation(len(sizes)).tolist()
    for giver, taker in zip(order[::2], order[1::2], strict=False):
        most = round(BASE_RATE_SPREAD * counts[giver])
        room = min(most, counts[giver] - 1, sizes[taker] - counts[taker] - 1)
        moved = int(rng.integers(0, max(room, 0) + 1))
        counts[giver] -= moved
        counts[taker] += moved
    return counts


def _evenly(
    examples: Sequence[Example], part_of: Callable[[Example], Hashable], rng: np.random.Generator
) -> list[Example]:
    """In an order in which every part is spread over the whole; by chance within a part."""
    parts: dict[Hashable, list[Example]] = {}
    for example in _shuffled(examples, rng):
        parts.setdefault(part_of(example), []).append(example)
    placed = [((k + 0.5) / len(part), e) for part in parts.values() for k, e in enumerate(part)]
    return [example for _, example in sorted(placed, key=lambda pair: pair[0])]


def _beside(
    positives: Sequence[Example], negatives: Sequence[Example], rng: np.random.Generator
) -> list[Example]:
    """Negatives in the order in which their domains come among the positives, in each of them hard
    and others in turn as long as there are both."""
    places: dict[str, list[int]] = {}
    for place, example in enumerate(positives):
        places.setdefault(example.domain, []).append(place)
    stock: dict[str, tuple[deque[Example], deque[Example]]] = {}
    for example in _shuffled(negatives, rng):
        stock.setdefault(example.domain, (deque(), deque()))[example.kind == "hard"].append(example)
    turns = []
    for domain, sides in stock.items():
        n, own = sum(map(len, sides)), places[domain]
        turns += [(own[int((k + 0.5) * len(own) / n)], domain) for k in range(n)]
    ordered: list[Example] = []
    lead = dict.fromkeys(stock, 0)  # hard ones more than others, by domain
    for _, domain in sorted(turns):
        others, hard = stock[domain]
        wants_hard = lead[domain] < 0 or (lead[domain] == 0 and sum(lead.values()) <= 0)
        side = hard if hard and (wants_hard or not others) else others
        lead[domain] += 1 if side is hard else -1
        ordered.append(side.popleft())
    return ordered


def _round_robin(groups: Sequence[Sequence[Example]]) -> list[Example]:
    """One of each group in turn, until all are used up."""
    longest = max(map(len, groups), default=0)
    return [group[turn] for turn in range(longest) for group in groups if turn < len(group)]


def _shuffled(examples: Sequence[Example], rng: np.random.Generator) -> list[Example]:
    return [examples[index] for index in rng.permutation(len(examples))]


def _distinct(examples: Iterable[Example]) -> list[Example]:
    """The first example of each image and of each group."""
    first: dict[str, Example] = {}
    for example in examples:
        first.setdefault(example.group_id, example)
    return list(first.values())
