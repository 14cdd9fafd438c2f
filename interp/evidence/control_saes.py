"""A trained SAE's evidence -> SAEs of the same shape that have learned nothing."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from interp.evidence.reader import EvidenceReader
from sae.core.errors import UserError
from sae.data.store import EmbeddingStore
from sae.model.init import start
from sae.model.sae import SAE, SAEConfig

N_IMAGES = 4096
"""Images, evenly drawn, that scale and thresholds are set on."""
MOST_TOKENS = 65_536
AT_ONCE = 256
"""Latents whose thresholds are found at once."""
SEED = 7919
"""Added to the trained one's: with the same seed its own start would be drawn again."""
RAREST = 1e-3
"""Share of the tokens on which a random direction is active at least: where the trained latent is
dead there is no rate to copy."""


def untrained_sae(trained: SAEConfig, reader: EvidenceReader, store: EmbeddingStore) -> SAE:
    """Random tied unit rows, before any training: TopK with as many latents a token as the trained
    one has, on centred and scaled embeddings."""
    k = max(1, round(float(np.nansum(_rates(reader)))))
    config = _config(trained, "topk", min(k, trained.n_latents))
    return start(config, _tokens(store)).eval()


def random_sae(trained: SAEConfig, reader: EvidenceReader, store: EmbeddingStore) -> SAE:
    """Random directions without competition: each is active on the tokens that lie furthest along
    it, as often as the trained latent of the same number."""
    x = _tokens(store)
    model = start(_config(trained, "jumprelu", 0), x).eval()
    rates = torch.from_numpy(np.clip(np.nan_to_num(_rates(reader)), RAREST, 0.5))
    with torch.no_grad():
        centred = model.centre(x) - model.b_dec
        for first in range(0, model.n_latents, AT_ONCE):
            part = slice(first, first + AT_ONCE)
            along = (centred @ model.W_enc[part].T).sort(dim=0).values  # (n, latents)
            place = ((1 - rates[part]) * (len(x) - 1)).long()
            at = along.gather(0, place[None])[0]
            model.log_threshold[part] = at.clamp_min(1e-6).log()
    return model


CONTROLS = {"untrained": untrained_sae, "random": random_sae}


def control_sae(
    kind: str, trained: object, reader: EvidenceReader, store: EmbeddingStore | None = None
) -> SAE:
    """The SAE of a control, its scale set on embeddings of the `store` (the evidence's own).

    Raises `UserError` where the run has no SAE to take the shape from.
    """
    config = getattr(trained, "config", None)
    if not isinstance(trained, SAE) or not isinstance(config, SAEConfig):
        raise UserError(
            f"--control {kind} needs the SAE of the run, and {reader.run_dir} is of latents that "
            "were written down; --control shuffled needs none"
        )
    return CONTROLS[kind](config, reader, store or reader.store)


def _config(trained: SAEConfig, activation: str, k: int) -> SAEConfig:
    """The trained one's shape and place."""
    kept = ("d", "n_latents", "clip", "layer", "tokens", "rows", "store", "holdout", "version")
    same = {name: getattr(trained, name) for name in kept}
    return SAEConfig(**same, activation=activation, k=k, seed=trained.seed + SEED)


def _rates(reader: EvidenceReader) -> np.ndarray:
    """(n_latents,) share of the tokens on which each is active; in older evidence of the images."""
    latents = reader.latents
    tokens = latents["token_frequency"].to_numpy(float)
    rates = np.where(np.isnan(tokens), latents["frequency"].to_numpy(float), tokens)
    return np.asarray(np.nan_to_num(rates))


def _tokens(store: EmbeddingStore) -> Tensor:
    """(n, d) tokens of an even draw of the store's images."""
    n = store.info.n_images
    rows = np.unique(np.linspace(0, n - 1, min(n, N_IMAGES)).round().astype(int))
    x = store.read(rows).float()  # (b, t, d)
    flat = x.reshape(-1, x.shape[-1])
    return flat[:: -(-len(flat) // MOST_TOKENS)]
