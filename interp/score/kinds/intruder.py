"""Held-out images alone -> which of k active ones and a silent one does not belong?

It needs no label: it asks whether there is anything to be seen that the latent's images share.
"""

from __future__ import annotations

import numpy as np

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

N_ACTIVE = 4
"""Active images beside one silent one: chance is 1 in 5."""
N_LEAST = 3
"""Fewer questions than this give no figure."""
_STREAM = 11


def draw(case: Case) -> tuple[Drawn, ...]:
    """As many questions as the sample's positives fill, all images of a question of one domain.

    An active image stands in one question, a silent one too. Where the intruder stands follows from
    the latent's number, and each place comes about equally often.
    """
    rng = np.random.default_rng([_STREAM, case.latent])
    sample = draw_sample(case.evidence, case.config)
    held_out(case, (*sample.positives, *sample.negatives))
    place = places(N_ACTIVE + 1, rng)
    drawn: list[Drawn] = []
    for domain in sorted({example.domain for example in sample.positives}):
        active = shuffle_examples([e for e in sample.positives if e.domain == domain], rng)
        silent = [e for e in sample.negatives if e.domain == domain and e.act == 0]
        silent.sort(key=lambda e: e.kind != "silent")  # hard ones, the look-alikes, come last
        for question, intruder in enumerate(silent[: len(active) // N_ACTIVE]):
            shown = active[N_ACTIVE * question : N_ACTIVE * (question + 1)]
            slot = next(place)
            shown.insert(slot, intruder)
            truth = tuple(float(one is intruder) for one in shown)
            drawn.append(Drawn(tuple(shown), truth))
    return tuple(drawn) if len(drawn) >= N_LEAST else ()


KIND = TaskKind(
    name="intruder",
    draw=draw,
    measure=choice,
    by_clip="odd one",
    template="intruder",
    whole=True,
    needs_label=False,
)
