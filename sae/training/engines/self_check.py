"""A rehearsal: whether an engine does, on this very device, what the plain one does.

Kernels meet GPUs, drivers and compilers that no test has seen. Before one is taken without being
asked for, it takes some steps of a small SAE beside the plain engine; this costs a second or two.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from sae.core.errors import Notice
from sae.model.sae import SAE
from sae.training.engines.interface import Engine, Objective, Reduce
from sae.training.engines.plain import PlainEngine

N_STEPS = 3
N_TOKENS = 512
MAX_LATENTS = 2048
LR = 1e-3
TOLERANCE = 0.05
"""Of the way that the weights went. A tie decided otherwise costs .01, a wrong kernel about 1."""


def rehearse(
    make: Callable[[SAE, Objective], Engine],
    model: SAE,
    objective: Objective,
    reduce: Reduce | None,
) -> bool:
    """Whether Triton does on this device, and on those of all other processes, what it should."""
    if reason := obstacle(make, model, objective):
        message = f"the Triton engine is not used: {reason}; the plain one takes longer"
        warnings.warn(message, Notice, stacklevel=2)
    n_failed = model.W_enc.new_tensor(float(bool(reason)))
    if reduce is not None:
        reduce([n_failed])
    return not n_failed.item()


def obstacle(make: Callable[[SAE, Objective], Engine], model: SAE, objective: Objective) -> str:
    """What speaks against the engine that `make` gives, for SAEs like `model`; "" where nothing.

    `model` is only looked at. Width, k and rule are its own, the latents are at most 2,048.
    """
    from triton.errors import TritonError

    try:
        apart = _apart(make, model, objective)
    except (TritonError, RuntimeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        return f"it fails here ({reason:.200})"
    if apart <= TOLERANCE:
        return ""
    return f"after {N_STEPS} steps its weights are {apart:.3g} of their way from the plain engine's"


def _apart(make: Callable[[SAE, Objective], Engine], model: SAE, objective: Objective) -> float:
    """Distance of the two engines' weights, in units of the way that the plain one's went."""
    start, ours, theirs = _small(model), _small(model), _small(model)
    engines = make(ours, objective), PlainEngine(theirs, objective)
    dead = torch.arange(start.n_latents, device=model.W_enc.device) % 4 == 0
    for step in range(N_STEPS):
        x = _drawn((N_TOKENS, model.d), seed=10 + step, like=model.W_enc)
        for engine in engines:
            engine.step(x, k=min(model.config.k, start.n_latents), lr=LR, dead=dead)
    way, error = (_distance(theirs, other) for other in (start, ours))
    return error / way if math.isfinite(error) else math.inf


def _small(model: SAE) -> SAE:
    """The same SAE each time: tied random rows, biases that are not 0."""
    n_latents = min(model.n_latents, MAX_LATENTS)
    small = SAE(replace(model.config, n_latents=n_latents, prefixes=())).to(model.W_enc.device)
    rows = nn.functional.normalize(_drawn((n_latents, model.d), seed=0, like=model.W_enc), dim=1)
    with torch.no_grad():
        small.W_dec.copy_(rows)
        small.W_enc.copy_(rows)
        small.b_enc.copy_(_drawn((n_latents,), seed=1, like=model.W_enc) / 10)
        small.b_dec.copy_(_drawn((model.d,), seed=2, like=model.W_enc) / 10)
    return small


def _drawn(shape: tuple[int, ...], seed: int, like: Tensor) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(like)


def _distance(one: SAE, other: SAE) -> float:
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return math.sqrt(sum(float((a.detach() - b.detach()).square().sum()) for a, b in pairs))
