from __future__ import annotations

import pytest
import torch

from sae.core.errors import UserError
from sae.steering.edit.places import parse_where

GRID = (2, 3)  # two rows of three


def mask(text: str, acts: list[list[float]], tokens: str) -> list[list[bool]]:
    return parse_where(text, tokens, GRID).mask(torch.tensor(acts), tokens, GRID).tolist()


def test_x_is_the_column_from_the_left_and_y_the_row_from_the_top() -> None:
    silent = [[0.0]] * 6
    assert [one for (one,) in mask("2,1", silent, "patch")] == [False] * 5 + [True]
    assert [one for (one,) in mask("1,0; 0,1", silent, "patch")] == [0, 1, 0, 1, 0, 0]
    assert [one for (one,) in mask("1,0", [[0.0]] * 7, "all")] == [0, 0, 1, 0, 0, 0, 0]


def test_the_peak_is_each_latents_own_patch_never_cls_and_none_where_it_is_silent() -> None:
    acts = [[9.0, 9.0, 0.0], [1.0, 0.0, 0.0], [0.0, 4.0, 0.0], *[[0.0, 3.0, 0.0]] * 4]
    found = torch.tensor(mask("peak", acts, "all"))
    assert found.nonzero().tolist() == [[1, 0], [2, 1]]


def test_all_and_cls() -> None:
    assert mask("cls", [[0.0]] * 7, "all") == [[True]] + [[False]] * 6
    assert mask("all", [[0.0]] * 7, "all") == [[True]] * 7
    assert mask("all", [[0.0]], "cls") == mask("cls", [[0.0]], "cls") == [[True]]


@pytest.mark.parametrize(
    ("text", "tokens", "said"),
    [
        (
            "3,0",
            "patch",
            r"--where 3,0 is outside the grid of 3 x 2 patches: x from 0 to 2, y from",
        ),
        ("0,0;0,2", "all", "--where 0,2 is outside the grid"),
        ("-1,0", "patch", "is none of all, peak, cls"),
        ("top", "patch", "is none of all, peak, cls"),
        ("", "patch", "is none of all, peak, cls"),
        ("cls", "patch", "this SAE reads patch tokens alone"),
        ("peak", "cls", "this SAE reads the CLS token alone"),
        ("0,0", "cls", "this SAE reads the CLS token alone"),
    ],
)
def test_a_place_that_is_not_there_is_said_in_one_line(text: str, tokens: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        parse_where(text, tokens, GRID)
    assert "\n" not in str(error.value)
