"""Chosen examples -> what one question of the explainer shows: lettered images, and the words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypedDict

from interp.explain.answer import ExplainAnswer, explain_schema, parse_explain
from interp.explain.examples import Medium, ShowConfig, Shown, medium_of
from interp.llm.prompts import mark_data, render
from interp.llm.types import Picture
from interp.pictures.cache import HeatOf, Images, read_images
from interp.pictures.grid import FIRST, SECOND, Tile, is_low_resolution
from interp.pictures.painter import Painter

COLUMNS = 4
"""Of a grid."""
_BACKGROUND: dict[Medium, int | None] = {"drawings": 255, "photos": 128, "mixed": None}


class Asked(TypedDict):
    """What an answer holds beside what every one does."""

    region: bool
    bound: bool


@dataclass(frozen=True)
class Page:
    """What one question shows."""

    codes: dict[str, str]
    """Letter -> image_id of the positives."""
    neg_codes: dict[str, str]
    neg_weak: tuple[str, ...]
    """Letters of the negatives on which the latent is active after all, at its weakest."""
    strong: frozenset[str]
    medium: Medium
    domain: str
    """The one that the latent's images are nearly all of, where the run has others; else ""."""
    drawn: tuple[str | Picture, ...]
    """The images of both sets in the painter's layout, with the words between them."""
    outlined: bool
    """Whether the positives are shown a second time, with the latent's response outlined."""
    low_resolution: bool
    """Whether most of the positives are too small to be judged."""
    template: str = "explain"
    shared: str = ""
    """The label that the latents of the second set have too, where `template` tells them apart."""

    @property
    def letters(self) -> list[str]:
        return list(self.codes)

    @property
    def neg_letters(self) -> list[str]:
        return list(self.neg_codes)

    def parts(self) -> tuple[str | Picture, ...]:
        """The message: the task first, then the pictures, then one closing line."""
        strong = [letter for letter, image_id in self.codes.items() if image_id in self.strong]
        text = render(
            self.template,
            codes=self.letters,
            strong=strong,
            weak=[letter for letter in self.codes if letter not in strong] if strong else [],
            medium=self.medium,
            bound=self._bound(),
            neg_codes=self.neg_letters,
            neg_weak=self.neg_weak,
            patch_map=self.outlined,
            shared=self.shared,
        )
        return (text, *self.drawn, "Now answer with the JSON object.")

    def schema(self) -> dict[str, Any]:
        """Of the answer, with this page's letters."""
        return explain_schema(self.letters, self.neg_letters, **self._asked())

    def parse(self, text: str) -> ExplainAnswer:
        """Raises `ReplyError`."""
        return parse_explain(text, self.letters, self.neg_letters, **self._asked())

    def _asked(self) -> Asked:
        return {"region": self.outlined, "bound": bool(self.domain)}

    def _bound(self) -> str:
        """The kind of image that the latent is bound to, in words."""
        if not self.domain:
            return ""
        medium = medium_of([self.domain])
        return medium if medium != "mixed" else f"pictures of the kind {mark_data(self.domain)}"


def draw_page(
    shown: Shown,
    images: Images,
    config: ShowConfig,
    painter: Painter,
    heat_of: HeatOf,
    domain: str = "",
) -> Page:
    """Read the images, give them letters and draw them; unreadable images are left out.

    `domain`: as in `Page`.
    """
    read = read_images(images, shown.positives)
    read_neg = read_images(images, shown.negatives)
    if len(read_neg) < config.min_negatives:
        read_neg = {}
    medium = medium_of(sorted({example.domain for example in read}))
    tiles = [
        Tile(letter, image, heat_of(example), example.image_id)
        for letter, (example, image) in zip(FIRST, read.items(), strict=False)
    ]
    neg_tiles = [
        Tile(letter, image, image_id=example.image_id)
        for letter, (example, image) in zip(SECOND, read_neg.items(), strict=False)
    ]
    background = _BACKGROUND[medium]
    n_low = sum(is_low_resolution(image) for image in read.values())
    return Page(
        codes=dict(zip(FIRST, (e.image_id for e in read), strict=False)),
        neg_codes=dict(zip(SECOND, (e.image_id for e in read_neg), strict=False)),
        neg_weak=tuple(c for c, e in zip(SECOND, read_neg, strict=False) if e.kind == "weak"),
        strong=shown.strong,
        medium=medium,
        domain=domain,
        drawn=(
            *painter.parts(tiles, background, "First set"),
            *painter.parts(neg_tiles, background, "Second set"),
        ),
        outlined=any(tile.heat is not None for tile in tiles),
        low_resolution=2 * n_low > len(read),
    )
