"""Latents that share a label -> what sets the images of one apart from those of the others."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from interp.explain.examples import Shown, choose_shown
from interp.explain.explainer import ExplainConfig, VlmExplainer, explain_prompt
from interp.explain.page import Page, draw_page
from interp.llm.types import VisionModel
from interp.pictures.cache import HeatOf, Images
from interp.pictures.contrast import Contrast
from interp.pictures.grid import SECOND
from interp.records.types import Evidence, Example, Explanation

STAGE = "disambiguate"
"""What its answers are filed under, and the name of its prompt."""
LEAST_CONTRAST = 3
"""Fewer images of the others than this tell nothing."""


class ApartExplainer(VlmExplainer):
    """Shows a vision model a latent's images and those of latents with the same label."""

    filed = STAGE

    def __init__(
        self,
        model: VisionModel,
        config: ExplainConfig,
        contrast_of: Callable[[int], Contrast],
        heat_of: HeatOf = lambda example: None,
        *,
        again: bool = False,
        server: str = "",
    ) -> None:
        """See `VlmExplainer`. `contrast_of`: what a latent is held against."""
        super().__init__(model, config, heat_of, again=again, server=server)
        self._contrast_of = contrast_of

    @staticmethod
    def prompt_of(config: ExplainConfig) -> str:
        """See `VlmExplainer.prompt_of`."""
        return explain_prompt(config, STAGE)

    async def explain(self, evidence: Evidence, images: Images) -> Explanation:
        """The label that tells it apart, which may be the old one."""
        found = await super().explain(evidence, images)
        if found.label is None:
            return found
        contrast = self._contrast_of(found.latent)
        return dataclasses.replace(found, provenance=contrast.in_words())

    def _page(self, evidence: Evidence, images: Images) -> Page:
        contrast = self._contrast_of(evidence.stats.latent)
        show = dataclasses.replace(self.config.show, min_negatives=LEAST_CONTRAST)
        shown = choose_apart(evidence, contrast, self.config)
        domain = evidence.stats.bound_domain
        page = draw_page(shown, images, show, self._painter, self._heat_of, domain)
        shared = contrast.own.label or ""
        return dataclasses.replace(page, template=STAGE, shared=shared)

    def _shows_too_little(self, page: Page) -> bool:
        return super()._shows_too_little(page) or not page.neg_codes


def choose_apart(evidence: Evidence, contrast: Contrast, config: ExplainConfig) -> Shown:
    """The latent's own images as any explainer is shown them, and those of the others."""
    shown = choose_shown(evidence, config.show)
    own = {example.group_id for example in shown.positives}
    others: list[Example] = [e for e in contrast.examples if e.group_id not in own]
    return shown._replace(negatives=tuple(others[: len(SECOND)]))
