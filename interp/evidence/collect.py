"""One pass over a store: statistics of every latent, and the images that show what it answers to.

The images are split by content hash BEFORE anything is ranked: what is kept on the side "explain"
may be shown to an explainer, what is kept on the side "score" tests its label. A second, bounded
look reads kept images again: to know which leave a latent at zero, and where on the image it fires.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from interp.evidence.config import EXAMPLES, FOLDER, INFO, LATENTS, CollectConfig, CollectInfo
from interp.evidence.stream.activations import Encoder, Look, Pairs, sae_identity, second_look, see
from interp.evidence.stream.examples import (
    Picks,
    contains,
    joined,
    negative_picks,
    quantile_picks,
    top_picks,
)
from interp.evidence.stream.first_pass import ImageIndex, Survey
from interp.evidence.stream.negatives import (
    Candidates,
    candidates,
    choose_hard,
    choose_silent,
    neighbours,
    quotas,
)
from interp.evidence.tables import example_table, latent_table, write_table
from sae.core.errors import UserError
from sae.core.files import package_version, read_config, write_json
from sae.core.progress import Progress
from sae.data.store import EmbeddingStore
from sae.model.sae import SAE, require_match

__all__ = ["CollectConfig", "CollectInfo", "collect"]


def collect(
    store: EmbeddingStore,
    model: Encoder,
    run_dir: Path,
    config: CollectConfig | None = None,
    device: str | torch.device = "cpu",
    progress: Progress | None = None,
    overwrite: bool = False,
    n_images: int | None = None,
) -> CollectInfo:
    """Write run_dir/collect/{latents.parquet, examples.parquet, collect.json}; the last comes last.

    `n_images` a batch changes speed and memory, not the result; by default it fits the SAE.
    A folder finished with the same settings is left alone. Raises `UserError` when it was made
    with others (and not `overwrite`), or when store and SAE do not fit.
    """
    config = config or CollectConfig()
    progress = progress or _silently
    require_match(model.config, store.info)
    expected = _identities(store, model, config)
    place = Path(os.path.relpath(store.path.resolve(), run_dir.resolve())).as_posix()
    if not overwrite and (done := _finished(run_dir / FOLDER, expected)):
        return _moved(done, run_dir, place)
    (run_dir / FOLDER / INFO).unlink(missing_ok=True)
    device = torch.device(device)
    model = model.to(device).eval() if isinstance(model, SAE) else model
    survey = _first_pass(store, model, device, config, progress, n_images)
    picks, look = _examples(store, model, device, survey, config, progress, n_images)
    latents = latent_table(survey.tally, survey.index, survey.sample.result(), config.dense_above)
    write_table(run_dir / FOLDER / LATENTS, latents)
    write_table(run_dir / FOLDER / EXAMPLES, example_table(picks, look.heat, store.images))
    info = _info(expected, place, store, survey, latents, len(picks.rows))
    write_json(run_dir / FOLDER / INFO, info)
    return info


def _silently(done: int, total: int) -> None:
    """Show no progress."""


def _identities(store: EmbeddingStore, model: Encoder, config: CollectConfig) -> dict[str, object]:
    """Fields of `CollectInfo` that must agree for a finished folder to be reused."""
    return {
        **dataclasses.asdict(config),
        "store_identity": store.info.identity,
        "sae_identity": sae_identity(model),
    }


def _finished(folder: Path, expected: dict[str, object]) -> CollectInfo | None:
    """The finished folder's info; None when there is none. Raises when it was made differently."""
    if not (folder / INFO).exists():
        return None
    info = read_config(folder / INFO, CollectInfo)
    for name, value in expected.items():
        if getattr(info, name) != value:
            raise UserError(
                f"{folder} was collected with {name} {getattr(info, name)!r}, not {value!r}; "
                "add --overwrite to collect again, or use another run"
            )
    return info


def _moved(info: CollectInfo, run_dir: Path, place: str) -> CollectInfo:
    """The same info with the store where it lies now; written again only when it has moved."""
    if info.store == place:
        return info
    info = dataclasses.replace(info, store=place)
    write_json(run_dir / FOLDER / INFO, info)
    return info


def _first_pass(
    store: EmbeddingStore,
    model: Encoder,
    device: torch.device,
    config: CollectConfig,
    progress: Progress,
    n_images: int | None,
) -> Survey:
    index = ImageIndex.of(store.images, tuple(store.domains))
    survey = Survey(index, model.n_latents, config.n_top, config.n_sample, config.reservoir)
    n_done = 0
    for seen in see(store, model, device, n_images=n_images):
        survey.update(seen)
        n_done += len(seen.rows)
        progress(n_done, store.info.n_images)
    return survey


def _examples(
    store: EmbeddingStore,
    model: Encoder,
    device: torch.device,
    survey: Survey,
    config: CollectConfig,
    progress: Progress,
    n_images: int | None,
) -> tuple[Picks, Look]:
    """Choose all examples; the second look's progress counts on from the first pass."""
    n_active = survey.tally.n_active  # (n_latents, 2, n_domains)
    top, reservoir = survey.top.result(), survey.reservoir.result()
    near = neighbours(model.W_dec, n_active.sum((1, 2)) > 0, config.n_neighbours)
    hard = candidates(top, near, quotas(n_active, config.n_hard))
    positive = joined(
        top_picks(top, n_active.shape[2]), quantile_picks(survey.sample.result(), config.n_strata)
    )
    heat = positive.pairs() if store.info.grid else Pairs(*np.zeros((2, 0), np.int64))
    positive = positive._replace(
        maps=np.arange(len(positive.rows)) if store.info.grid else positive.maps
    )
    look = second_look(
        store,
        model,
        device,
        hard.pairs(),
        heat,
        reservoir.rows[reservoir.rows >= 0],
        functools.partial(_onwards, progress, store.info.n_images),
        n_images,
    )
    negative = _negatives(survey, hard, positive, look, config)
    return joined(positive, *negative).sorted(), look


def _negatives(
    survey: Survey, found: Candidates, positive: Picks, look: Look, config: CollectConfig
) -> tuple[Picks, Picks]:
    n_active = survey.tally.n_active
    # In another batch an activation at the edge of the k kept may round the other way: an image
    # that was active in the first pass must not become a negative in the second.
    silent = (look.acts == 0) & ~contains(found.pairs(), positive.pairs())
    hard = choose_hard(found, silent, quotas(n_active, config.n_hard))
    taken = (look.watched, positive.pairs(), Pairs(hard.rows, hard.latents))
    both = Pairs(*(np.concatenate(columns) for columns in zip(*taken, strict=True)))
    drawn = choose_silent(survey.reservoir.result(), both, quotas(n_active, config.n_silent))
    return negative_picks("silent", drawn), negative_picks("hard", hard)


def _onwards(progress: Progress, n_before: int, done: int, total: int) -> None:
    progress(n_before + done, n_before + total)


def _info(
    expected: dict[str, object],
    place: str,
    store: EmbeddingStore,
    survey: Survey,
    latents: pa.Table,
    n_examples: int,
) -> CollectInfo:
    status = latents["status"].to_pylist()
    return CollectInfo(
        **expected,  # type: ignore[arg-type]
        store=place,
        version=package_version(),
        domains=list(store.domains),
        grid=list(store.info.grid),
        n_images=store.info.n_images,
        n_latents=len(status),
        n_live=status.count("live"),
        n_dead=status.count("dead"),
        n_dense=status.count("dense"),
        n_examples=n_examples,
        exact_classes=survey.tally.classes is not None,
    )
