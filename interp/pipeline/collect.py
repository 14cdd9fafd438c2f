"""An SAE and a store -> a run with its evidence; and the files of an export."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING

from interp.run.run import Run
from sae.core.errors import UserError
from sae.core.progress import Progress

if TYPE_CHECKING:
    from interp.evidence.config import CollectConfig, CollectInfo
    from interp.evidence.stream.activations import Encoder
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

    `groups` as in `collect`. Processes that `torchrun` started share the work.
    """
    from interp.evidence.collect import collect
    from interp.evidence.dense_latents import open_subject
    from sae.clip.model import resolve_device
    from sae.core.distributed import join_processes

    run = Run(run_dir)
    with join_processes(resolve_device(device), "collecting") as ranks:
        store, model = open_subject(sae_dir, store_dir)
        with ranks.hold([run.lock_told]):
            ranks.do_first(lambda: _create(run_dir, sae_dir, model, store))
            args = (store, model, run_dir, config, ranks.device, progress, overwrite)
            info = collect(*args, groups=groups, ranks=ranks)
            ranks.do_first(lambda: run.remember("collect", dataclasses.asdict(config)))
    return run, info


def _create(run_dir: Path, sae_dir: Path, model: Encoder, store: EmbeddingStore) -> None:
    Run.create(run_dir, sae_dir, model, store)


def require_export(export: tuple[str, Path] | None) -> None:
    """Raise `UserError` when `collect --export KIND DIR` cannot be written."""
    if export is not None and export[0] != "patchsae":
        raise UserError(f"--export {export[0]!r} is not known; write --export patchsae DIR")


def require_store_alone(**asked: bool) -> None:
    """Raise `UserError` where several processes are asked for what one alone does."""
    first = next((name for name, is_asked in asked.items() if is_asked), None)
    if first and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        option = "--domain NAME=DIR" if first == "domains" else f"--{first}"
        raise UserError(
            f"{option} is for one process: start it without torchrun. Several processes share a "
            "store that `sae embed` has finished"
        )


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
