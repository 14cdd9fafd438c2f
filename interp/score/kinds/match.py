"""Held-out images and some labels -> which of the labels is of these images?

It measures how specific a label is: the others are labels of the run's other latents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from interp.pictures.grid import SECOND
from interp.records.tasks import Measured, Trial
from interp.records.types import Explanation
from interp.records.wording import cut_label
from interp.score.kinds.task import (
    Case,
    Drawn,
    TaskKind,
    choice,
    held_out,
    places,
    shuffle_examples,
)
from interp.score.sampling import draw_sample
from sae.core.files import sha256_hex

N_OFFERED = 6
"""Labels to choose from; 2 where the run has too few others."""
N_IMAGES = 4
"""Active images of a question."""
N_LEAST = 3
"""Fewer questions than this give no figure."""
_STREAM = 12


def draw(case: Case) -> tuple[Drawn, ...]:
    """As many questions as the sample's positives fill; the right label takes each place in turn.

    Each question has other wrong labels as long as there are some. Which ones follows from the
    latents' numbers.
    """
    assert case.test is not None
    rng = np.random.default_rng([_STREAM, case.latent])
    positives = draw_sample(case.evidence, case.config).positives
    held_out(case, positives)
    own, wrong = _told(case.test), _wrong_labels(case)
    n_wrong = N_OFFERED - 1 if len(wrong) >= N_OFFERED - 1 else 1
    n = len(positives) // N_IMAGES
    if n < N_LEAST or not wrong:
        return ()
    active, place = shuffle_examples(positives, rng), places(n_wrong + 1, rng)
    drawn = []
    for question in range(n):
        offered = [wrong[(question * n_wrong + i) % len(wrong)] for i in range(n_wrong)]
        slot = next(place)
        offered.insert(slot, own)
        truth = tuple(float(at == slot) for at in range(n_wrong + 1))
        shown = active[N_IMAGES * question : N_IMAGES * (question + 1)]
        drawn.append(Drawn(tuple(shown), truth, tuple(offered)))
    return tuple(drawn)


def _wrong_labels(case: Case) -> list[str]:
    """Labels of other latents, each wording once and none that reads like its own, in an order that
    stays as it is when further labels come."""
    assert case.test is not None
    apart: dict[str, tuple[str, str]] = {}
    for other in case.others:
        if other.label is not None and other.latent != case.latent:
            order = sha256_hex(f"{case.latent} {other.latent}".encode())
            apart.setdefault(_wording(_told(other)), (order, _told(other)))
    apart.pop(_wording(_told(case.test)), None)
    return [label for _, label in sorted(apart.values())]


def _told(explanation: Explanation) -> str:
    assert explanation.label is not None
    return cut_label(explanation.label)[0]


def _wording(label: str) -> str:
    return " ".join(label.casefold().split())


def measure(trials: Sequence[Trial], latent: int) -> Measured:
    """Share of questions in which the right label got the highest number; in `more` the share of
    all pairs of right and wrong label in which the right one got more (chance 1/2)."""
    pairs = [
        0.5 if right is None or wrong is None else float(np.sign(right - wrong) / 2 + 0.5)
        for trial in trials
        for right in [trial.answer[trial.truth.index(1)]]
        for wrong, true in zip(trial.answer, trial.truth, strict=True)
        if not true
    ]
    measured = choice(trials, latent)
    return measured._replace(more={"pairs": float(np.mean(pairs)) if pairs else float("nan")})


def _tell(_test: Explanation | None, drawn: Drawn) -> Mapping[str, Any]:
    return {"offered": dict(zip(SECOND, drawn.labels, strict=False))}


KIND = TaskKind(
    name="match",
    draw=draw,
    measure=measure,
    by_clip="labels",
    template="match",
    whole=True,
    tells=_tell,
)
