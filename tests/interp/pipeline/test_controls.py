"""Controls of the pipeline: which there are."""

from __future__ import annotations

import pytest

from interp.pipeline.controls import read_controls
from sae.core.errors import UserError


def test_controls_are_a_comma_list_and_each_is_run_once() -> None:
    assert read_controls(" untrained,random, untrained") == ["untrained", "random"]
    assert read_controls("") == read_controls("shuffled") == []
    with pytest.raises(UserError, match="shuffled makes no run"):
        read_controls("untrained,shuffled")


def test_an_unknown_control_is_named_with_the_nearest_one() -> None:
    with pytest.raises(UserError, match=r"'randm' is not known.*did you mean 'random'"):
        read_controls("shuffled,randm")
