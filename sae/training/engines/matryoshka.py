"""Matryoshka dictionaries: so many first latents must rebuild the data without the others.

Small prefixes learn what is common, and later latents what is special, instead of splitting the
common into parts (Bussmann et al. 2025, fixed sizes; Nabeshima 2024 and saev, random ones).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from sae.model.sparsity import Codes

POWER = 0.5
"""Of the Pareto distribution of random prefix sizes: a share of s^-POWER is larger than s."""


def random_prefixes(n_latents: int, n_prefixes: int, generator: torch.Generator) -> tuple[int, ...]:
    """`n_prefixes` different sizes in ascending order; the last is `n_latents`.

    Sizes are Pareto-distributed, as in saev: small ones come often. `generator` is on the CPU.
    """
    # P(size = s) for s = 1, 2, ...; that of 1 is 0, as in saev.
    upper = 1 - torch.arange(1, max(2, n_latents), dtype=torch.float64) ** -POWER
    chances = upper.diff(prepend=upper.new_zeros(1))
    n_drawn = min(n_prefixes - 1, int((chances > 0).sum()))
    if n_drawn < 1:
        return (n_latents,)
    sizes = torch.multinomial(chances, n_drawn, replacement=False, generator=generator) + 1
    return (*sorted(sizes.tolist()), n_latents)


def decode_prefixes(kept: Codes | Tensor, W_dec: Tensor, prefixes: Sequence[int]) -> Tensor:
    """What each prefix rebuilds, (n, n_prefixes, d), without b_dec.

    `kept` are codes, or activations (n, n_latents); `prefixes` rise to n_latents. All prefixes
    together cost one decoding: each adds its own latents to what the one before has rebuilt.
    """
    part = _parts_of_codes if isinstance(kept, Codes) else _parts_of_acts
    return part(kept, W_dec, prefixes).cumsum(1)  # type: ignore[arg-type]


def nested_fvu(
    x: Tensor, x_hats: Tensor, variance: Tensor, weights: Tensor | None = None
) -> Tensor:
    """Mean over the prefixes of the FVU: of x (n, d) and x_hats (n, n_prefixes, d).

    `weights` (n, 1) are those of the tokens' squares.
    """
    squares = (x.unsqueeze(1) - x_hats).square()
    left = (squares if weights is None else weights.unsqueeze(1) * squares).sum()
    return left / (variance * x_hats.shape[1])


def _parts_of_acts(acts: Tensor, W_dec: Tensor, prefixes: Sequence[int]) -> Tensor:
    borders = [0, *prefixes]
    parts = [acts[:, a:b] @ W_dec[a:b] for a, b in zip(borders, prefixes, strict=False)]
    return torch.stack(parts, dim=1)


def _parts_of_codes(codes: Codes, W_dec: Tensor, prefixes: Sequence[int]) -> Tensor:
    """One bag per token and part: sorted by latent, the parts of a token follow one another."""
    n, k = codes.latents.shape
    latents, order = codes.latents.sort(dim=1)
    acts = codes.acts.gather(1, order).to(W_dec.dtype)
    borders = torch.tensor([0, *prefixes[:-1]], device=latents.device).expand(n, -1).contiguous()
    begins = torch.searchsorted(latents, borders)  # (n, n_prefixes): places within a row
    offsets = begins + k * torch.arange(n, device=latents.device).unsqueeze(1)
    parts = F.embedding_bag(
        latents.flatten(),
        W_dec,
        offsets.flatten(),
        per_sample_weights=acts.flatten(),
        mode="sum",
    )
    return parts.view(n, len(prefixes), -1)
