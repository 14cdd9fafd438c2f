"""What training minimises: the unexplained variance, and what keeps latents sparse and alive.

Every loss is a sum over the tokens of a batch, divided by something that belongs to the whole
batch. Where several processes share a batch, each gives its own sum and the common divisor: their
losses then add up to the loss of the batch, and so do their gradients.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

LEAK = 0.1
"""Slope below 0 of the ReLU in AuxK."""
RESIDUAL_FLOOR = 1e-4
"""Residuals of less than this mean square are not worth rebuilding (that of the data is 1)."""


def fvu(
    x: Tensor, x_hat: Tensor, variance: Tensor | None = None, weights: Tensor | None = None
) -> Tensor:
    """Fraction of variance unexplained: 0 is perfect, 1 is no better than the batch mean.

    Both are (n, d); the variances of all dimensions are summed before they are divided.
    `variance` () replaces that of `x`, where `x` is a part of the batch, or something else is to be
    the measure. `weights` (n, 1) are those of the tokens' squares.
    """
    squares = (x - x_hat).square()
    left = (squares if weights is None else weights * squares).sum()
    return left / (variance_of(x) if variance is None else variance)


def variance_of(x: Tensor) -> Tensor:
    """Sum of squares of (n, d) about the mean over n."""
    return (x - x.mean(0)).square().sum()


def auxk_loss(
    residual: Tensor,
    pre: Tensor,
    W_dec: Tensor,
    dead: Tensor,
    k_aux: int,
    variance: Tensor | None = None,
    leak: float = LEAK,
) -> Tensor:
    """How badly the `k_aux` strongest dead latents rebuild the residual: 0 is perfectly.

    `residual` (n, d) is x - x_hat in centred space, taken as a constant; `pre` (n, n_latents) are
    pre-activations; `dead` (n_latents,) is a mask. Without dead latents the loss is 0. Its gradient
    reaches W_dec and, through `pre`, the encoder. `variance` () replaces that of the residual,
    where this is a part of the batch; `leak` is the slope below 0 of the ReLU. Source: Gao et al.
    2024, A.2.
    """
    which = dead.nonzero().squeeze(1)  # (n_dead,)
    if len(which) == 0:
        return residual.new_zeros(())
    residual = residual.detach()
    # A plain ReLU gives no gradient to a latent that is below 0 for every token, so that it stays
    # dead: with it 12% of 2,048 latents were dead on planted data (lr 8e-3), with this 0.2%, at the
    # same FVU; without any ReLU the FVU rose from .072 to .078.
    acts = F.leaky_relu(_strongest(pre[:, which], k_aux), leak)  # (n, n_dead)
    # Dead latents rebuild the residual, which has no b_dec in it: so none is added here.
    error = residual - acts @ W_dec[which]
    if variance is None:
        variance = floor_variance(variance_of(residual), len(residual), residual.shape[1])
    return error.square().sum() / variance


def sparsify_auxk_loss(
    residual: Tensor, pre: Tensor, W_dec: Tensor, dead: Tensor, k_aux: int, variance: Tensor
) -> Tensor:
    """AuxK as sparsify weighs it: over the `variance` () of the data, and less for few dead ones.

    Arguments as for `auxk_loss`; the weight is n_dead / k_aux where that is below 1, and a latent
    below 0 rebuilds nothing. What sparsify had wrong is not here: b_dec in what the dead latents
    rebuild, and in its early versions the residual's sign.
    """
    share = (dead.sum().to(residual) / k_aux).clamp(max=1)
    return share * auxk_loss(residual, pre, W_dec, dead, k_aux, variance, leak=0.0)


def floor_variance(variance: Tensor, n: Tensor | int, d: int) -> Tensor:
    """The variance of residuals (n, d), or what AuxK takes for it where next to nothing is left."""
    # Without a floor the loss explodes where the living latents leave next to nothing.
    return variance.clamp(min=RESIDUAL_FLOOR * n * d)


def ttt_ghost_loss(
    residual: Tensor,
    pre: Tensor,
    W_dec: Tensor,
    b_dec: Tensor,
    dead: Tensor,
    n: Tensor | int | None = None,
) -> Tensor:
    """Mean square of what all dead latents together, linear and with b_dec, leave of the residual.

    Arguments as for `auxk_loss`. AuxK is better founded: the residual has no b_dec in it, and no
    ReLU bounds what a dead latent adds. This is here to train as the TTT paper did (Hübotter et
    al. 2025, arXiv 2509.24510). `n` replaces the number of tokens, where this is a part of them.
    """
    which = dead.nonzero().squeeze(1)
    if len(which) == 0:
        return residual.new_zeros(())
    ghost = pre[:, which] @ W_dec[which] + b_dec  # (n, d)
    return _mean((ghost - residual.detach()).square(), n)


def patchsae_ghost_loss(
    x: Tensor,
    x_hat: Tensor,
    pre: Tensor,
    W_dec: Tensor,
    dead: Tensor,
    n: Tensor | int | None = None,
) -> Tensor:
    """Ghost gradients as PatchSAE has them: exp(pre) of the dead latents rebuilds the residual.

    What they give is brought to half the residual's length, and its error to the size of the
    reconstruction's, both as constants: the value is about mean((x_hat - x)^2 / |x|), the gradient
    reaches dead latents alone. Arguments as for `auxk_loss`. Source: Jermyn and Templeton 2024, in
    the form of PatchSAE (Lim et al. 2024).
    """
    which = dead.nonzero().squeeze(1)
    if len(which) == 0:
        return x.new_zeros(())
    residual = (x - x_hat).detach()
    length = residual.norm(dim=1, keepdim=True)  # (n, 1)
    ghost = pre[:, which].exp() @ W_dec[which]  # (n, d)
    ghost = ghost * (length / (2 * ghost.norm(dim=1, keepdim=True) + 1e-6)).detach()
    # A token that is rebuilt exactly has nothing to teach: without the bound it would give 0 / 0.
    error = (ghost - residual).square() / length.clamp(min=1e-6)
    wanted = residual.square() / x.norm(dim=1, keepdim=True).clamp(min=1e-6)
    return _mean(error * (wanted / (error + 1e-6)).detach(), n)


def l1_norm(acts: Tensor, n: Tensor | int | None = None) -> Tensor:
    """Mean over tokens of the sum of |activation|: of (n, any) activations."""
    return acts.abs().sum() / (len(acts) if n is None else n)


def _mean(errors: Tensor, n: Tensor | int | None) -> Tensor:
    """Of (n, d), where `n` may be that of a larger batch."""
    return errors.sum() / ((len(errors) if n is None else n) * errors.shape[1])


def _strongest(pre: Tensor, k: int) -> Tensor:
    """The `k` largest of each row, in place; zero elsewhere."""
    if pre.shape[1] <= k:
        return pre
    kept = torch.topk(pre, k, dim=1, sorted=False)
    return torch.zeros_like(pre).scatter(1, kept.indices, kept.values)
