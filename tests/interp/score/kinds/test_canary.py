"""Canaries: what is drawn, what passes, and what a run's share says."""

from __future__ import annotations

import numpy as np
import pytest

from interp.pictures.grid import FIRST, Tile
from interp.records.tasks import CANARY, CANARY_HALF, CANARY_START, TaskScore, Trial
from interp.score.agreement import warnings_of
from interp.score.kinds.canary import (
    BLANK,
    LABEL,
    TRIANGLE,
    canaries_of,
    canary,
    drift_of,
    first_in_turn,
    has_drifted,
    passes,
    repeat_canaries,
)
from interp.score.kinds.task import Drawn, detect_grids
from tests.support.interp.judging import Ruled, case, judge_task, questions

LATENTS = range(400)


def looks(tile: Tile, _drawn: Drawn) -> float:
    """100 for the triangle, by its pixels: white corners, black below the middle."""
    pixels = np.asarray(tile.image.convert("L").resize((64, 64)))
    return 100.0 * bool(pixels[0, 0] > 250 and pixels[45, 32] < 5)


def test_two_images_of_a_grid_give_way_to_the_triangle_and_a_blank_tile() -> None:
    (drawn,) = canary(1.0 / 4, 7).draw(case(7))
    shown = [example.image_id for example in drawn.examples]
    assert {TRIANGLE, BLANK} <= set(shown)
    assert [right for right in drawn.truth if right] == [drawn.truth[shown.index(TRIANGLE)]]
    kept = set(shown) - {TRIANGLE, BLANK}
    (grid,) = [g for g in detect_grids(case(7)) if kept < {e.image_id for e in g}]
    assert len(grid) == len(shown) == len(kept) + 2
    assert canary(1.0 / 4, 7).draw(case(7)) == (drawn,)


def test_a_share_of_all_questions_is_one_in_forty_and_places_are_all_taken() -> None:
    kind = canary(0.025)
    drawn = [one for latent in LATENTS for one in kind.draw(case(latent))]
    assert len(drawn) == pytest.approx(0.025 * 4 * len(LATENTS), abs=1)
    places = {one.truth.index(1.0) for one in drawn}
    assert len(places) >= 9
    assert canary(0.0).draw(case(7)) == ()
    assert first_in_turn(LATENTS)[0] in {n for n in LATENTS if kind.draw(case(n))}


def test_the_judge_is_told_another_label_and_none_of_the_latents_own() -> None:
    asked = questions(canary(0.0, 7))
    (question,) = asked
    text = str(question.parts[-1])
    assert f"Rule: <<<{LABEL}>>>" in text
    assert "red" not in text
    assert "Meaning" not in text
    assert question.schema_name == "detect"


def test_a_judge_that_looks_passes_and_one_that_does_not_fails() -> None:
    kind = canary(0.25)

    def share(rule):  # type: ignore[no-untyped-def]
        lines = [judge_task(kind, Ruled(rule), case(n)) for n in range(12)]
        assert {line.kind for line in lines} == {CANARY}
        assert {line.label for line in lines} == {""}
        return canaries_of(lines)

    def shifted(tile: Tile, drawn: Drawn) -> float:
        slot = FIRST.index(tile.letter)
        return 100 * drawn.truth[(slot + 1) % len(drawn.truth)]

    assert share(looks)["passed"] == 1
    assert share(shifted)["passed"] == 0
    assert share(lambda _tile, _drawn: 50.0)["passed"] == 0  # constant
    assert share(lambda tile, _drawn: 10.0 * FIRST.index(tile.letter))["passed"] < 0.2
    assert share(lambda _tile, _drawn: None) == {}  # refused: no answer that could be wrong
    found = share(looks)
    assert found["n"] == 12
    assert found["passed_low"] == pytest.approx(0.757, abs=0.01)


@pytest.mark.parametrize(
    ("triangle", "blank", "other", "expected"),
    [
        (100, 0, 0, True),
        (100, 10, 100, True),
        (100, 11, 0, False),
        (90, 0, 95, False),
        (40, 0, 0, False),
        (None, 0, 0, False),
        (100, None, 0, False),
        (100, 0, None, True),
    ],
)
def test_the_triangle_must_be_the_top_grade_and_the_blank_tile_near_nought(
    triangle: float | None, blank: float | None, other: float | None, expected: bool
) -> None:
    trial = Trial(("x", TRIANGLE, BLANK), (0, 1, 0), (other, triangle, blank))
    assert passes(trial) is expected


def test_below_nine_in_ten_there_is_a_warning() -> None:
    assert warnings_of({CANARY: {"n": 20, "passed": 0.9}}) == []
    (said,) = warnings_of({CANARY: {"n": 20, "passed": 0.85}})
    assert "failed 3 of 20 canaries" in said


def graded(errors: dict[str, float]) -> list[list[TaskScore]]:
    """Lines of three canaries at the moments that there are, other pictures graded so high."""
    every = canary(1.0)
    made = []
    for name in (CANARY_START, CANARY_HALF, CANARY):
        kind = every if name == CANARY else repeat_canaries(name, every)
        high = errors.get(name)

        def rule(tile: Tile, drawn: Drawn, high: float | None = high) -> float | None:
            return None if high is None else max(looks(tile, drawn), high)

        made.append([judge_task(kind, Ruled(rule), case(n)) for n in range(3)])
    return made


def test_the_same_pictures_stand_at_other_places_each_time() -> None:
    every = canary(0.25)
    (end,) = every.draw(case(7))
    orders = [end.examples]
    for name in (CANARY_START, CANARY_HALF):
        (drawn,) = repeat_canaries(name, every).draw(case(7))
        assert {e.image_id for e in drawn.examples} == {e.image_id for e in end.examples}
        assert drawn.examples[drawn.truth.index(1.0)].image_id == TRIANGLE
        orders.append(drawn.examples)
    assert len(set(orders)) == 3


def test_drift_is_the_largest_change_of_the_mean_error_since_the_start() -> None:
    figures = drift_of(*graded({CANARY_START: 10.0, CANARY_HALF: 30.0, CANARY: 20.0}))
    assert figures["repeated"] == 3
    assert figures["drift"] == pytest.approx(20 * 0.9)  # nine of ten pictures are no triangle
    assert has_drifted(figures)
    assert drift_of(*graded({CANARY_START: 10.0, CANARY: 10.0}))["drift"] == 0
    assert not has_drifted(drift_of(*graded({CANARY_START: 0.0, CANARY: 9.0})))
    assert drift_of(*graded({CANARY: 10.0})) == {}  # of one moment nothing is known
    assert not has_drifted({})
    few = {"start_passed": 1.0, "half_passed": 1.0, "end_passed": 0.5, "drift": 5.0}
    assert has_drifted(few)
    assert not has_drifted({**few, "end_passed": 0.75})
