"""An SAE -> the hash that tells it from others."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from sae.model.sae import SAEConfig


class Weighted(Protocol):
    """What has a rule and numbers: an `SAE`, or latents that were written down."""

    @property
    def config(self) -> SAEConfig: ...
    def state_dict(self) -> Mapping[str, Tensor]: ...


def sae_identity(model: Weighted) -> str:
    """sha256 over the rule and all numbers of an SAE, 64 hex digits; independent of its files."""
    config = model.config
    rule = f"{config.activation} {config.k}"
    if config.input_norm or config.soft_cap:
        rule += f" {config.input_norm} {config.soft_cap}"
    digest = hashlib.sha256(rule.encode())
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
