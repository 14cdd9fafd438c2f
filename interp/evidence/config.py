"""The settings of `collect`, collect.json, and the names of the tables beside it.

Light to import: a command that only reads evidence needs no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from interp.records.types import SIDES, SIDES_WITH_SELECT, Side
from sae.core.errors import UserError, quote
from sae.core.files import FORMAT, did_you_mean, read_config

POOLS = ("max", "mean", "sum", "cls")
FOLDER, INFO, LATENTS, EXAMPLES = "collect", "collect.json", "latents.parquet", "examples.parquet"
GROUPS = "groups.parquet"
BEFORE = "collected before images were grouped"
BY_DOMAIN = "by_domain.parquet"
"""As examples.parquet, but drawn from each domain by itself; only of stores with several."""


@dataclass(frozen=True, kw_only=True)
class CollectConfig:
    """How much is kept of each latent. Memory grows with latents times these."""

    n_top: Annotated[int, typer.Option(help="Top images per latent, side and domain.")] = 16
    """The strongest."""
    n_sample: Annotated[int, typer.Option(help="Active images per latent and side.")] = 64
    """Drawn evenly: the positives of the score."""
    n_strata: int = 5
    """Equal parts, by activation, into which that sample is cut."""
    n_silent: Annotated[int, typer.Option(help="Silent images per latent and side.")] = 32
    """With the domain mix of the active ones."""
    n_hard: Annotated[int, typer.Option(help="Hard silent images per latent and side.")] = 16
    """Those that are strongest for its nearest latents."""
    n_by_domain: Annotated[
        int, typer.Option(help="Active, and silent, images per latent, side and domain.")
    ] = 24
    """Besides those above, drawn from each domain by itself: what `interp transfer` tests on."""
    n_neighbours: int = 8
    """Nearest latents, by cosine of the decoder rows, that give hard images."""
    reservoir: int = 2048
    """Images per side and domain from which the silent ones are drawn."""
    dense_above: Annotated[float, typer.Option(help="Share of tokens that makes it dense.")] = 0.1
    """From which on an active latent counts as dense."""
    pool: Annotated[
        str,
        typer.Option(help="An image's activation: the max, mean or sum of its tokens', or cls."),
    ] = "max"
    """One of `POOLS`; cls: that of CLS alone, and no other token counts."""
    no_groups: Annotated[
        bool,
        typer.Option("--no-groups", help="Split image by image: copies may cross the split."),
    ] = False
    """Near-duplicates are not looked for, and groups that the store names do not count."""
    select: Annotated[
        bool,
        typer.Option("--select", help="Keep a part of the explain side to choose labels on."),
    ] = False
    """The third side `select` of `records.split.split_of`."""

    def require_tokens(self, tokens: str, of: str) -> None:
        """Raise `UserError` where the CLS token is to count and `of`, the store, has none."""
        if self.pool == "cls" and tokens == "patch":
            raise UserError(
                f"--pool cls: {of} holds patches alone; choose max, mean or sum, "
                "or embed with CLS: `sae embed --tokens all`"
            )

    @property
    def sides(self) -> tuple[Side, ...]:
        """Of which evidence is kept."""
        return SIDES_WITH_SELECT if self.select else SIDES

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """What the first pass keeps, as `Survey` takes it."""
        return self.n_top, self.n_sample, self.reservoir, self.n_by_domain

    def __post_init__(self) -> None:
        for name in ("n_top", "n_sample", "n_strata", "n_neighbours", "reservoir"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("n_silent", "n_hard", "n_by_domain"):
            if getattr(self, name) < 0:
                raise UserError(f"{name} is {getattr(self, name)}; it must be at least 0")
        for name in ("n_silent", "n_by_domain"):
            if getattr(self, name) > self.reservoir:
                raise UserError(
                    f"{name} {getattr(self, name)} is larger than reservoir {self.reservoir}"
                )
        if not 0 < self.dense_above <= 1:
            raise UserError(f"dense_above is {self.dense_above}; it must be in (0, 1]")
        if self.pool not in POOLS:
            hint = did_you_mean(self.pool, POOLS)
            raise UserError(f"pool is {self.pool!r}; choose one of {', '.join(POOLS)}{hint}")


@dataclass(frozen=True, kw_only=True)
class Grouping:
    """What was found of images that belong together."""

    ungrouped: str = BEFORE
    """Why near-duplicates were not looked for; "" where they were."""
    groups_sha256: str = ""
    """Of the groups that the user has named, by --groups or in the store; "" for none."""
    n_hashed: int = 0
    """Images that could be read; the others are no near-duplicates of any."""
    hash_alone: int = -1
    """Two images are near-duplicates when their hashes differ in at most so many of 64 bits, ..."""
    hash_within: int = -1
    """... or in at most so many, and ..."""
    cosine_above: float = 1.0
    """... the cosine of their vectors is above this."""
    random_pairs: int = 0
    """Pairs of images drawn at random on which this was checked, ..."""
    random_twins: int = 0
    """... and how many of these are near-duplicates by it."""
    n_groups: int = 0
    """Groups of at least two images."""
    grouped_share: float = 0.0
    """Share of the images that are in one."""
    largest_group: int = 0
    """Images of the largest; 0 without any."""

    def describe(self, n_images: int) -> str:
        """It in a line, for the terminal."""
        n = round(self.grouped_share * n_images)
        also = " and of yours" if self.groups_sha256 else ""
        found = f"{self.n_groups:,} groups of near-duplicates{also} hold {n:,} images "
        found += f"({self.grouped_share:.1%}), the largest {self.largest_group:,}"
        if self.ungrouped:
            named = f"; {found.replace('near-duplicates and of ', '')}" if self.n_groups else ""
            return f"images are split one by one: {self.ungrouped}{named}"
        return (
            f"{found}; each is on one side of the split. Near-duplicates: hashes that differ in at "
            f"most {self.hash_alone} of 64 bits, or {self.hash_within} with a cosine above "
            f"{self.cosine_above:.4g}; of {self.random_pairs:,} random pairs {self.random_twins:,} "
            "are"
        )

    def counted(self, sizes: Sequence[int], n_images: int) -> Grouping:
        """With the counts of groups of these sizes."""
        share, largest = sum(sizes) / max(n_images, 1), max(sizes, default=0)
        return replace(self, n_groups=len(sizes), grouped_share=share, largest_group=largest)


@dataclass(frozen=True, kw_only=True)
class CollectInfo(Grouping, CollectConfig):
    """collect.json: what was collected, from what, with which settings."""

    format: int = FORMAT
    version: str
    store: str
    """The store's folder, relative to the run folder, posix."""
    store_identity: str
    sae_identity: str
    domains: list[str]
    grid: list[int]
    """[h, w] of a heat map; [] without patches."""
    n_images: int
    n_latents: int
    n_live: int
    n_dead: int
    n_dense: int
    n_weak: int = 0
    """Live latents that are silent on too few images: some of their negatives are weak ones."""
    dense_by: str = "images"
    """What `dense_above` is a share of: "images" where there is one token an image, and in evidence
    of before tokens were counted; else "tokens"."""
    n_examples: int
    exact_classes: bool
    """False when classes were too many to count: then they come from the even samples only."""


def read_info(run_dir: Path) -> CollectInfo:
    """Read collect.json. Raises `UserError` when `collect` has not finished."""
    remedy = f"run `interp collect --run {quote(run_dir)}` again"
    return read_config(run_dir / FOLDER / INFO, CollectInfo, remedy)
