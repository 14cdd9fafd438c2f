"""Words, labels and directions made by hand: what comes first, and by which of them."""

from __future__ import annotations

import numpy as np
import pytest

from interp.local.label_words import LabelWords, stems
from interp.local.ranking import Ranking, Texts

EYE = np.eye(4, dtype=np.float32)
NOTHING = np.zeros(4, np.float32)


def _said(*labels: str) -> list[Texts]:
    return [Texts(label, "", "") for label in labels]


def _rank(ranking: Ranking, query: str, row: np.ndarray, top: int = 4) -> list[int]:
    return [one.latent for one in ranking.rank(query, row.astype(np.float32), top)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A Wheel", {"wheel"}),
        ("the wheels of a car", {"wheel", "car"}),
        ("cherries, boxes and glass", {"cherry", "box", "glass"}),
        ("on the", {"on", "the"}),
        ("…", set()),
    ],
)
def test_stems_leave_out_case_little_words_and_plurals(text: str, words: set[str]) -> None:
    assert stems(text) == words


def test_words_agree_by_what_label_second_label_and_description_share() -> None:
    labels = LabelWords(
        ["wheel", "red wheel", "cup", "", "tree"],
        ["", "", "wheels", "", ""],
        ["", "", "", "it shows a wheel", "a wheel and red leaves"],
    )
    assert labels.agreement("a wheel").tolist() == [1.0, 0.5, 1.0, 0.5, 0.5]
    assert labels.agreement("red wheels").tolist() == [0.5, 1.0, 0.5, 0.25, 0.5]
    assert labels.agreement("!").tolist() == [0.0] * 5


def test_a_latent_is_found_by_its_direction_without_any_label() -> None:
    ranking = Ranking(np.arange(4) + 10, EYE, _said("", "", "", ""), np.zeros((4, 4)), NOTHING)
    assert _rank(ranking, "wheel", EYE[2] + 0.2 * EYE[0])[:2] == [12, 10]


def test_a_latent_is_found_by_its_label_where_directions_say_nothing() -> None:
    rows = np.zeros((4, 4), np.float32)
    ranking = Ranking(np.arange(4), rows, _said("cup", "", "wheel", "tree"), rows, NOTHING)
    assert _rank(ranking, "wheels", EYE[0])[0] == 2


def test_a_label_of_the_same_meaning_counts_as_the_word_itself() -> None:
    directions, labels = EYE[[0, 0]], EYE[[1, 0]]
    ranking = Ranking(np.arange(2), directions, _said("cup", "automobile"), labels, NOTHING)
    [first, second] = ranking.rank("car", EYE[0], 2)
    assert (first.latent, first.match, first.wording) == (1, 1.0, 1.0)
    assert (second.match, second.direction) == (0.5, 1.0)


def test_what_is_usual_of_a_text_is_taken_off() -> None:
    usual = 5 * EYE[3]
    ranking = Ranking(np.arange(4), EYE, _said("", "", "", ""), np.zeros((4, 4)), usual)
    assert _rank(ranking, "wheel", usual + EYE[1])[0] == 1


def test_equal_latents_stand_by_number_and_top_cuts() -> None:
    rows = EYE[[0, 0, 0]]
    ranking = Ranking(np.array([3, 5, 9]), rows, _said("", "", ""), rows, NOTHING)
    assert _rank(ranking, "wheel", EYE[0], 2) == [3, 5]
