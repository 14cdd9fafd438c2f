"""A run before its evidence or its labels are there -> the same stages, to be asked for a cost.

Where nothing is collected yet a made-up latent stands in for each: as many images as evidence keeps
at most, all grey. What the stages ask of such a run is what they would ask at most.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from interp.llm.cost.estimate import Estimate, add_up
from interp.pipeline.best_of.naming import Naming
from interp.pipeline.best_of.settings import NamingSettings
from interp.pipeline.judging.plan import Judging
from interp.pipeline.stage import Stage
from interp.pipeline.transfer import TransferStage, choose_domains, make_stand_in
from interp.pipeline.workflow.names import EXPLAIN, SCORE
from interp.pipeline.workflow.names import TRANSFER as CROSSING
from interp.pipeline.workflow.settings import Settings
from interp.records.split import split_of
from interp.records.types import (
    SIDES,
    SIDES_WITH_SELECT,
    Evidence,
    Example,
    Explanation,
    Kind,
    LatentStats,
    Side,
)
from interp.run.results import Results
from interp.run.run import CANDIDATES, DISAMBIGUATION, TRANSFER, Run
from interp.score.transfer import Domains
from sae.core.files import sha256_hex
from sae.data.view import Heat

if TYPE_CHECKING:
    from PIL import Image

    from interp.evidence.reader import EvidenceReader

MOST_MADE = 100
"""Made-up latents; what more of them would cost follows from these."""
KEPT: dict[Kind, int] = {"top": 16, "quantile": 64, "silent": 32, "hard": 24}
"""Images of a made-up latent on either side."""
N_STRATA = 5
SIZE = (512, 384)
"""Pixels of a made-up image."""


class Cost(NamedTuple):
    """What one step would ask and cost."""

    estimate: Estimate
    """Added up over all of its stages."""
    n_pending: int
    """Latents, or labels, that are still to be asked about."""
    is_bound: bool
    """Whether it is of made-up latents, and so an upper bound."""
    is_partial: bool = False
    """Whether names are to be told apart that are not there yet: that comes on top."""


class Ahead(NamedTuple):
    """What is known of evidence that is not there yet."""

    n_latents: int
    images: dict[str, int]
    """Images by domain."""
    grid: tuple[int, int] | None
    select: bool = False
    """Whether images are kept to choose labels on."""


class ForeseenRun(Run):
    """A run as it will be when a step begins. It is never written to."""

    def __init__(self, path: Path, model: str, ahead: Ahead | None, keeps_results: bool) -> None:
        """`model`: makes the labels that are still to come, "" without them; `ahead`: in place of
        evidence; `keeps_results`: what was said and measured counts."""
        super().__init__(path)
        self._model, self._ahead, self._keeps = model, ahead, keeps_results

    @cached_property
    def evidence(self) -> EvidenceReader:
        if self._ahead is None:
            from interp.evidence.reader import EvidenceReader

            return EvidenceReader(self.path)
        return cast("EvidenceReader", MadeEvidence(self._ahead))

    @cached_property
    def results(self) -> Results:
        folder = self._place(self.path)
        if not self._model:
            return Results(folder)
        return ForeseenResults(folder, self._model, self.evidence.live())

    @cached_property
    def transfer(self) -> Results:
        return Results(self._place(self.path / TRANSFER))

    @cached_property
    def candidates(self) -> Results:
        return Results(self._place(self.path / CANDIDATES))

    @cached_property
    def disambiguation(self) -> Results:
        return Results(self._place(self.path / DISAMBIGUATION))

    def _place(self, folder: Path) -> Path:
        return folder if self._keeps else folder / "thrown-away"  # no such folder: nothing is there


class ForeseenResults(Results):
    """With a label in the place of each that is still to come."""

    def __init__(self, folder: Path, model: str, live: Sequence[int]) -> None:
        super().__init__(folder)
        self._coming = [make_stand_in(latent, model, _label(latent)) for latent in live]

    @cached_property
    def explanations(self) -> list[Explanation]:
        known = super().explanations
        said = {one.latent for one in known}
        return [*known, *(one for one in self._coming if one.latent not in said)]


class MadeInfo(NamedTuple):
    """The part of collect.json that stages ask for."""

    n_latents: int
    domains: list[str]
    grid: list[int]
    select: bool = False


class MadeEvidence:
    """In the place of an `EvidenceReader`: latents that have all images that can be kept."""

    def __init__(self, ahead: Ahead) -> None:
        n = min(ahead.n_latents, MOST_MADE)
        self.info = MadeInfo(n, list(ahead.images), list(ahead.grid or ()), ahead.select)
        self.status = ("live",) * n
        self.looked_at: dict[str, str] = {}
        self.groups: dict[str, str] = {}

    def live(self) -> list[int]:
        """All of them."""
        return list(range(self.info.n_latents))

    def of(self, latent: int) -> Evidence:
        """Of all latents the same images."""
        return Evidence(self.stats(latent), self._examples)

    def in_domain(self, domain: str) -> MadeEvidence:
        """The same with images of one domain alone."""
        grid = cast("tuple[int, int]", tuple(self.info.grid)) or None
        return MadeEvidence(Ahead(self.info.n_latents, {domain: 1}, grid, self.info.select))

    def stats(self, latent: int) -> LatentStats:
        """Active on a twentieth of each domain."""
        return LatentStats(
            latent=latent,
            status="live",
            n_active=1000,
            frequency=0.05,
            mean_act=0.5,
            max_act=1.0,
            hist=(0,) * 32,
            domain_rate=dict.fromkeys(self.info.domains, 0.05),
            sketch_share=1 / len(self.info.domains),
            class_entropy=0.0,
            top_classes=(),
        )

    def image(self, example: Example) -> Image.Image:
        """Grey."""
        from PIL import Image

        return Image.new("RGB", SIZE, (128, 128, 128))

    def check_image(self, example: Example) -> None:
        """There is no file that could have changed."""

    def heat(self, example: Example) -> Heat | None:
        """The middle of the image; None without patches."""
        if example.heat is None:
            return None
        return Heat.of(example.heat, "crop", cast("tuple[int, int]", tuple(self.info.grid)))

    def were_shown_rightly(self, image_ids: object, chosen_on: object = ()) -> bool:
        """Nothing was shown yet."""
        return True

    @cached_property
    def _examples(self) -> tuple[Example, ...]:
        sides = SIDES_WITH_SELECT if self.info.select else SIDES
        return tuple(example for side in sides for example in self._made(side))

    def _made(self, side: Side) -> Iterator[Example]:
        ids = iter(_ids(side, self.info.select))
        n_patches = math.prod(self.info.grid) if self.info.grid else 0
        heat = bytes(255 * (at == n_patches // 2) for at in range(n_patches)) or None
        for kind, n in KEPT.items():
            is_positive = kind in ("top", "quantile")
            for rank in range(n):
                yield Example(
                    latent=0,
                    side=side,
                    kind=kind,
                    rank=rank,
                    stratum=rank * N_STRATA // n if kind == "quantile" else -1,
                    row=0,
                    image_id=next(ids),
                    domain=self.info.domains[rank % len(self.info.domains)],
                    label="",
                    path="",
                    act=1.0 - rank / (2 * n) if is_positive else 0.0,
                    heat=heat if is_positive else None,
                    peak=n_patches // 2 if heat and is_positive else -1,
                )


def foresee(settings: Settings, ahead: Ahead | None, keeps_results: bool, step: str) -> Cost | None:
    """What a step would ask of paid models; None where it asks none.

    `ahead` as in `ForeseenRun`. Opens no socket, takes no lock and writes nothing.
    """
    labels_by = "" if step == EXPLAIN else settings.explainer.model
    run = ForeseenRun(settings.out, labels_by, ahead, keeps_results)
    live = run.evidence.live()
    n_pending, estimates, is_partial = _FORESEEN[step](settings, run, live, ahead)
    if not estimates:
        return None
    whole = add_up(estimates)
    if ahead is not None and ahead.n_latents > len(live):
        whole = _scale(whole, ahead.n_latents / len(live))
        n_pending = ahead.n_latents
    return Cost(whole, n_pending, ahead is not None, is_partial)


def _explain(
    settings: Settings, run: Run, live: list[int], ahead: Ahead | None
) -> tuple[int, list[Estimate], bool]:
    named = settings.naming if ahead is None else _seeing(settings.naming, settings.source.clip)
    naming = Naming(run, named, live)
    tells_apart = settings.disambiguate and not settings.explainer.is_local
    return naming.n_pending, naming.estimates(), tells_apart and naming.n_unnamed > 0


def _score(
    settings: Settings, run: Run, live: list[int], ahead: Ahead | None
) -> tuple[int, list[Estimate], bool]:
    plan = Judging(run, settings.judge, settings.judging, "", settings.work)
    n_pending = len(plan.detect.pending) if plan.detect else 0
    return n_pending, _paid(plan.stages), False


def _transfer(
    settings: Settings, run: Run, live: list[int], ahead: Ahead | None
) -> tuple[int, list[Estimate], bool]:
    if ahead is None:
        domains = choose_domains(run, settings.pair)
    else:
        a, b = settings.pair.split(",")
        domains = Domains(a, b, ahead.images[a], ahead.images[b])
    asked = (settings.explainer, settings.judge, domains, live, settings.work)
    stage = TransferStage(run, *asked)
    return len(stage.pending), stage.estimates(), False


def _seeing(naming: NamingSettings, clip: str) -> NamingSettings:
    """With the store's CLIP by name, where no store is there yet that would tell it."""
    explainer, choice = naming.explainer, naming.best_of
    return dataclasses.replace(
        naming,
        explainer=dataclasses.replace(explainer, clip=explainer.clip or clip),
        best_of=dataclasses.replace(choice, select_clip=choice.select_clip or clip),
        disambiguate=False,
    )


_FORESEEN = {EXPLAIN: _explain, SCORE: _score, CROSSING: _transfer}


def _paid(stages: Sequence[Stage[Any, Any, Any]]) -> list[Estimate]:
    return [stage.estimate() for stage in stages if not stage.is_local]


def _scale(whole: Estimate, factor: float) -> Estimate:
    counts = ("n_latents", "n_requests", "n_least")
    money = ("usd", "usd_least", "usd_at_most")
    return dataclasses.replace(
        whole,
        **{name: math.ceil(factor * getattr(whole, name)) for name in counts},
        **{name: factor * getattr(whole, name) for name in money},
    )


@lru_cache
def _ids(side: Side, select: bool) -> tuple[str, ...]:
    """Ids of images that fall on this side of the split."""
    found: list[str] = []
    number = 0
    while len(found) < sum(KEPT.values()):
        image_id = sha256_hex(f"made up {number}".encode())
        found += [image_id] if split_of(image_id, select) == side else []
        number += 1
    return tuple(found)


def _label(latent: int) -> str:
    """As long as a label, and of another meaning than those of other latents."""
    word = sha256_hex(f"label {latent}".encode())
    return f"{word[:9]} {word[9:18]} {word[18:24]}"
