"""An image's embedding, moved along a latent -> a picture for each strength and seed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from sae.clip.model import Clip
from sae.core.errors import UserError
from sae.core.progress import Progress
from sae.model.sae import SAE
from sae.steering.edits import Edit, acts_of, change_codes
from sae.steering.generate.pipelines import Painter


@dataclass(frozen=True)
class Scene:
    """An image as CLIP sees it, and the SAE that reads its projected embedding."""

    model: SAE
    clip: Clip
    embedding: Tensor
    """(1, d_embed), raw."""


class Picture(NamedTuple):
    """What was drawn for one strength and seed."""

    strength: float
    seed: int
    moved: float
    """|e' - e|, in the scale of CLIP's raw embeddings."""
    clip_score: float | None
    """100 times the cosine with the label; None without a label."""
    image: Image.Image


def look_at(model: SAE, clip: Clip, image: Image.Image) -> Scene:
    """Raises `UserError` for an SAE that reads anything but the projected embedding of `clip`."""
    layer = model.config.layer
    if layer not in ("", "projected"):
        raise UserError(
            f"the SAE reads block {layer}, but a pipeline draws from the projected embedding; "
            "train one on `sae embed --layer projected`"
        )
    if model.d != clip.d_embed:
        raise UserError(
            f"the SAE has width {model.d}, but the projected embedding of {clip.name} has "
            f"{clip.d_embed}; use an SAE that was trained on it"
        )
    embedding = clip.embed_images(clip.preprocess(image)[None])[:, 0]
    return Scene(model.to(clip.device).eval(), clip, embedding)


@torch.no_grad()
def activation(scene: Scene, latent: int) -> float:
    """Of the latent on the image itself."""
    x, _ = _input(scene)
    return float(acts_of(scene.model.encode(x), latent)[0])


@torch.no_grad()
def move(scene: Scene, latent: int, strength: float) -> Tensor:
    """The embedding e (1, d) + decode(z') - decode(z), where z' has `strength` more of the latent.

    Nothing is normalised afterwards: that would take the strength out again. At strength 0 it is e
    bit for bit.
    """
    if strength == 0:
        return scene.embedding
    x, length = _input(scene)
    codes = scene.model.encode(x)
    everywhere = torch.ones(1, 1, dtype=torch.bool, device=x.device)
    after = change_codes(codes, [Edit(latent, "add", strength)], everywhere)
    change = scene.model.rebuild(x, after) - scene.model.rebuild(x, codes)
    return scene.embedding + length * change


def draw_pictures(
    scene: Scene,
    painter: Painter,
    latent: int,
    strengths: Sequence[float],
    seeds: Sequence[int],
    label: str,
    progress: Progress | None = None,
) -> Iterator[Picture]:
    """Strength after strength, and for each all seeds."""
    text = scene.clip.embed_texts([label]) if label else None
    done, n = 0, len(strengths) * len(seeds)
    for strength in strengths:
        embedding = move(scene, latent, strength)
        moved = float((embedding - scene.embedding).norm())
        for seed in seeds:
            image = painter.draw(embedding, seed)
            yield Picture(strength, seed, moved, _score(scene.clip, image, text), image)
            done += 1
            if progress is not None:
                progress(done, n)


def _input(scene: Scene) -> tuple[Tensor, Tensor]:
    """What the SAE reads (1, d), and how much longer the embedding is."""
    e = scene.embedding
    if scene.model.config.rows != "unit":
        return e, e.new_ones(1, 1)
    length = e.norm(dim=1, keepdim=True)
    return e / length, length


def _score(clip: Clip, image: Image.Image, text: Tensor | None) -> float | None:
    if text is None:
        return None
    return 100 * float((clip.image_features(clip.preprocess(image)[None]) @ text.T)[0, 0])
