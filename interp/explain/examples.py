"""Evidence -> the images that an explainer is shown: positives, and a contrast set of negatives.

All come from the side "explain". Everything random is drawn from the latent's number.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from interp.pictures.grid import FIRST, SECOND
from interp.records.split import check_side
from interp.records.types import Evidence, Example
from sae.core.shares import apportion

Medium = Literal["drawings", "photos", "mixed"]

_DRAWINGS = re.compile(
    r"sketch|draw|doodle|cartoon|clip[-_ ]?art|line[-_ ]?art|stroke|(?<![a-z])ink(?![a-z])"
)
_PHOTOS = re.compile(r"photo|imagenet|natural|camera|(?<![a-z])real(?![a-z])")


@dataclass(frozen=True)
class ShowConfig:
    """How many images of which kind."""

    n_top: int = 8
    """Strongest images."""
    n_quantile: int = 4
    """From the middle strata of the active images: what the latent also answers to, more weakly."""
    min_positives: int = 3
    """With fewer there is nothing to share: the latent is not explained."""
    n_negatives: int = 11
    """Of the same domains: half silent at random, half on which the nearest latents are active;
    weak ones where a latent is silent on too few."""
    min_negatives: int = 8
    """With fewer there is no contrast set."""
    draw: int = 0
    """0: the strongest positives and hardest negatives. Another number: a choice by chance among
    all that were kept, in another order: another question of the same latent."""

    def __post_init__(self) -> None:
        if self.n_top + self.n_quantile > len(FIRST) or self.n_negatives > len(SECOND):
            raise ValueError(
                f"{self.n_top} + {self.n_quantile} positives and {self.n_negatives} negatives; "
                f"there are {len(FIRST)} and {len(SECOND)} letters"
            )


class Shown(NamedTuple):
    """Chosen images, in the order of their slots."""

    positives: tuple[Example, ...]
    strong: frozenset[str]
    """image_ids of the positives from the top."""
    negatives: tuple[Example, ...]
    """Empty, or at least `min_negatives`."""


def choose_shown(evidence: Evidence, config: ShowConfig) -> Shown:
    """Choose and shuffle. Raises `LeakError` when an example is not on the explain side."""
    rng = np.random.default_rng([evidence.stats.latent, *([config.draw] if config.draw else [])])
    mix = evidence.stats.domain_rate
    top = _mixed(_ranked(evidence.positives("explain", "top"), (), config, rng), config.n_top, mix)
    weaker = _unique(_middle_first(evidence.positives("explain", "quantile"), rng), top)
    positives = [*top, *_mixed(weaker, config.n_quantile, mix)]
    negatives = _negatives(evidence, positives, config, rng)
    check_side((*positives, *negatives), "explain")
    strong = frozenset(example.image_id for example in top)
    return Shown(_shuffled(positives, rng), strong, _shuffled(negatives, rng))


def medium_of(domains: Sequence[str]) -> Medium:
    """What the images are, by the names of their domains; "mixed" when that is not plain."""
    kinds = {_medium_word(domain.lower()) for domain in domains}
    return kinds.pop() if len(kinds) == 1 else "mixed"


def _medium_word(domain: str) -> Medium:
    if _DRAWINGS.search(domain):
        return "drawings"
    if _PHOTOS.search(domain):
        return "photos"
    return "mixed"


def _unique(examples: Sequence[Example], taken: Sequence[Example]) -> list[Example]:
    """Without images that are taken, and each image once (its first example)."""
    seen = {example.image_id for example in taken}
    first = {e.image_id: e for e in reversed(examples) if e.image_id not in seen}
    return [e for e in examples if first.get(e.image_id) is e]


def _ranked(
    examples: Sequence[Example],
    taken: Sequence[Example],
    config: ShowConfig,
    rng: np.random.Generator,
) -> list[Example]:
    """`_unique`, and in another draw than the first by chance in the place of rank."""
    unique = _unique(examples, taken)
    return [*_shuffled(unique, rng)] if config.draw else unique


def _middle_first(examples: Sequence[Example], rng: np.random.Generator) -> list[Example]:
    """Shuffled, with the weakest and the strongest stratum last."""
    last = max((example.stratum for example in examples), default=0)
    shuffled = _shuffled(examples, rng)
    return sorted(shuffled, key=lambda example: example.stratum in (0, last))


def _negatives(
    evidence: Evidence,
    positives: Sequence[Example],
    config: ShowConfig,
    rng: np.random.Generator,
) -> list[Example]:
    mix = Counter(example.domain for example in positives)
    found = _ranked(evidence.of("explain", "hard"), positives, config, rng)
    hard = [e for e in found if e.domain in mix]
    found = _ranked(evidence.of("explain", "silent"), [*positives, *hard], config, rng)
    silent = [e for e in found if e.domain in mix]
    n_hard = max(config.n_negatives // 2, config.n_negatives - len(silent))
    some_hard = _mixed(hard, n_hard, mix)
    chosen = [*some_hard, *_mixed(silent, config.n_negatives - len(some_hard), mix)]
    weak = [e for e in _unique(evidence.of("explain", "weak"), positives) if e.domain in mix]
    chosen += _mixed(weak, config.n_negatives - len(chosen), mix)
    return chosen if len(chosen) >= config.min_negatives else []


def _mixed(ranked: Sequence[Example], n: int, mix: Mapping[str, float]) -> list[Example]:
    """The first `n`, with the domains in the proportion of `mix`; gaps are filled by rank."""
    left = dict(zip(mix, apportion(n, np.array([*mix.values()], float)).tolist(), strict=True))
    first: list[Example] = []
    rest: list[Example] = []
    for example in ranked:
        fits = left.get(example.domain, 0) > 0
        left[example.domain] = left.get(example.domain, 0) - fits
        (first if fits else rest).append(example)
    chosen = {example.image_id for example in [*first, *rest][:n]}
    return [example for example in ranked if example.image_id in chosen]


def _shuffled(examples: Sequence[Example], rng: np.random.Generator) -> tuple[Example, ...]:
    return tuple(examples[slot] for slot in rng.permutation(len(examples)))
