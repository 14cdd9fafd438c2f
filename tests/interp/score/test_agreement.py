"""Checks of a judge: what is asked again, what comes of it, and that planted faults are told."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from interp.pictures.grid import Tile
from interp.records.nulls import NullTest
from interp.records.tasks import ALONE, RETEST, SECOND_JUDGE, TaskScore
from interp.records.types import Score, Verdict
from interp.score.agreement import agreement_of, grids_of, neighbours, warnings_of
from interp.score.kinds import checks
from interp.score.kinds.task import TaskKind, detect_grids
from interp.score.lazy import (
    BY_PLACE,
    CONSTANT,
    ONE_SIDE,
    REPEATED,
    habits_of,
    lazy_notes,
)
from tests.support.interp.judging import Ruled, case, judge_task
from tests.support.interp.latents import paint
from tests.support.interp.scoring import redness

LATENTS = range(1, 41)
Grader = Callable[[Sequence[Tile]], list[float]]
"""Grades of the tiles of one question."""


class Grading(Ruled):
    """Grades all tiles of a question together."""

    def __init__(self, grade: Grader) -> None:
        super().__init__(lambda tile, _drawn: self.now[tile.letter])
        self.grade = grade
        self.now: dict[str, float] = {}

    async def put(self, posed, pictures, about=""):  # type: ignore[no-untyped-def]
        tiles = list(pictures())
        self.now = dict(zip([t.letter for t in tiles], self.grade(tiles), strict=True))
        return await super().put(posed, lambda: tiles, about)


def noisy(tile: Tile, seed: int = 0, sd: float = 5.0) -> float:
    """What a judge who looks says: the redness, and a little of chance that is the image's own."""
    chance = np.random.default_rng([seed, int(tile.image_id[:8], 16)]).normal(0, sd)
    return float(np.clip(redness(tile.image) + chance, 0, 100))


def honest(tiles: Sequence[Tile]) -> list[float]:
    return [noisy(tile) for tile in tiles]


@functools.cache
def first_answers(grade: Grader) -> dict[int, Score]:
    """Scores of all latents, as `detect` would have them of this judge."""
    kind = checks.second(1.0)  # all grids as they are
    scores = {}
    for latent in LATENTS:
        task = judge_task(kind, Grading(grade), case(latent))
        examples = [e for grid in detect_grids(case(latent)) for e in grid]
        grades = [answer for trial in task.trials for answer in trial.answer]
        scores[latent] = scored(
            latent,
            [
                Verdict(e.image_id, e.row, e.is_positive, e.act, e.stratum, e.kind, e.domain, grade)
                for e, grade in zip(examples, grades, strict=True)
            ],
        )
    return scores


def scored(latent: int, verdicts: Sequence[Verdict]) -> Score:
    figures = dict.fromkeys(("auroc", "auroc_low", "auroc_high", "auroc_easy", "auroc_hard"), 0.5)
    return Score(
        latent=latent,
        label="red",
        model="m",
        explainer="e",
        prompt="p",
        verdicts=tuple(verdicts),
        **figures,
        balanced_accuracy=0.5,
        spearman=0.0,
        n_positive=20,
        n_negative=20,
        n_missing=0,
        failure=None,
        calls=(),
        usd=0.0,
    )


def check(kind: TaskKind, first: Grader, again: Grader | None = None) -> dict[str, float]:
    judge = Grading(again or first)
    lines = [judge_task(kind, judge, case(latent)) for latent in LATENTS]
    return agreement_of(first_answers(first), [line for line in lines if line.trials], kind.name)


def test_five_percent_of_all_questions_and_images_follow_from_the_latents_number() -> None:
    for n in (4, 40):
        counts = [checks.n_again(0.05, n, latent) for latent in range(1000)]
        assert sum(counts) == pytest.approx(0.05 * n * 1000, abs=2)
        assert max(counts) - min(counts) <= 1
        every_third = [checks.n_again(0.05, n, latent) for latent in range(0, 3000, 3)]
        assert sum(every_third) == pytest.approx(0.05 * n * 1000, abs=3)
    assert checks.n_again(1.0, 4, 7) == 4
    assert checks.n_again(0.0, 4, 7) == 0


def test_a_retest_is_a_grid_in_reverse_and_an_image_alone_is_one_of_the_same() -> None:
    for latent in LATENTS:
        grids = detect_grids(case(latent))
        for drawn in checks.retest(0.05).draw(case(latent)):
            assert drawn.examples[::-1] in grids
        for drawn in checks.second(0.05).draw(case(latent)):
            assert drawn.examples in grids
        alone = checks.alone(0.05).draw(case(latent))
        assert len(alone) == 2
        assert {drawn.examples[0] for drawn in alone} <= {e for grid in grids for e in grid}
    assert (
        sum(len(checks.retest(0.05).draw(case(latent))) for latent in LATENTS) == 7
    )  # of 160, 5% of which are 8


def test_agreement_is_correlation_and_mean_absolute_difference() -> None:
    found = check(checks.retest(0.25), honest, lambda tiles: [noisy(t, seed=1) for t in tiles])
    first = {v.image_id: v.score for s in first_answers(honest).values() for v in s.verdicts}
    pairs = [
        (first[e.image_id], noisy(Tile("A", paint(e), None, e.image_id), seed=1))
        for latent in LATENTS
        for one in checks.retest(0.25).draw(case(latent))
        for e in one.examples
    ]
    x, y = np.array(pairs).T
    assert found["n"] == len(pairs)
    assert found["correlation"] == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert found["difference"] == pytest.approx(np.abs(x - y).mean())
    assert found["correlation_low"] < found["correlation"] < found["correlation_high"]
    assert found["difference_low"] < found["difference"] < found["difference_high"]
    assert warnings_of({RETEST: found}) == []


def test_kappa_is_cohens_with_an_interval_over_latents() -> None:
    other = lambda tiles: [noisy(t, seed=2, sd=60) for t in tiles]  # noqa: E731
    found = check(checks.second(0.5), honest, other)
    first = {v.image_id: v.score for s in first_answers(honest).values() for v in s.verdicts}
    pairs = (
        np.array(
            [
                (first[e.image_id], noisy(Tile("A", paint(e), None, e.image_id), seed=2, sd=60))
                for latent in LATENTS
                for one in checks.second(0.5).draw(case(latent))
                for e in one.examples
            ]
        )
        >= 50
    )
    agreed = (pairs[:, 0] == pairs[:, 1]).mean()
    share = pairs.mean(0)
    by_chance = share[0] * share[1] + (1 - share[0]) * (1 - share[1])
    assert found["kappa"] == pytest.approx((agreed - by_chance) / (1 - by_chance))
    assert found["kappa_low"] < found["kappa"] < found["kappa_high"]
    apart = check(checks.second(0.5), honest, lambda tiles: [100 - g for g in honest(tiles)])
    assert apart["kappa"] < 0
    assert warnings_of({SECOND_JUDGE: apart}) == [
        "a second judge does not agree on which images fit"
    ]


def leaking(tiles: Sequence[Tile]) -> list[float]:
    """A third of each grade is its neighbours'."""
    own = honest(tiles)
    return [
        2 / 3 * grade + np.mean([own[at] for at in neighbours(place, len(own))]) / 3
        if len(own) > 1
        else grade
        for place, grade in enumerate(own)
    ]


def offset(tiles: Sequence[Tile]) -> list[float]:
    """Several images in one question make the judge generous."""
    return [min(100.0, grade + 25 * (len(tiles) > 1)) for grade in honest(tiles)]


def test_grades_that_depend_on_neighbours_are_shown_by_the_images_asked_alone() -> None:
    for share in (0.05, 0.25):
        fair = {ALONE: check(checks.alone(share), honest)}
        assert fair[ALONE]["difference"] == 0
        assert warnings_of(fair) == []
    leak = check(checks.alone(0.25), leaking)
    assert leak["leak"] > 0.1
    assert leak["leak_low"] > 0
    for faulty in (leaking, offset):
        (warning,) = warnings_of({ALONE: check(checks.alone(0.25), faulty)})
        assert "change each other's grades" in warning


def test_a_judge_that_answers_by_letter_is_shown_by_the_reverse_order() -> None:
    by_letter = lambda tiles: [10.0 * place for place, _ in enumerate(tiles)]  # noqa: E731
    found = check(checks.retest(0.25), by_letter)
    assert found["same_by_letter"] == 1
    assert warnings_of({RETEST: found}) == [
        "the judge answers the same when the images stand in the reverse order"
    ]
    assert check(checks.retest(0.25), honest)["same_by_letter"] == 0
    dice = np.random.default_rng(0)
    guess = check(checks.retest(0.25), lambda tiles: dice.uniform(0, 100, len(tiles)).tolist())
    assert warnings_of({RETEST: guess}) == ["asked twice the judge does not repeat its grades"]


def test_lazy_answers_are_noted_and_a_judge_who_looks_is_not() -> None:
    grid = (10.0, 90.0, 20.0, 70.0, 55.0)
    assert lazy_notes([(50.0,) * 5] * 4) == [CONSTANT]
    assert lazy_notes([grid] * 4) == [REPEATED]
    rising = [tuple(10.0 * at + step for at in range(10)) for step in range(4)]
    assert BY_PLACE in lazy_notes(rising)
    assert lazy_notes([grid, grid[::-1], (60.0, 70.0, 80.0, 90.0, 55.0)]) == []
    above = [
        (60.0, 90.0, 70.0, 55.0, 99.0),
        (99.0, 51.0, 80.0, 70.0, 60.0),
        (50.0, 77.0, 66.0, 88.0, 51.0),
    ]
    assert lazy_notes(above) == [ONE_SIDE]
    assert lazy_notes([grid] * 2) == []
    assert lazy_notes([(None,) * 5] * 4) == []


@pytest.mark.parametrize(
    ("grade", "said"),
    [
        (honest, []),
        (lambda tiles: [30.0] * len(tiles), ["same grade", "below 50"]),
        (
            lambda tiles: [80.0, 20.0, 60.0, 10.0, 90.0, 30.0, 40.0, 55.0, 70.0, 5.0][: len(tiles)],
            ["the same answer", "place of the letter"],
        ),
        (
            lambda tiles: [min(100.0, 9.0 * at + noisy(t) / 10) for at, t in enumerate(tiles)],
            ["place of the letter"],
        ),
        (lambda tiles: [60 + noisy(t) / 3 for t in tiles], ["at 50 or above"]),
    ],
)
def test_habits_of_a_run_are_told(grade: Grader, said: list[str]) -> None:
    warnings = habits_of(first_answers(grade).values()).warnings()
    assert len(warnings) == len(said)
    for words in said:
        assert any(words in warning for warning in warnings)


def test_the_verdicts_of_a_score_fall_into_the_questions_that_were_asked() -> None:
    score = first_answers(honest)[3]
    grids = [tuple(e.image_id for e in grid) for grid in detect_grids(case(3))]
    assert [tuple(v.image_id for v in grid) for grid in grids_of(score.verdicts)] == grids
    assert neighbours(0, 10) == [1, 5]
    assert neighbours(7, 10) == [6, 8, 2]
    assert neighbours(4, 10) == [3, 9]


def test_what_foils_add_to_a_grade_is_told_and_complained_about_above_five_points() -> None:
    nulls = NullTest("foils", ())
    kind = checks.retest(0.25)
    lines = [judge_task(kind, Grading(honest), case(latent)) for latent in LATENTS]

    def shift(points: float, of: NullTest | None = nulls) -> dict[str, float]:
        scores = {
            latent: dataclasses.replace(
                score,
                nulls=of,
                verdicts=tuple(
                    dataclasses.replace(v, score=min(100.0, (v.score or 0) / 2 + points))
                    for v in score.verdicts
                ),
            )
            for latent, score in first_answers(honest).items()
        }
        halved = [_halved(line) for line in lines]
        return agreement_of(scores, halved, RETEST)

    assert "foil_shift" not in shift(0, None)  # asked without: nothing to tell
    none, some, much = shift(0), shift(4), shift(6)
    assert none["foil_shift"] == pytest.approx(0)
    assert some["foil_shift"] == pytest.approx(4)
    assert some["foil_shift_low"] <= 4 <= some["foil_shift_high"]
    assert some["foil_n"] == some["n"]
    assert not any("foils" in said for said in warnings_of({RETEST: some}))
    (said,) = [said for said in warnings_of({RETEST: much}) if "foils" in said]
    assert "+6.0 points" in said


def _halved(line: TaskScore) -> TaskScore:
    trials = tuple(
        dataclasses.replace(t, answer=tuple((a or 0) / 2 for a in t.answer)) for t in line.trials
    )
    return dataclasses.replace(line, trials=trials)
