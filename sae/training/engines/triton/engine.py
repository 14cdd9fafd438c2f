"""The Triton engine: TopK with AuxK on a GPU, where only the encode product is dense.

    encode  pre-activations in bfloat16 and the maximum of each group of columns
    select  the k + 8 largest of each token through those maxima; rescored in float32, k are kept
    decode  residual, its square, and W_dec[latent] . residual for each active latent
    rows    per latent: both gradient rows, projection, Adam, unit length; no gradient is written

AuxK works on a dense block of the dead latents alone. Nothing waits for the device but the count
of the dead, which the host reads while the device encodes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple, get_args

import torch
import triton
from torch import Tensor

from sae.core.errors import UserError
from sae.model.sae import SAE
from sae.training.engines.interface import BETAS, Objective, Reduce, StepResult
from sae.training.engines.losses import floor_variance
from sae.training.engines.objective import whole_of
from sae.training.engines.triton import ops
from sae.training.engines.triton.gradients import Block, Entries, Pulled, bias_gradient, by_latent
from sae.training.engines.triton.rows import (
    Moments,
    Rows,
    gradient_rows,
    step_rows,
    step_rows_by,
    step_vector,
)
from sae.training.engines.triton.select import keep_strongest, rescore, select
from sae.training.engines.update import Update

__all__ = ["Precision", "TritonEngine", "why_not"]

Precision = Literal["float32", "selection", "bfloat16"]
"""What is done in bfloat16: nothing; the choice of candidates; all products with the weights."""
MARGIN = 8
"""Candidates beyond k: the k + 8 largest in bfloat16 held the k largest of float32 in all rows."""
INTERPRETED = not isinstance(ops._encode, triton.JITFunction)
LOW = torch.float16 if INTERPRETED else torch.bfloat16
"""Triton's interpreter would multiply the bits of a bfloat16 as if they were an integer."""
PARAMETERS = ("W_enc", "b_enc", "W_dec", "b_dec")
_COLUMNS = 64
"""The dead block's width is a multiple of this: matrix products like that."""


def why_not(model: SAE, objective: Objective, update: Update = Update()) -> str:
    """What keeps this engine from the model or what is asked for; "" where nothing does."""
    if not model.W_enc.is_cuda and not INTERPRETED:
        return f"it needs a CUDA GPU and the model is on {model.W_enc.device.type!r}"
    if model.W_enc.dtype != torch.float32:
        return f"it trains float32 weights, not {model.W_enc.dtype}"
    if model.config.activation != "topk":
        return f"it knows the activation 'topk' only, not {model.config.activation!r}"
    unknown = objective.beyond_auxk() or update.changed()
    return f"it does not know {unknown}" if unknown else ""


class Batch(NamedTuple):
    """A batch, or this process's part of one, after the forward pass."""

    pulled: Pulled
    entries: Entries
    fvu: Tensor
    """() this part's share of the FVU."""
    n: Tensor | int
    """Tokens of the whole batch."""


class TritonEngine:
    """See `interface.Engine`. Does what the plain engine does; rounds differently."""

    name = "triton"

    def __init__(
        self,
        model: SAE,
        objective: Objective,
        *,
        reduce: Reduce | None = None,
        precision: Precision | None = None,
        tiles: ops.Tiles | None = None,
        max_dead: int = 0,
        update: Update = Update(),
    ) -> None:
        """With `max_dead`, AuxK's block always has room for so many dead latents (the first) and
        nothing waits at all, as a CUDA graph needs it.
        """
        if obstacle := why_not(model, objective, update):
            raise UserError(f"backend 'triton' cannot do this: {obstacle}; try --backend auto")
        if precision not in (None, *get_args(Precision)):
            raise ValueError(f"precision {precision!r} is none of {get_args(Precision)}")
        self.model, self.objective = model, objective
        self.precision: Precision = precision or ("float32" if INTERPRETED else "selection")
        self.tiles = tiles or _default_tiles(self.precision)
        self.max_dead = max_dead
        self.n_steps = 0
        self._reduce = reduce
        self._moments = {
            name: Moments(torch.zeros_like(value), torch.zeros_like(value))
            for name, value in ((name, getattr(model, name).detach()) for name in PARAMETERS)
        }
        self._hyper = torch.zeros(3, device=model.W_enc.device)
        self._low: dict[str, Tensor] = {}
        self._versions: dict[str, int] = {}
        self._n_dead = _Count(model.W_enc.device)

    def step(self, x: Tensor, *, k: int, lr: float, dead: Tensor, **_unknown: object) -> StepResult:
        """See `Engine.step`; `judge` and `is_cls` belong to objectives that `why_not` refuses."""
        self.prepare(lr)
        return self.advance(x, k=k, dead=dead)

    def prepare(self, lr: float) -> None:
        """Put what changes from step to step on the device; a captured `advance` reads it there."""
        self.n_steps += 1
        values = (lr, 1 - BETAS[0] ** self.n_steps, 1 - BETAS[1] ** self.n_steps)
        for place, value in enumerate(values):
            self._hyper[place].fill_(value)
        self._renew_copies()

    @torch.no_grad()
    def advance(self, x: Tensor, *, k: int, dead: Tensor) -> StepResult:
        """The step itself: device work only. With `max_dead` a CUDA graph can hold all of it."""
        with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
            if not self.max_dead:
                self._n_dead.start(dead)
            batch = self._forward(x, min(k, self.model.n_latents))
            aux, block = x.new_zeros(()), None
            if width := self.max_dead or self._n_dead.wait():
                aux, block = self._auxk(batch, dead, width)
            n_active = batch.entries.starts.diff().float()
            loss = batch.fvu + self.objective.alpha * aux
            figures = torch.stack([loss, batch.fvu, aux, n_active.sum() / batch.n])
            self._update(batch, block, [figures, n_active])
            loss, fvu, aux, l0 = figures.unbind()
            return StepResult(loss, fvu, aux, l0, n_active > 0)

    def state(self) -> dict[str, Tensor]:
        """Copies of Adam's moments, by parameter, and the number of steps done."""
        state = {"n_steps": torch.tensor(self.n_steps)}
        for name, moments in self._moments.items():
            state[f"{name}.exp_avg"] = moments.mean.clone()
            state[f"{name}.exp_avg_sq"] = moments.square.clone()
        return state

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state` gave, of this engine or of another."""
        for name, moments in self._moments.items():
            moments.mean.copy_(state[f"{name}.exp_avg"])
            moments.square.copy_(state[f"{name}.exp_avg_sq"])
        self.n_steps = int(state["n_steps"])

    def _forward(self, x: Tensor, k: int) -> Batch:
        model = self.model
        whole = whole_of(x, self._reduce)
        x = (x - model.b_dec).contiguous()
        kept = self._select(x, k)
        decoded = ops.decode(x, self._low.get("W_dec", model.W_dec), kept)
        entries = by_latent(kept.values, kept.latents, model.n_latents)
        scale = -2 / whole.variance
        pulled = Pulled(x, decoded.residual, kept.values, decoded.pulls, scale)
        return Batch(pulled, entries, decoded.squares.sum() / whole.variance, whole.n)

    def _select(self, x: Tensor, k: int) -> ops.Kept:
        """The k largest pre-activations of tokens without b_dec."""
        model = self.model
        if self.precision == "float32":
            return select(ops.encode(x, model.W_enc, model.b_enc, k, self.tiles), k)
        c = k if self.precision == "bfloat16" else min(k + MARGIN, model.n_latents)
        low = x.to(LOW)
        kept = select(ops.encode(low, self._low["W_enc"], model.b_enc, c, self.tiles), c)
        if self.precision == "bfloat16":
            return kept
        return rescore(x, model.W_enc, model.b_enc, kept.latents, k)

    def _auxk(self, batch: Batch, dead: Tensor, width: int) -> tuple[Tensor, Block]:
        """AuxK as in `losses.auxk_loss`, and its gradients for the first `width` dead."""
        model, objective = self.model, self.objective
        x, residual = batch.pulled.x, batch.pulled.residual
        which, slot, n_here = _compact(dead, width)
        W_enc, W_dec = model.W_enc[which], model.W_dec[which]
        pre = self._product(x, W_enc.T) + model.b_enc[which]  # (n, columns)
        acts, slopes = keep_strongest(pre, n_here, min(objective.k_aux, pre.shape[1]))
        error = residual - self._product(acts, W_dec)
        whole = whole_of(residual, self._reduce)
        variance = floor_variance(whole.variance, whole.n, model.d)

        pull = error * (-2 * objective.alpha / variance)
        g_pre = self._product(pull, W_dec.T) * slopes
        g_enc, g_dec = self._product(g_pre.T, x), self._product(acts.T, pull)
        return error.square().sum() / variance, Block(slot, g_enc, g_dec, g_pre.sum(0))

    def _update(self, batch: Batch, block: Block | None, figures: list[Tensor]) -> None:
        """Adam on all parameters; with `reduce`, by the sum of all processes' gradients, and
        the figures are summed too.
        """
        model, pulled, hyper = self.model, batch.pulled, self._hyper
        g_b_enc = bias_gradient(batch.entries, pulled, block)
        # b_dec is also taken out of what is encoded, by the encoder as it was.
        g_b_dec = pulled.residual.sum(0) * pulled.scale - g_b_enc @ model.W_enc
        weights, moments = (model.W_enc, model.W_dec), self._moments
        copies = self._low.get("W_enc"), self._low.get("W_dec")
        rows = Rows(*weights, moments["W_enc"], moments["W_dec"], *copies)
        if self._reduce is None:
            step_rows(rows, batch.entries, pulled, block, hyper, self.tiles.chunk)
        else:
            g = gradient_rows(rows, batch.entries, pulled, block, self.tiles.chunk)
            self._reduce([*g, g_b_enc, g_b_dec, *figures])
            slot = torch.arange(model.n_latents, dtype=torch.int32, device=g_b_enc.device)
            step_rows_by(rows, Block(slot, *g, g_b_enc), hyper)
        step_vector(model.b_enc, moments["b_enc"], g_b_enc, hyper)
        step_vector(model.b_dec, moments["b_dec"], g_b_dec, hyper)

    def _product(self, a: Tensor, b: Tensor) -> Tensor:
        if self.precision != "bfloat16":
            return a @ b
        return (a.to(LOW) @ b.to(LOW)).float()

    def _renew_copies(self) -> None:
        """Fresh bfloat16 copies where someone else has written to the weights: our own kernels
        keep the copies up to date, and do not count as a new version.
        """
        wanted: dict[Precision, tuple[str, ...]] = {
            "float32": (),
            "selection": ("W_enc",),
            "bfloat16": ("W_enc", "W_dec"),
        }
        for name in wanted[self.precision]:
            weight = getattr(self.model, name).detach()
            if self._versions.get(name) == weight._version:
                continue
            copy = self._low.setdefault(name, torch.empty_like(weight, dtype=LOW))
            copy.copy_(weight)
            self._versions[name] = weight._version


class _Count:
    """How many latents are dead, fetched without holding up what is queued meanwhile."""

    def __init__(self, device: torch.device) -> None:
        pinned = device.type == "cuda"
        self._host = torch.zeros((), dtype=torch.int64, pin_memory=pinned)
        self._done = torch.cuda.Event() if pinned else None  # type: ignore[no-untyped-call]

    def start(self, dead: Tensor) -> None:
        self._host.copy_(dead.sum(), non_blocking=True)
        if self._done is not None:
            self._done.record()

    def wait(self) -> int:
        if self._done is not None:
            self._done.synchronize()
        return int(self._host)


def _compact(dead: Tensor, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """The first `width` dead latents (padded, with latent 0), each latent's place among them (-1:
    none), and how many there are, all on the device.
    """
    size = -(-width // _COLUMNS) * _COLUMNS
    place = dead.cumsum(0) - 1
    inside = dead & (place < width)
    at = torch.where(inside, place, size)
    latents = torch.arange(len(dead), device=dead.device)
    which = latents.new_zeros(size + 1).scatter(0, at, latents)[:size]
    return which, torch.where(inside, place, -1).int(), inside.sum(dtype=torch.int32)


def _default_tiles(precision: Precision) -> ops.Tiles:
    if INTERPRETED:
        return ops.Tiles(tokens=16, latents=64, depth=32, chunk=16)
    if precision == "float32":
        return ops.Tiles(tokens=64, latents=64, depth=32, warps=4, stages=2)
    return ops.Tiles()
