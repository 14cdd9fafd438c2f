"""A small batch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.support.sae.plain_steps import D, N


@pytest.fixture
def x() -> Tensor:
    return torch.randn(N, D, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
