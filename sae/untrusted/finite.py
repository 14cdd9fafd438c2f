"""Are all values of a tensor numbers?"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["n_not_finite"]

ROWS = 1024


def n_not_finite(value: Tensor) -> int:
    """How many values are NaN or infinite, found without a second tensor of that size."""
    if not value.is_floating_point() or torch.isfinite(value.sum()):
        return 0
    parts = torch.split(value, ROWS) if value.ndim else (value,)
    return sum(int(part.numel() - torch.isfinite(part).sum()) for part in parts)
