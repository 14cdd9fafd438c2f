"""Sizes and speeds -> the hours of a run on a store and on the fly, and which of them is shorter.

N devices are N times the one that was timed, and have one disk together. One alone does what is one
process's: a training on the fly, and the look for near-duplicates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from sae.core.errors import UserError
from sae.planning.sizes import Sizes
from sae.planning.speeds import Speeds
from sae.training.feed.batches import SAMPLE_IMAGES

STORE, ON_THE_FLY = "a store", "on the fly"
SECONDS_A_KEPT = 7e-6
"""Of `interp collect`, beside the latents themselves, for each latent that a token keeps."""
SECONDS_A_LATENT = 1e-3
"""Of it, for each latent, whatever the number of images."""
SHOWN_A_LATENT = 192
"""Images of a latent that `interp collect` looks at a second time, at most: the strongest, a sample
and hard ones of both sides.
"""


@dataclass(frozen=True)
class Step:
    """One command of a road."""

    name: str
    seconds: float
    n_devices: int
    """That work at it; the others are free."""


@dataclass(frozen=True)
class Road:
    """A way from images to evidence."""

    name: str
    steps: tuple[Step, ...]
    n_bytes: int
    """That lie on the disk at the end."""
    has_room: bool

    @property
    def seconds(self) -> float:
        """From the first command to the last."""
        return math.fsum(step.seconds for step in self.steps)

    @property
    def device_seconds(self) -> float:
        """What is paid for, where devices that are free are given back."""
        return math.fsum(step.seconds * step.n_devices for step in self.steps)


def require_share(sizes: Sizes, n_devices: int) -> None:
    """Raise `UserError` where a batch has no token for each device."""
    if sizes.training.batch_size < n_devices:
        raise UserError(
            f"{n_devices} devices cannot share batches of {sizes.training.batch_size} tokens; "
            "give fewer --gpus, or a larger --batch-size"
        )


def find_roads(sizes: Sizes, speeds: Speeds, n_devices: int) -> tuple[Road, Road]:
    """On a store, and on the fly."""
    kept = sizes.store_bytes + sizes.training_bytes
    return (
        Road(STORE, _on_a_store(sizes, speeds, n_devices), kept, kept <= speeds.free),
        Road(
            ON_THE_FLY,
            _on_the_fly(sizes, speeds),
            sizes.training_bytes,
            sizes.training_bytes <= speeds.free,
        ),
    )


def choose(roads: tuple[Road, ...]) -> Road | None:
    """The one that takes the fewest hours of those that have room; of equal ones the first."""
    fitting = [road for road in roads if road.has_room]
    return min(fitting, key=lambda road: road.seconds, default=None)


def _on_a_store(sizes: Sizes, speeds: Speeds, n: int) -> tuple[Step, ...]:
    embed = sizes.n_images / (speeds.embed * n) + sizes.store_bytes / speeds.write
    # Read while the step before computes: the slower of the two counts.
    n_read = 1.0 if sizes.pass_bytes <= speeds.held else max(1.0, sizes.n_passes)
    train = max(sizes.n_steps / speeds.steps, n_read * sizes.pass_bytes / speeds.read)
    collect = sizes.store_bytes / speeds.read + _collected(sizes, speeds, n)
    return Step("embed", embed, n), Step("train", train, n), Step("collect", collect, n)


def _on_the_fly(sizes: Sizes, speeds: Speeds) -> tuple[Step, ...]:
    """CLIP and the SAE take turns on one device. Each command first looks at all files."""
    look = sizes.n_images / (speeds.look * speeds.n_cores)
    n_passes = 1.0 if sizes.is_held else sizes.n_passes
    sampled = min(SAMPLE_IMAGES, sizes.n_train)
    train = (n_passes * sizes.n_train + sampled) / speeds.embed
    train += sizes.n_steps / speeds.steps_alone
    shown = min(sizes.n_images, SHOWN_A_LATENT * sizes.sae.n_latents)
    collect = (sizes.n_images + shown) / speeds.embed + _collected(sizes, speeds)
    return Step("train", look + train, 1), Step("collect", look + collect, 1)


def _collected(sizes: Sizes, speeds: Speeds, n: int = 1) -> float:
    """Seconds for the latents of all tokens, and for the look at all images for near-duplicates."""
    of_a_token = 1 / speeds.encode + sizes.sae.k * SECONDS_A_KEPT
    looked = sizes.n_images / (speeds.decode * speeds.n_cores)
    return sizes.n_tokens * of_a_token / n + sizes.sae.n_latents * SECONDS_A_LATENT + looked
