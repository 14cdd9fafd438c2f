"""Images, a shape of vectors and settings -> bytes of the store and the SAE, and training steps.

Nothing is counted anew here: what the store, the trainer and the SAE would make is asked of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sae.clip.ahead import Shape
from sae.core.errors import UserError
from sae.model.sae import SAE, SAEConfig
from sae.training.checkpoint import n_copies
from sae.training.config import TrainConfig
from sae.training.feed.batches import BUFFER_TOKENS
from sae.training.jobs import sae_shape
from sae.training.settings.schedule import count_steps, resolve


@dataclass(frozen=True)
class Sizes:
    """What is known of a run before anything is timed."""

    n_images: int
    n_train: int
    """Images that are not held out: their share of all, for their contents are not known yet."""
    shape: Shape
    dtype: str
    training: TrainConfig
    """Resolved."""
    sae: SAEConfig

    @property
    def store_bytes(self) -> int:
        """Of the tensors of a store of all images."""
        return self.shape.n_bytes(self.dtype) * self.n_images

    @property
    def pass_bytes(self) -> int:
        """Of the vectors that a training reads once a pass."""
        return self.shape.n_bytes(self.dtype) * self.n_train

    @property
    def n_tokens(self) -> int:
        """Of all images."""
        return self.shape.tokens * self.n_images

    @property
    def n_steps(self) -> int:
        """Of the training."""
        return count_steps(self.training)

    @property
    def n_passes(self) -> float:
        """Over the images that are trained on."""
        return self.training.n_tokens / (self.n_train * self.shape.tokens)

    @property
    def is_held(self) -> bool:
        """Whether a training on the fly keeps the tokens of all images, and computes them once."""
        return self.n_train * self.shape.tokens <= BUFFER_TOKENS

    @property
    def sae_bytes(self) -> int:
        """Of the tensors of the SAE."""
        return weigh_sae(self.sae)

    @property
    def training_bytes(self) -> int:
        """Of the SAE, and the most that its checkpoints take beside it."""
        return n_copies(self.training) * self.sae_bytes


def size_up(n_images: int, shape: Shape, dtype: str, config: TrainConfig) -> Sizes:
    """What `n_images` and `config` come to. Raises `UserError` where no image is left to train on.

    The share that is held out is taken as exact; of real images it is so but for chance.
    """
    n_train = round(n_images * (1 - config.holdout))
    if n_train < 1:
        raise UserError(f"{n_images} images with holdout {config.holdout} leave none to train on")
    training = resolve(config, n_train * shape.tokens)
    return Sizes(n_images, n_train, shape, dtype, training, sae_shape(config, shape.d))


def weigh_sae(config: SAEConfig) -> int:
    """Bytes of an SAE's tensors; none of them is made."""
    with torch.device("meta"):
        return sum(tensor.nbytes for tensor in SAE(config).state_dict().values())
