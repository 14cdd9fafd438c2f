"""What `train_quality.py` compares: ours and the peers' own code, each trained on the same tokens.

The peers get what they do not do themselves: tokens centred and scaled, AuxK at 1/32 where they
have it, and a warm-up, decay and dead threshold that fit so short a training (their defaults are
made for a thousand times as many tokens).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from planted import write_store
from torch import Tensor

from sae.training.config import AUTO_LR, TrainConfig
from sae.training.train import train

ALPHA = 1 / 32
WARMUP_STEPS = 50
DECAY_SHARE = 0.2
DEAD_AFTER = 50_000
"""Silent tokens that make a latent dead, in the peers."""


@dataclass(frozen=True)
class Budget:
    """What every system trains, and how long."""

    x: Tensor
    """(n, d) raw tokens."""
    n_latents: int
    k: int
    batch_size: int
    n_tokens: int
    seed: int

    @property
    def n_steps(self) -> int:
        return self.n_tokens // self.batch_size

    @property
    def d(self) -> int:
        return self.x.shape[1]

    def batches(self, x: Tensor) -> Iterator[Tensor]:
        """Pass after pass over `x`, each in a new order."""
        generator = torch.Generator().manual_seed(self.seed)
        order = torch.empty(0, dtype=torch.int64)
        for _ in range(self.n_steps):
            if len(order) < self.batch_size:
                order = torch.cat([order, torch.randperm(len(x), generator=generator)])
            yield x[order[: self.batch_size]]
            order = order[self.batch_size :]


class Dictionary(NamedTuple):
    """What came out of a training."""

    rebuild: Callable[[Tensor], tuple[Tensor, Tensor]]
    """Raw tokens (n, d) -> their reconstruction, and activations (n, n_latents)."""
    W_dec: Tensor
    """(n_latents, d)"""
    lr: float
    dead: float
    """Share of the latents that were dead at the end by the training's own count."""


Learner = Callable[[Budget, float], Dictionary]
"""Trains with a learning rate; 0 is the system's own."""


def ours(budget: Budget, lr: float) -> Dictionary:
    """The default settings; without a rate `--lr auto`."""
    config = TrainConfig(
        n_latents=budget.n_latents,
        k=budget.k,
        lr=lr or AUTO_LR,
        batch_size=budget.batch_size,
        n_tokens=budget.n_tokens,
        holdout=0.0,
        seed=budget.seed,
        checkpoint_every=0,
    )
    with tempfile.TemporaryDirectory() as folder:
        store = write_store(Path(folder) / "store", budget.x)
        result = train(store, Path(folder) / "sae", config)
    model = result.model

    def rebuild(x: Tensor) -> tuple[Tensor, Tensor]:
        codes = model.encode(x)
        return model.decode(codes), codes.dense(model.n_latents)

    chosen = result.choice.lr if result.choice else lr
    return Dictionary(rebuild, model.W_dec.detach(), chosen, result.last.dead)


def sparsify(budget: Budget, lr: float) -> Dictionary:
    """The body of sparsify's `Trainer.fit` with loss "fvu" and optimizer "adam"."""
    os.environ["SPARSIFY_DISABLE_TRITON"] = "1"  # its kernel needs a GPU
    from sparsify import SparseCoder, SparseCoderConfig
    from transformers import get_linear_schedule_with_warmup

    torch.manual_seed(budget.seed)
    x, scaling = _scaled(budget.x)
    lr = lr or 2e-4 / (budget.n_latents / (1 << 14)) ** 0.5
    config = SparseCoderConfig(num_latents=budget.n_latents, k=budget.k)
    coder = SparseCoder(budget.d, config, dtype=torch.float32)
    coder.b_dec.data = x[: budget.batch_size].mean(0)
    adam = torch.optim.Adam(coder.parameters(), lr=lr)
    schedule = get_linear_schedule_with_warmup(adam, WARMUP_STEPS, budget.n_steps)
    silent_for = torch.zeros(budget.n_latents, dtype=torch.long)
    for batch in budget.batches(x):
        coder.set_decoder_norm_to_unit_norm()
        variance = (batch - batch.mean(0)).pow(2).sum()
        out = coder(batch, batch, dead_mask=silent_for > DEAD_AFTER, total_variance=variance)
        (out.fvu + ALPHA * out.auxk_loss).backward()
        coder.remove_gradient_parallel_to_decoder_directions()
        adam.step()
        adam.zero_grad()
        schedule.step()
        silent_for += len(batch)
        silent_for[out.latent_indices.flatten().unique()] = 0
    coder.set_decoder_norm_to_unit_norm()

    def rebuild(raw: Tensor) -> tuple[Tensor, Tensor]:
        found = coder.encode(scaling.of(raw))
        acts = raw.new_zeros(len(raw), budget.n_latents)
        acts.scatter_(1, found.top_indices, found.top_acts)
        return scaling.back(coder.decode(found.top_acts, found.top_indices)), acts

    return Dictionary(rebuild, coder.W_dec.detach(), lr, _share(silent_for > DEAD_AFTER))


def dictionary_learning(budget: Budget, lr: float) -> Dictionary:
    """Its TopK trainer's `update`."""
    from dictionary_learning.trainers.top_k import TopKTrainer

    x, scaling = _scaled(budget.x)
    trainer: Any = TopKTrainer(
        steps=budget.n_steps,
        activation_dim=budget.d,
        dict_size=budget.n_latents,
        k=budget.k,
        layer=0,
        lm_name="",
        lr=lr or None,
        auxk_alpha=ALPHA,
        warmup_steps=WARMUP_STEPS,
        decay_start=round((1 - DECAY_SHARE) * budget.n_steps),
        seed=budget.seed,
        device="cpu",
    )
    trainer.dead_feature_threshold = DEAD_AFTER
    for step, batch in enumerate(budget.batches(x)):
        trainer.update(step, batch)

    def rebuild(raw: Tensor) -> tuple[Tensor, Tensor]:
        acts = trainer.ae.encode(scaling.of(raw))
        return scaling.back(trainer.ae.decode(acts)), acts

    dead = _share(trainer.num_tokens_since_fired > DEAD_AFTER)
    return Dictionary(rebuild, trainer.ae.decoder.weight.detach().T, trainer.lr, dead)


def sae_lens(budget: Budget, lr: float) -> Dictionary:
    """A training step of its `SAETrainer`."""
    os.environ.setdefault("WANDB_MODE", "disabled")
    from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.config import SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    torch.manual_seed(budget.seed)
    x, scaling = _scaled(budget.x)
    lr = lr or 3e-4
    config = TopKTrainingSAEConfig(d_in=budget.d, d_sae=budget.n_latents, k=budget.k, device="cpu")
    settings = SAETrainerConfig(
        total_training_samples=budget.n_tokens,
        train_batch_size_samples=budget.batch_size,
        lr=lr,
        lr_end=lr / 10,
        lr_warm_up_steps=WARMUP_STEPS,
        lr_decay_steps=round(DECAY_SHARE * budget.n_steps),
        dead_feature_window=DEAD_AFTER // budget.batch_size,
        device="cpu",
        checkpoint_path=tempfile.gettempdir(),
    )
    trainer: Any = SAETrainer(settings, TopKTrainingSAE(config), iter(()))
    for batch in budget.batches(x):
        trainer._train_step(sae=trainer.sae, sae_in=batch)
    sae = trainer.sae.eval()

    def rebuild(raw: Tensor) -> tuple[Tensor, Tensor]:
        acts = sae.encode(scaling.of(raw))
        acts = acts.to_dense() if acts.is_sparse else acts
        return scaling.back(sae.decode(acts)), acts

    return Dictionary(rebuild, sae.W_dec.detach(), lr, _share(trainer.dead_neurons))


LEARNERS: dict[str, Learner] = {
    "ours": ours,
    "sparsify": sparsify,
    "dictionary_learning": dictionary_learning,
    "sae-lens": sae_lens,
}
PACKAGES = {
    "sparsify": "eai-sparsify",
    "dictionary_learning": "dictionary-learning",
    "sae-lens": "sae-lens",
}
"""What `pip install` calls them (extra `bench`)."""


class _Scaling(NamedTuple):
    """To mean 0 and mean square 1 per dimension, as ours does inside the SAE."""

    mean: Tensor
    scale: Tensor

    def of(self, raw: Tensor) -> Tensor:
        return (raw - self.mean) / self.scale

    def back(self, x: Tensor) -> Tensor:
        return x * self.scale + self.mean


def _scaled(raw: Tensor) -> tuple[Tensor, _Scaling]:
    mean = raw.mean(0)
    scaling = _Scaling(mean, (raw - mean).square().mean().sqrt())
    return scaling.of(raw), scaling


def _share(mask: Tensor) -> float:
    return float(mask.float().mean())
