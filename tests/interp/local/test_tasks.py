"""CLIP in judging tasks: it grades, finds the odd image out and holds labels against images."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from interp.local.clip_encoder import ClipEncoder
from interp.local.models import LocalJudge
from interp.local.tasks import LocalTaskJudge
from interp.score.kinds import fuzz, intruder, match, simulate
from interp.score.kinds.task import TaskKind
from interp.score.tasks import run_task
from sae.core.errors import UserError
from tests.support.interp.judging import Case, case
from tests.support.interp.latents import ColourClip, paint, plain_with_ids


def judged(kind: TaskKind, one: Case | None = None):
    encoder = ClipEncoder(ColourClip())
    background = plain_with_ids("red", "green", "blue", "yellow", "white", "white")
    judge = LocalTaskJudge(LocalJudge(encoder, background), encoder)
    return asyncio.run(run_task(kind, one or case(), judge, paint))


def test_a_right_label_predicts_activation_and_is_chosen_among_six() -> None:
    assert judged(simulate.KIND).value > 0.7
    found = judged(match.KIND)
    assert (found.value, found.chance) == (1, pytest.approx(1 / 6))
    assert all(
        0 <= answer <= 10 for trial in judged(simulate.KIND).trials for answer in trial.answer
    )


def test_the_odd_image_is_the_one_that_points_away_from_the_mean_of_the_others() -> None:
    found = judged(intruder.KIND)
    assert found.value == 1
    for trial, drawn in zip(found.trials, intruder.draw(case()), strict=True):
        rows = np.array(
            [np.asarray(paint(e)).reshape(-1, 3).mean(0) / 255 + 1e-6 for e in drawn.examples]
        )
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        others = rows.sum(0) - rows
        others /= np.linalg.norm(others, axis=1, keepdims=True)
        assert np.allclose(trial.answer, 50 - 50 * (rows * others).sum(1), atol=0.02)


def test_fuzz_is_refused_with_what_to_name_instead() -> None:
    with pytest.raises(UserError, match="name a vision model"):
        judged(fuzz.KIND, case(heat=True))
