"""An SAE and a store -> a run with its evidence; and the files of an export."""

from __future__ import annotations

import dataclasses
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from interp.run.run import Run
from sae.core.errors import UserError
from sae.core.progress import Progress

if TYPE_CHECKING:
    from interp.evidence.config import CollectConfig, CollectInfo
    from sae.data.store import EmbeddingStore


def run_collect(
    sae_dir: Path,
    store_dir: Path | EmbeddingStore | None,
    run_dir: Path,
    config: CollectConfig,
    device: str,
    progress: Progress | None = None,
    overwrite: bool = False,
    groups: Path | None = None,
) -> tuple[Run, CollectInfo]:
    """Make the run and collect its evidence; without a store, of written latents in `sae_dir`.

    `groups` as in `collect`.
    """
    from interp.evidence.collect import collect
    from interp.evidence.dense_latents import open_subject
    from sae.clip.model import resolve_device

    store, model = open_subject(sae_dir, store_dir)
    with closing(Run(run_dir).hold()):
        run = Run.create(run_dir, sae_dir, model, store)
        on = resolve_device(device)
        info = collect(store, model, run_dir, config, on, progress, overwrite, groups=groups)
        run.remember("collect", dataclasses.asdict(config))
    return run, info


def require_export(export: tuple[str, Path] | None) -> None:
    """Raise `UserError` when `collect --export KIND DIR` cannot be written."""
    if export is not None and export[0] != "patchsae":
        raise UserError(f"--export {export[0]!r} is not known; write --export patchsae DIR")


def run_export(
    sae_dir: Path,
    store_dir: Path | EmbeddingStore | None,
    out: Path,
    threshold: float,
    device: str,
    progress: Progress | None = None,
) -> None:
    """Write PatchSAE's files of an SAE to `out`, in a pass of its own."""
    from interp.evidence.dense_latents import open_subject
    from interp.evidence.patchsae_export import export_patchsae
    from sae.clip.model import resolve_device

    store, model = open_subject(sae_dir, store_dir)
    export_patchsae(store, model, out, resolve_device(device), threshold, progress)
