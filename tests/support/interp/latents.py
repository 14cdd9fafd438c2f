"""Evidence made up in memory, painted images and a CLIP that knows colours: for naming and scoring.

An image is one plain colour with its id in a corner. A latent likes red: the stronger the
activation, the redder; silent images are blue, hard ones are orange.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import count

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from interp.records.split import split_of
from interp.records.types import (
    SIDES,
    SIDES_WITH_SELECT,
    Evidence,
    Example,
    Explanation,
    HeldOut,
    Kind,
    LatentStats,
    Side,
    Status,
)

COLOURS = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "white": (255, 255, 255),
}
MAX_ACT = 10.0
ORANGE, BLUE = (255, 150, 0), (0, 0, 255)


def ids(side: Side, start: int = 0, select: bool = False) -> Iterator[str]:
    """Image ids that fall on one side, of three with `select`."""
    for number in count(start):
        image_id = hashlib.sha256(str(number).encode()).hexdigest()
        if split_of(image_id, select) == side:
            yield image_id


def make_evidence(
    latent: int = 7,
    n_active: int = 60,
    n_silent: int = 32,
    n_hard: int = 16,
    domains: Sequence[str] = ("sketch", "sketch", "photo"),
    status: Status = "live",
    max_act: float = MAX_ACT,
    select: bool = False,
) -> Evidence:
    """All sides alike; `domains` are dealt in turn, so repeating one sets the mix."""
    examples: list[Example] = []
    for side in SIDES_WITH_SELECT if select else SIDES:
        fresh = ids(side, 100_000 * latent, select)
        domain = (domains[number % len(domains)] for number in count())

        def make(
            kind: Kind,
            rank: int,
            act: float,
            image_id: str,
            where: str,
            stratum: int = -1,
            side: Side = side,
        ) -> Example:
            return Example(
                latent, side, kind, rank, stratum, rank, image_id, where, "", "x.png", act
            )

        acts = [MAX_ACT * (1 - n / n_active) for n in range(n_active)]
        active = [(rank, act, next(fresh), next(domain)) for rank, act in enumerate(acts)]
        examples += [make("top", *one) for one in active]
        examples += [make("quantile", *one, 4 - 5 * one[0] // n_active) for one in active]
        examples += [make("silent", n, 0.0, next(fresh), next(domain)) for n in range(n_silent)]
        examples += [make("hard", n, 0.0, next(fresh), next(domain)) for n in range(n_hard)]
    return Evidence(make_stats(latent, status, max_act), tuple(examples))


def weakened(evidence: Evidence, act: float = 0.01) -> Evidence:
    """The same latent, silent on no image: on those that were, it is active at its weakest."""
    examples = (
        replace(e, kind="weak", act=act) if e.kind == "silent" else e
        for e in evidence.examples
        if e.kind != "hard"
    )
    stats = replace(evidence.stats, frequency=1.0, token_frequency=0.0234)
    return Evidence(stats, tuple(examples))


def make_stats(latent: int, status: Status = "live", max_act: float = MAX_ACT) -> LatentStats:
    """Statistics that hang together; only status and maximum matter here."""
    rates = {"sketch": 0.02, "photo": 0.01}
    counts = (HeldOut("sketch", 400, 1600), HeldOut("photo", 100, 2900))
    return LatentStats(
        latent,
        status,
        120,
        0.015,
        max_act / 2,
        max_act,
        (4,) * 32,
        rates,
        2 / 3,
        1.0,
        (),
        held_out=counts,
    )


def paint(example: Example) -> Image.Image:
    """The example's picture."""
    if example.act > 0:
        pale = round(160 * (1 - example.act / MAX_ACT))
        colour = (255, pale, pale)
    else:
        colour = ORANGE if example.kind == "hard" else BLUE
    image = Image.new("RGB", (32, 32), colour)
    # One pixel of its own: no two images are the same bytes.
    image.putpixel((0, 0), tuple(bytes.fromhex(example.image_id[:6])))
    return image


def plain(*names: str) -> list[Image.Image]:
    """One plain image per colour name."""
    return [Image.new("RGB", (32, 32), COLOURS[name]) for name in names]


def plain_with_ids(*names: str) -> list[tuple[str, Image.Image]]:
    """The same, each with its name in the place of an image_id."""
    return list(zip(names, plain(*names), strict=True))


def explained(
    latent: int = 7, label: str | None = "red", failure: str | None = None
) -> Explanation:
    """What a namer would have said."""
    return Explanation(
        latent=latent,
        label=label,
        second_label=None,
        description=f"Things that are {label}." if label else "",
        verdict="single",
        level="",
        confidence=80,
        failure=failure if label is None else None,
        lint=(),
        model="local",
        provider=None,
        prompt="",
        codes={},
        candidates=(),
        calls=(),
        usd=0.0,
    )


class Source:
    """An `EvidenceSource` of latents that all like red."""

    def __init__(self, *evidence: Evidence) -> None:
        self._evidence = {one.stats.latent: one for one in evidence}

    def of(self, latent: int) -> Evidence:
        """Raises `KeyError` for an unknown latent."""
        return self._evidence[latent]

    def image(self, example: Example) -> Image.Image:
        """The example's picture."""
        return paint(example)


class ColourClip:
    """Sees an image's mean colour, and reads a text's first colour word."""

    name = "colours"
    device = torch.device("cpu")
    logit_scale = 20.0

    def __init__(self) -> None:
        self.batches: list[int] = []

    @property
    def preprocess(self) -> Callable[[Image.Image], Tensor]:
        return _pixels

    def image_features(self, pixels: Tensor) -> Tensor:
        """(b, 3, s, s) -> (b, 3)."""
        self.batches.append(len(pixels))
        return F.normalize(pixels.mean((2, 3)) + 1e-6, dim=-1)

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """(n, 3)."""
        rows = [
            next((COLOURS[w] for w in text.split() if w in COLOURS), (1, 1, 1)) for text in texts
        ]
        return F.normalize(torch.tensor(rows, dtype=torch.float32), dim=-1)


def _pixels(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


def _colour_in(text: str) -> tuple[int, int, int]:
    return next((COLOURS[word] for word in text.split() if word in COLOURS), (1, 1, 1))
