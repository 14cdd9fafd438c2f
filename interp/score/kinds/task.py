"""What a judging task is: evidence and a label -> questions; their answers -> figures."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image

from interp.pictures.cache import HeatOf
from interp.pictures.grid import Tile
from interp.records.tasks import Measured, Trial
from interp.records.types import Evidence, Example, Explanation
from interp.score.kinds.detect import told
from interp.score.sampling import SampleConfig, check_held_out, draw_sample, looks_of
from sae.core.shares import Interval, wilson_interval

ByClip = Literal["grades", "odd one", "labels", ""]
"""How CLIP answers: grades of a label, the image least like the others, labels held against the
images; "": not at all."""


class Drawn(NamedTuple):
    """One question before it is asked."""

    examples: tuple[Example, ...]
    """The images, in the order in which they are shown."""
    truth: tuple[float, ...]
    """As in `Trial`."""
    labels: tuple[str, ...] = ()
    """Of `match`: what is offered, in order."""


class Case(NamedTuple):
    """What a task may look at to draw its questions on one latent."""

    evidence: Evidence
    test: Explanation | None
    """The label that is judged; None for a task that needs none."""
    others: Sequence[Explanation] = ()
    """Labels of the run's other latents, by latent."""
    config: SampleConfig = SampleConfig()
    heat_of: HeatOf = lambda _example: None
    """Where the latent answers on an image."""

    @property
    def latent(self) -> int:
        return self.evidence.stats.latent


@dataclass(frozen=True)
class TaskKind:
    """A judging task: what is drawn, how it is asked, and what the answers come to."""

    name: str
    draw: Callable[[Case], tuple[Drawn, ...]]
    """() where the latent has too few images, or the run too few labels."""
    measure: Callable[[Sequence[Trial], int], Measured]
    """Figures over the trials of one latent, which is named for what is drawn at random."""
    by_clip: ByClip
    template: str
    """In prompts/."""
    most: int = 100
    """The largest answer."""
    needs_label: bool = True
    whole: bool = False
    """Whether a question of which a picture cannot be read is not asked."""
    outlined: bool = False
    """Whether each picture is shown with a region marked, which needs patches."""
    tells: Callable[[Explanation | None, Drawn], Mapping[str, Any]] = lambda _test, _drawn: {}
    """What the template is filled with beside the letters."""
    own_pictures: Mapping[str, Callable[[], Image.Image]] = field(default_factory=dict)
    """Pictures that are no images of the store, by what stands in the place of their image id."""
    mark: Callable[[Tile, float], Tile] = lambda tile, _truth: tile._replace(heat=None)
    """A tile with its heat map -> as it is shown, given the truth."""


class Posed(NamedTuple):
    """A question that is put to a judge."""

    kind: TaskKind
    test: Explanation | None
    drawn: Drawn


def held_out(case: Case, examples: Sequence[Example]) -> None:
    """Raise `LeakError` for an image that the label was found, or chosen, on."""
    used = (*case.test.codes.values(), *case.test.chosen_on) if case.test else ()
    check_held_out(examples, used, case.evidence.examples)


def tell_label(test: Explanation | None, _drawn: Drawn) -> Mapping[str, Any]:
    """All that a judge is told: no truth, no base rate, no class, no file name."""
    assert test is not None
    assert test.label is not None
    return told(test.label, test.description)


def detect_grids(case: Case) -> tuple[tuple[Example, ...], ...]:
    """The grids of `detect` that are asked about whatever is answered: all, or those of the first
    look of an adaptive test; () where there are too few images."""
    sample = draw_sample(case.evidence, case.config)
    held_out(case, (*sample.positives, *sample.negatives))
    looks = looks_of(sample, case.config, case.latent)
    return looks[0].grids if looks else ()


def shuffle_examples(examples: Sequence[Example], rng: np.random.Generator) -> list[Example]:
    """The same in another order."""
    return [examples[index] for index in rng.permutation(len(examples))]


def places(n: int, rng: np.random.Generator) -> Iterator[int]:
    """Places 0 to n - 1 in random order, and again and again: each comes equally often."""
    while True:
        yield from rng.permutation(n).tolist()


def credit(trial: Trial) -> float:
    """1 where the right letter has the highest number alone, a share where it shares that, else 0.

    Chance where the question has no answer.
    """
    known = [answer for answer in trial.answer if answer is not None]
    if len(known) < len(trial.answer):
        return 1 / len(trial.answer)
    best = [right for right, answer in zip(trial.truth, known, strict=True) if answer == max(known)]
    return sum(best) / len(best)


def choice(trials: Sequence[Trial], _latent: int) -> Measured:
    """Share of questions whose right letter was chosen, with Wilson's interval; chance beside it.

    A question that is answered by equal numbers counts as a guess among those.
    """
    hits = [credit(trial) for trial in trials]
    interval = share_interval(hits)
    chance = float(np.mean([1 / len(trial.answer) for trial in trials])) if trials else math.nan
    value = float(np.mean(hits)) if hits else math.nan
    return Measured(value, interval.low, interval.high, chance, len(hits), {})


def share_interval(hits: Sequence[float]) -> Interval:
    """Wilson's interval of a share of which some hits count in part: these bounds lie between."""
    low, high = (wilson_interval(bound(sum(hits)), len(hits)) for bound in (math.floor, math.ceil))
    return Interval(low.low, high.high)
