"""What a training is told beside its settings: where it computes, what it shows and replaces."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sae.core.progress import Bar


@dataclass(frozen=True)
class TrainContext:
    """How a training is carried out. The settings alone decide which SAE comes out."""

    device: torch.device | str = "cpu"
    progress: Bar | None = None
    overwrite: bool = False
    """Throw away what is there and start anew."""
    log: str = ""
    """A tracker to send the figures to as well, one of `trackers.TRACKERS`; "": none."""
