"""An SAE in its CLIP, images and edits -> probabilities before and after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sae.clip.class_vectors import class_vectors
from sae.core.errors import UserError
from sae.core.progress import Progress
from sae.data.images import MAX_PIXELS, BadImage, read_image
from sae.model.sae import SAE
from sae.steering.edit.places import Where
from sae.steering.edits import Edit, acts_of, edit_tokens
from sae.steering.probe import Probe

if TYPE_CHECKING:
    from sae.clip.model import Clip, Halfway


@dataclass(frozen=True)
class Setting:
    """A network with an SAE behind one of its blocks, and the heads that are asked."""

    model: SAE
    clip: Clip
    layer: str
    tokens: str
    classes: tuple[str, ...]
    """Names for zero-shot."""
    templates: tuple[str, ...]
    probe: Probe | None = None

    def grid(self) -> tuple[int, ...]:
        """(h, w) of the patches that the SAE reads; () where it reads CLS alone."""
        return () if self.tokens == "cls" else self.clip.grid()

    def heads(self) -> dict[str, tuple[str, ...]]:
        """By name, the classes of each."""
        probe = {} if self.probe is None else {"probe": self.probe.classes}
        return {"zero_shot": self.classes} | probe


class LatentHeat(NamedTuple):
    """One edited latent in one image."""

    latent: int
    before: NDArray[np.float32]  # (t,) activations of the tokens that the SAE reads
    after: NDArray[np.float32]


class EditedImage(NamedTuple):
    """One image before and after the edits."""

    path: Path
    image_id: str
    seen: NDArray[np.uint8]  # (s, s, 3), as CLIP sees it
    edited: NDArray[np.bool_]  # (t, n_edits)
    heats: list[LatentHeat]
    before: dict[str, NDArray[np.float32]]
    """By head, the probabilities of its classes."""
    after: dict[str, NDArray[np.float32]]


@torch.no_grad()
def edit_images(
    setting: Setting,
    paths: Sequence[Path],
    edits: Sequence[Edit],
    where: Where,
    progress: Progress | None = None,
) -> list[EditedImage]:
    """Each image through the network, without the edits and with them.

    Raises `UserError` for a file that is no image.
    """
    model, clip = setting.model.to(setting.clip.device).eval(), setting.clip
    texts = class_vectors(clip, setting.classes, setting.templates)
    found = []
    for number, path in enumerate(paths):
        try:
            image_id, image = read_image(path, MAX_PIXELS)
        except BadImage as error:
            raise UserError(f"{path}: {error.reason}") from None
        seen = clip.preprocess.resize(image)
        halfway = clip.run_to(clip.preprocess(image)[None], setting.layer)
        x = clip.tokens_at(halfway, setting.tokens)[0]  # (t, d)
        if model.config.rows == "unit":  # only of the layer "projected", whose length is nothing
            x = F.normalize(x, dim=1)
        codes = model.encode(x)
        before = torch.stack([acts_of(codes, edit.latent) for edit in edits], dim=1)
        mask = where.mask(before, setting.tokens, setting.grid())  # (t, n_edits)
        changed = edit_tokens(model, x, codes, edits, mask)[None]
        after = [
            torch.where(mask[:, place], edit.new_acts(before[:, place]), before[:, place])
            for place, edit in enumerate(edits)
        ]
        heats = [
            LatentHeat(edit.latent, before[:, place].cpu().numpy(), after[place].cpu().numpy())
            for place, edit in enumerate(edits)
        ]
        said = [_ask(setting, halfway, texts, x) for x in (None, changed)]
        edited = mask.cpu().numpy()
        found.append(EditedImage(path, image_id, seen, edited, heats, said[0], said[1]))
        if progress is not None:
            progress(number + 1, len(paths))
    return found


def _ask(
    setting: Setting, halfway: Halfway, texts: Tensor, x: Tensor | None
) -> dict[str, NDArray[np.float32]]:
    """By head, the probabilities (n_classes,) with the tokens x (1, t, d) at the layer."""
    clip, tokens = setting.clip, setting.tokens
    features = clip.finish(halfway, tokens, x)  # (1, d_embed)
    said = {"zero_shot": (clip.logit_scale * features @ texts.T).softmax(1)[0]}
    if setting.probe is not None:
        pooled = clip.finish(halfway, tokens, x, "pooled")
        said["probe"] = setting.probe.logits(pooled).softmax(1)[0]
    return {head: shares.cpu().numpy() for head, shares in said.items()}
