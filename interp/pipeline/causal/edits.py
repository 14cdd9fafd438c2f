"""Images stopped at the SAE's layer, and latents -> how similar to each text edits make them.

The SAE's error is kept: with nothing edited every image is what it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from sae.clip.model import Clip, Halfway
from sae.clip.store_images import load_clip_of, require_same_weights
from sae.core.errors import UserError
from sae.data.formats import dense
from sae.data.store import EmbeddingStore
from sae.interchange.load import load
from sae.model.intervene import exchange_codes
from sae.model.match import require_match
from sae.model.sae import SAE, Codes
from sae.steering.edits import acts_of


@dataclass(frozen=True)
class Network:
    """The SAE at its layer, the rest of CLIP, and the texts that images are compared with."""

    model: SAE
    clip: Clip
    tokens: str
    """Which tokens the SAE reads."""
    texts: Tensor  # (n_texts, d_embed) unit rows
    spread: NDArray[np.float64]
    """(n_texts,) standard deviation of each text's similarity over a sample of images: what
    changes are counted in."""

    @classmethod
    def open(cls, sae: Path, store: EmbeddingStore, device: str) -> Network:
        """The SAE of a folder in the CLIP of its store, without texts yet. Raises `UserError` where
        there is no SAE, it is of other embeddings, or the CLIP's weights are others now."""
        if store.info.layer == dense.LAYER:
            raise UserError(
                f"{store.path} holds latents that were written down: there is no SAE to edit"
            )
        model = load(sae)
        require_match(model.config, store.info)
        clip = load_clip_of(store, device)
        require_same_weights(clip, store)
        tokens = model.config.tokens or store.info.tokens
        nothing = torch.empty(0, clip.d_embed, device=clip.device)
        return cls(model.to(clip.device).eval(), clip, tokens, nothing, np.ones(0))

    def with_texts(self, texts: Tensor, usual: Sequence[Halfway]) -> Network:
        """With these unit rows (n_texts, d_embed), whose similarity to the usual images spreads as
        it does."""
        rows = texts.to(self.clip.device)
        plain = replace(self, texts=rows, spread=np.ones(len(rows)))
        spread = np.concatenate([plain.similarity(halfway) for halfway in usual]).std(0)
        return replace(plain, spread=np.maximum(spread, 1e-6))

    def stop(self, images: Sequence[Image.Image], layer: str) -> Halfway:
        """CLIP stopped at the SAE's layer."""
        pixels = torch.stack([self.clip.preprocess(image) for image in images])
        return self.clip.run_to(pixels, layer)

    def similarity(self, halfway: Halfway, x: Tensor | None = None) -> NDArray[np.float64]:
        """(b, n_texts) of the images with the tokens x (b, t, d) at the layer, in deviations."""
        features = self.clip.finish(halfway, self.tokens, x)
        return (features @ self.texts.T).double().cpu().numpy() / self.spread

    @torch.no_grad()
    def activations(self, halfway: Halfway, latent: int) -> Tensor:
        """(b, t) of one latent."""
        x = self.clip.tokens_at(halfway, self.tokens)
        return acts_of(self.model.encode(x.flatten(0, 1)), latent).view(x.shape[:2])

    @torch.no_grad()
    def change(
        self, halfway: Halfway, latents: Sequence[int], amounts: Tensor
    ) -> NDArray[np.float64]:
        """(n_latents, b, n_texts) what adding `amounts` (b, t) to each of the latents alone does.

        The amounts are the first latent's; the others get as much length as they add to a token.
        """
        x = self.clip.tokens_at(halfway, self.tokens)  # (b, t, d)
        tokens, before = x.flatten(0, 1), self.similarity(halfway)
        codes = self.model.encode(tokens)
        length = self.model.W_dec.norm(dim=1)
        found = []
        for latent in latents:
            added = amounts.flatten() * length[latents[0]] / length[latent].clamp_min(1e-12)
            edited = exchange_codes(self.model, tokens, codes, _add(codes, latent, added))
            found.append(self.similarity(halfway, edited.view_as(x)) - before)
        return np.stack(found)


def pair_rows(amounts: Tensor, n: int) -> Tensor:
    """(n, t): the rows of `amounts` (b, t) one after the other, from the first again."""
    return amounts[torch.arange(n, device=amounts.device) % len(amounts)]


def _add(codes: Codes, latent: int, amounts: Tensor) -> Codes:
    """Codes of which one latent's activation is larger by `amounts` (n,)."""
    column = codes.latents.new_full((len(amounts), 1), latent)
    return codes._replace(
        acts=torch.cat([codes.acts, amounts[:, None].to(codes.acts)], 1),
        latents=torch.cat([codes.latents, column], 1),
    )
