"""Embeddings and a change of their codes -> embeddings that differ by that change alone."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from sae.model.sae import SAE, Codes


def error_kept(model: SAE, x: Tensor, change: Callable[[Codes], Codes]) -> Tensor:
    """Raw embeddings (n, d) after `change` was made to their codes, with the SAE's error kept.

    Only the difference that the change makes is added: without one, x comes back bit for bit.
    """
    codes = model.encode(x)
    return x + (model.rebuild(x, change(codes)) - model.rebuild(x, codes))
