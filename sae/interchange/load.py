"""A path -> an SAE, or what is known of it: our own folder, or another lab's checkpoint."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from sae.core.clip_name import is_private
from sae.core.errors import Notice
from sae.core.files import read_config
from sae.core.places import require_sae
from sae.model.sae import CONFIG, SAE, SAEConfig, is_ours

if TYPE_CHECKING:
    from sae.interchange import Looked


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


def look_at(
    source: str,
    registry: Path | None = None,
    named: Mapping[str, str] | None = None,
    fetch: bool = True,
) -> Looked:
    """Where an SAE was trained, and its size: of a path here, or a place on the hub.

    Without `fetch`, of what is on the hub only the registry tells. `named`: what a user says of it,
    by `origin.NAMES`. Raises `UserError` where there is no SAE, or the registry is faulty.
    """
    from sae.interchange import Looked, look
    from sae.interchange.locate import find, hub_place
    from sae.interchange.origin import NAMES, find_origin, names_of
    from sae.interchange.registry import Sought, read_registry

    place, entries = hub_place(source), read_registry(registry)
    if place is not None and not fetch:
        sought = Sought((place.repo,), (f"{place.repo}/{place.folder}".rstrip("/"),))
        return Looked(find_origin({}, sought, entries, named))
    here = find(source)
    require_sae(here)
    if not is_ours(here):
        return look(here, registry, named)
    config = read_config(here / CONFIG, SAEConfig)
    own = {name: getattr(config, name) for name in NAMES}
    if place is not None and is_private(own["clip"]):
        own["clip"] = ""  # files of another machine
    sought = names_of(here)._replace(format=(config.source,) if config.source else ())
    return Looked(find_origin(own, sought, entries, named), config.d, config.n_latents)
