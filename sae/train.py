"""Training: a store in, an SAE folder out."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sae import feed
from sae.errors import UserError
from sae.files import append_jsonl, read_config, read_jsonl, write_json
from sae.fit import TrainConfig, TrainRow, fit, resolve
from sae.images import fraction
from sae.model import CONFIG, SAE, SAEConfig
from sae.progress import Progress
from sae.store import EmbeddingStore
from sae.store_writer import package_version

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["TrainConfig", "TrainResult", "TrainRow", "holdout_rows", "sae_config", "start", "train"]

SETTINGS = "train.json"
LOG = "train.jsonl"


class TrainResult(NamedTuple):
    """What training left behind."""

    out: Path
    model: SAE
    last: TrainRow
    trained: bool
    """False when a finished SAE with the same settings was there already."""


def train(
    store: EmbeddingStore,
    out: Path,
    config: TrainConfig | None = None,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
    overwrite: bool = False,
) -> TrainResult:
    """Train an SAE on the images of `store` that are not held out, and write it to `out`.

    `out` gets train.json (the settings), train.jsonl (a line per percent), sae.safetensors and,
    last, config.json. A finished SAE of the same settings and store is left as it is; raises
    `UserError` for one of other settings, unless `overwrite`, and when the loss is not finite.
    """
    config = config or TrainConfig()
    device = torch.device(device)
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; name a folder for the SAE")
    if not overwrite and (out / CONFIG).exists():
        return _already_trained(out, config, store, device)
    rows = np.flatnonzero(~holdout_rows(store.images, config.holdout))
    if len(rows) == 0:
        raise UserError(f"{store.path} has no image to train on with holdout {config.holdout}")
    model = start(sae_config(config, store), feed.sample(store, rows, config.seed)).to(device)
    for name in (CONFIG, LOG):
        (out / name).unlink(missing_ok=True)
    write_json(out / SETTINGS, config)

    resolved = resolve(config, n_train=len(rows) * store.info.tokens_per_image)
    last = fit(
        model,
        feed.batches(store, rows, resolved.batch_size, config.seed, device),
        resolved,
        on_row=lambda row: append_jsonl(out / LOG, [row._asdict()]),
        progress=progress,
    )
    model.save(out)
    return TrainResult(out, model.eval(), last, trained=True)


def holdout_rows(images: pd.DataFrame, holdout: float) -> NDArray[np.bool_]:
    """Which rows of a store are held out: a mask (n_images,), decided by each image's content."""
    shares = (fraction(image_id, "holdout") for image_id in images["image_id"])
    return np.fromiter(shares, dtype=np.float64, count=len(images)) < holdout


def sae_config(config: TrainConfig, store: EmbeddingStore) -> SAEConfig:
    """Shape and provenance of the SAE that `config` asks for on `store`."""
    info = store.info
    return SAEConfig(
        d=info.d,
        n_latents=config.n_latents or config.expansion * info.d,
        k=config.k,
        clip=info.clip,
        layer=info.layer,
        tokens=info.tokens,
        store=info.identity,
        holdout=config.holdout,
        seed=config.seed,
        version=package_version(),
    )


def start(config: SAEConfig, x: Tensor) -> SAE:
    """An untrained SAE on the CPU for data like `x` (n, d).

    Decoder rows are random directions, the encoder is their copy (Gao et al. 2024, A.1), b_dec is
    the geometric median.
    """
    model = SAE(config)
    values = feed.start_values(x)
    generator = torch.Generator().manual_seed(config.seed)
    rows = F.normalize(torch.randn(config.n_latents, config.d, generator=generator), dim=1)
    with torch.no_grad():
        model.mean.copy_(values.mean)
        model.scale.copy_(values.scale)
        model.b_dec.copy_(values.median)
        model.W_dec.copy_(rows)
        model.W_enc.copy_(rows)
    return model


def _already_trained(
    out: Path, config: TrainConfig, store: EmbeddingStore, device: torch.device
) -> TrainResult:
    """The finished SAE in `out`. Raises `UserError` when its settings or its store are others."""
    model = SAE.load(out, device)
    if model.config.store != store.info.identity:
        raise UserError(f"{out} holds an SAE of another store; give another --out or --overwrite")
    remedy = "give another --out or --overwrite"
    before = dataclasses.asdict(read_config(out / SETTINGS, TrainConfig, remedy))
    for name, value in dataclasses.asdict(config).items():
        if before[name] != value:
            raise UserError(
                f"{out} holds an SAE trained with {name} {before[name]}, not {value}; {remedy}"
            )
    return TrainResult(out, model, TrainRow(**read_jsonl(out / LOG)[-1]), trained=False)
