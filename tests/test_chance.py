"""Every test begins with the same chance, wherever it runs and whatever ran before it."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch


def draw() -> list[float]:
    return [random.random(), float(np.random.rand()), torch.rand(1).item()]


@pytest.mark.parametrize("turn", [1, 2])
def test_what_is_drawn_first_is_what_follows_the_seed_0(turn: int) -> None:
    drawn = draw()
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    assert drawn == draw()
    draw()  # the second turn would go on from here
