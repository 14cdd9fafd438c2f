"""One training step of each system: ours, a plain dense one, and the peers' own code.

Where a peer's trainer takes tensors it is driven as it is. sparsify's insists on a language model:
there the body of its loop stands here, around its own module, loss and optimizer.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from sae.model.sae import SAE, SAEConfig
from sae.training.engines.choice import engine_for
from sae.training.engines.interface import BETAS, EPS, Engine, Objective
from sae.training.engines.sparse.engine import Selection, SparseEngine

LR = 1e-3
ALPHA = 1 / 32
_ALWAYS = 1 << 40
"""Tokens or batches without an activation, more than any threshold."""


@dataclass(frozen=True)
class Task:
    """What every system trains."""

    x: Tensor
    """(n, d) tokens to start from, centred and scaled."""
    n_latents: int
    k: int
    dead: Tensor
    """(n_latents,) mask of the latents that count as dead throughout."""

    @property
    def d(self) -> int:
        return self.x.shape[1]

    @property
    def device(self) -> str:
        return str(self.x.device)


Step = Callable[[Tensor], object]


def dense(task: Task) -> Step:
    """TopK in a page of PyTorch: all products dense, autograd, torch's Adam as it comes."""
    model = torch.nn.ParameterDict(dict(_start(task).named_parameters()))
    adam = torch.optim.Adam(model.parameters(), lr=LR, betas=BETAS, eps=EPS)
    k_aux = min(task.d // 2, int(task.dead.sum()))

    def only_largest(values: Tensor, k: int) -> Tensor:
        kept = torch.topk(values, k, dim=1)
        return torch.zeros_like(values).scatter(1, kept.indices, kept.values.relu())

    def step(x: Tensor) -> float:
        pre = F.linear(x - model.b_dec, model.W_enc, model.b_enc)
        error = x - (only_largest(pre, task.k) @ model.W_dec + model.b_dec)
        loss = error.square().sum() / (x - x.mean(0)).square().sum()
        if k_aux:
            of_dead = only_largest(pre.where(task.dead, -torch.inf), k_aux) @ model.W_dec
            residual = error.detach()
            variance = (residual - residual.mean(0)).square().sum()
            loss = loss + ALPHA * (residual - of_dead).square().sum() / variance
        adam.zero_grad()
        loss.backward()
        with torch.no_grad():
            gradient, rows = model.W_dec.grad, model.W_dec
            gradient -= (gradient * rows).sum(1, keepdim=True) * rows
            adam.step()
            rows /= rows.norm(dim=1, keepdim=True)
        return loss.item()

    return step


def ours(
    task: Task,
    backend: Literal["plain", "sparse", "triton"],
    selection: Selection | None = None,
    activation: str = "topk",
) -> Step:
    """One of this package's engines."""
    model, objective = _start(task, activation), Objective(k_aux=task.d // 2, alpha=ALPHA)
    engine: Engine = (
        SparseEngine(model, objective, selection=selection)
        if selection
        else engine_for(model, objective, backend)
    )
    return lambda x: engine.step(x, k=task.k, lr=LR, dead=task.dead)


def sparsify(task: Task) -> Step:
    """The body of sparsify's `Trainer.fit` with loss "fvu" and optimizer "adam"."""
    if task.device == "cpu":
        os.environ["SPARSIFY_DISABLE_TRITON"] = "1"  # its kernel needs a GPU
    from sparsify import SparseCoder, SparseCoderConfig
    from transformers import get_linear_schedule_with_warmup

    config = SparseCoderConfig(num_latents=task.n_latents, k=task.k)
    coder = SparseCoder(task.d, config, device=task.device, dtype=torch.float32)
    coder.b_dec.data = task.x.mean(0)
    adam = torch.optim.Adam(coder.parameters(), lr=LR)
    schedule = get_linear_schedule_with_warmup(adam, 0, 1_000_000)
    silent_for = torch.zeros(task.n_latents, dtype=torch.long, device=task.device)

    def step(x: Tensor) -> float:
        did_fire = torch.zeros_like(silent_for, dtype=torch.bool)
        silent_for[task.dead] = _ALWAYS
        coder.set_decoder_norm_to_unit_norm()
        dead_mask = silent_for > 10_000_000
        variance = (x - x.mean(0)).pow(2).sum()
        out = coder(x, x, dead_mask=dead_mask, total_variance=variance)
        did_fire[out.latent_indices.flatten()] = True
        fvu = float(out.fvu.detach()) + float(out.auxk_loss.detach())
        (out.fvu + ALPHA * out.auxk_loss + out.multi_topk_fvu / 8).div(1).backward()
        coder.remove_gradient_parallel_to_decoder_directions()
        adam.step()
        adam.zero_grad()
        schedule.step()
        with torch.no_grad():
            silent_for.add_(len(x))
            silent_for[did_fire] = 0
        return fvu

    return step


def dictionary_learning(task: Task, rule: Literal["TopK", "BatchTopK"] = "TopK") -> Step:
    """Its trainers' `update`."""
    from dictionary_learning.trainers.batch_top_k import BatchTopKTrainer
    from dictionary_learning.trainers.top_k import TopKTrainer

    maker: Any = TopKTrainer if rule == "TopK" else BatchTopKTrainer
    trainer = maker(
        steps=1_000_000,
        activation_dim=task.d,
        dict_size=task.n_latents,
        k=task.k,
        layer=0,
        lm_name="",
        lr=LR,
        auxk_alpha=ALPHA,
        warmup_steps=1,
        device=task.device,
    )
    trainer.update(0, task.x)  # starts b_dec at the geometric median
    steps = iter(range(1, 1_000_000))

    def step(x: Tensor) -> object:
        trainer.num_tokens_since_fired[task.dead] = _ALWAYS
        return trainer.update(next(steps), x)

    return step


def sae_lens(task: Task, sparse: bool = False) -> Step:
    """A training step of its `SAETrainer`."""
    os.environ.setdefault("WANDB_MODE", "disabled")
    from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.config import SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    config = TopKTrainingSAEConfig(
        d_in=task.d,
        d_sae=task.n_latents,
        k=task.k,
        device=task.device,
        use_sparse_activations=sparse,
        # With its sparse activations the rescaling cannot be differentiated on a CPU.
        rescale_acts_by_decoder_norm=not sparse,
    )
    settings = SAETrainerConfig(
        total_training_samples=1 << 40,
        train_batch_size_samples=len(task.x),
        lr=LR,
        lr_end=LR / 10,
        device=task.device,
        checkpoint_path=tempfile.gettempdir(),
    )
    trainer: Any = SAETrainer(settings, TopKTrainingSAE(config), iter(()))

    def step(x: Tensor) -> object:
        trainer.n_forward_passes_since_fired[task.dead] = _ALWAYS
        return trainer._train_step(sae=trainer.sae, sae_in=x)

    return step


SYSTEMS: dict[str, Callable[[Task], Step]] = {
    "dense": dense,
    "plain": lambda task: ours(task, "plain"),
    "sparse float32": lambda task: ours(task, "sparse", "float32"),
    "sparse bfloat16": lambda task: ours(task, "sparse", "bfloat16"),
    "sparse BatchTopK": lambda task: ours(task, "sparse", activation="batch_topk"),
    "triton": lambda task: ours(task, "triton"),
    "sparsify": sparsify,
    "dictionary_learning TopK": dictionary_learning,
    "dictionary_learning BatchTopK": lambda task: dictionary_learning(task, "BatchTopK"),
    "sae-lens": sae_lens,
    "sae-lens sparse": lambda task: sae_lens(task, sparse=True),
}
PACKAGES = {
    "sparsify": "eai-sparsify",
    "dictionary_learning TopK": "dictionary-learning",
    "dictionary_learning BatchTopK": "dictionary-learning",
    "sae-lens": "sae-lens",
    "sae-lens sparse": "sae-lens",
}
"""What `pip install` calls them (extra `bench`)."""


def _start(task: Task, activation: str = "topk") -> SAE:
    generator = torch.Generator().manual_seed(0)
    config = SAEConfig(d=task.d, n_latents=task.n_latents, k=task.k, activation=activation)
    model = SAE(config)
    rows = F.normalize(torch.randn(task.n_latents, task.d, generator=generator), dim=1)
    with torch.no_grad():
        model.W_dec.copy_(rows)
        model.W_enc.copy_(rows)
    return model.to(task.device)
