"""Images stopped at the SAE's layer -> which patches change their predicted class, by method."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sae.model.sae import SAE
from sae.steering.edits import Edit, edit_tokens
from sae.steering.probe import Probe
from sae.steering.segment.config import SegmentConfig
from sae.steering.segment.select import ClassLatent, PatchFigures, rare_latents

if TYPE_CHECKING:
    from sae.clip.model import Clip, Halfway

METHODS = ("latent", "random-latent", "random-vector")
PAIRS_AT_ONCE = 64


class Steered(NamedTuple):
    """What is done to the patches of one class."""

    number: int
    """Of the class, in the masks."""
    place: int
    """Among the head's classes."""
    latent: Edit
    random_latent: Edit
    direction: Tensor  # (d,) of unit length


def plan_steering(
    chosen: Sequence[ClassLatent],
    classes: Sequence[int],
    figures: PatchFigures,
    config: SegmentConfig,
    d: int,
) -> list[Steered]:
    """Each class's latent set to `value` of its maxima, and two baselines: the same of another
    latent of those that could have been chosen, and a random direction.
    """
    rng, rare = np.random.default_rng(config.seed), rare_latents(figures, config.max_frequency)
    plans = []
    for one in chosen:
        others = np.flatnonzero(rare & (np.arange(len(rare)) != one.latent))
        other = int(rng.choice(others)) if len(others) else one.latent
        direction = rng.normal(size=d)
        plans.append(
            Steered(
                one.number,
                list(classes).index(one.number),
                Edit(one.latent, "set", config.value * one.most),
                Edit(other, "set", config.value * float(figures.most[other])),
                torch.from_numpy(direction / np.linalg.norm(direction)).float(),
            )
        )
    return plans


class Counts:
    """Patches by method and class, in images that show the class."""

    def __init__(self, n_classes: int) -> None:
        self.n_images = np.zeros(n_classes, np.int64)
        self.patches = np.zeros((len(METHODS), n_classes, 4), np.int64)
        """Predicted as the class before, and changed of them; all others, and changed of them."""

    def add(
        self, place: int, before: NDArray[np.int64], after: Sequence[NDArray[np.int64]], own: int
    ) -> None:
        """One image: predicted classes (patches,) before, and after each method; `own` is the
        number of the class among those.
        """
        self.n_images[place] += 1
        target = before == own
        for method, predicted in enumerate(after):
            changed = predicted != before
            found = (target, changed & target, ~target, changed & ~target)
            self.patches[method, place] += [int(part.sum()) for part in found]


@torch.no_grad()
def steer_images(
    model: SAE,
    clip: Clip,
    head: Probe,
    halfway: Halfway,
    truth: NDArray[np.uint8],
    before: NDArray[np.int64],
    plans: Sequence[Steered],
    counts: Counts,
) -> None:
    """Count what each plan does to images (b,) of the patch classes `truth` (b, patches) and of the
    predicted ones `before`: on the patches of its class, in the images that show it.
    """
    x = clip.tokens_at(halfway, "patch")  # (b, patches, d)
    for number, plan in enumerate(plans):
        shown = np.flatnonzero((truth == plan.number).any(1))
        for first in range(0, len(shown), PAIRS_AT_ONCE):
            images = torch.from_numpy(shown[first : first + PAIRS_AT_ONCE]).to(x.device)
            where = torch.from_numpy(truth == plan.number).to(x.device)[images]
            part = halfway._replace(row=halfway.row[images], pixels=halfway.pixels[images])
            after = [
                head.logits(clip.finish(part, "patch", edited, "patches")).argmax(2).cpu().numpy()
                for edited in edit_three_ways(model, x[images], plan, where)
            ]
            for place, image in enumerate(images.tolist()):
                said = [predicted[place] for predicted in after]
                counts.add(number, before[image], said, plan.place)


def edit_three_ways(model: SAE, x: Tensor, plan: Steered, where: Tensor) -> Iterator[Tensor]:
    """x (m, patches, d) after each of `METHODS`, on the patches `where` (m, patches)."""
    flat, mask = x.flatten(0, 1), where.flatten()[:, None]
    codes = model.encode(flat)
    by_latent = edit_tokens(model, flat, codes, [plan.latent], mask)
    yield by_latent.view_as(x)
    yield edit_tokens(model, flat, codes, [plan.random_latent], mask).view_as(x)
    length = (by_latent - flat).norm(dim=1, keepdim=True)
    yield (flat + length * plan.direction.to(flat.device)).view_as(x)
