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
    return exchange_codes(model, x, codes, change(codes))


def exchange_codes(model: SAE, x: Tensor, before: Codes, after: Codes) -> Tensor:
    """x (n, d), whose codes are `before`, with what tells `after` from them added."""
    return x + (model.rebuild(x, after) - model.rebuild(x, before))
