"""A tensor that was read -> a refusal when not all its values are numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sae.core.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

ROWS = 1024


def require_finite(
    source: str, name: str, value: Tensor, remedy: str = "the file is damaged"
) -> None:
    """Raise `UserError` for a NaN or an infinity; no second tensor of that size is made."""
    if has_finite_sum(value):
        return
    import torch

    parts = torch.split(value, ROWS) if value.ndim else (value,)
    n_bad = sum(int(part.numel() - torch.isfinite(part).sum()) for part in parts)
    if n_bad:
        raise UserError(
            f"{source}: {name} {tuple(value.shape)} has {n_bad} values that are not finite "
            f"(NaN or infinite); {remedy}"
        )


def has_finite_sum(value: Tensor) -> bool:
    """True shows that all values are finite, about as quickly as they are copied; False shows
    nothing: a sum of finite values may be too large.
    """
    import torch

    summed = torch.float32 if value.element_size() < 4 else None  # float16 ends at 65,504
    return not value.is_floating_point() or bool(torch.isfinite(value.sum(dtype=summed)))
