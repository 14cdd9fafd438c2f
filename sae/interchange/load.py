"""A path -> an SAE: our own folder, or another lab's checkpoint."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch

from sae.core.errors import Notice
from sae.core.places import require_sae
from sae.model.sae import SAE, is_ours


def load(path: Path | str, device: str | torch.device = "cpu") -> SAE:
    """Load an SAE: a folder that `save` wrote, or any file or folder that `interchange` knows.

    A `str` may also name a repository of the hub, as `sae import` takes it. What should be known
    of a foreign SAE, such as a mean that its file lacks, comes as warnings. Raises `UserError`.
    """
    if isinstance(path, str):
        from sae.interchange.locate import find

        path = find(path)
    require_sae(path)
    if is_ours(path):
        return SAE.load(path, device)
    from sae import interchange

    imported = interchange.read(path)
    for note in imported.notes:
        warnings.warn(f"{path}: {note}", Notice, stacklevel=2)
    return imported.model.to(device)
