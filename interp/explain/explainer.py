"""Evidence -> Explanation: a vision model names what the images of a latent share."""

from __future__ import annotations

import asyncio
import dataclasses
from dataclasses import dataclass, field
from typing import Protocol

from interp.explain.answer import ExplainAnswer, explain_schema
from interp.explain.examples import ShowConfig, choose_shown
from interp.explain.lint import lint_description, lint_label
from interp.explain.page import COLUMNS, Page, draw_page
from interp.llm.failures import scrub
from interp.llm.prompts import fingerprint, render
from interp.llm.repair import Answered, Asker
from interp.llm.types import Question, ReplyError, VisionModel
from interp.pictures.cache import HeatOf, Images
from interp.pictures.grid import FIRST, SECOND
from interp.pictures.painter import Layout, Painter, draw
from interp.records.types import TOO_FEW, UNREADABLE, AnsweredBy, Evidence, Explanation


class Explainer(Protocol):
    """Names latents: a vision model, or a local namer without a key."""

    @property
    def name(self) -> str:
        """Model id, or "local"."""
        ...

    @property
    def prompt(self) -> str:
        """Fingerprint of the prompt, its schema and the settings that change the answer."""
        ...

    async def explain(self, evidence: Evidence, images: Images) -> Explanation:
        """Failures are states of the result; raises `UserError` when nothing can be explained."""
        ...


@dataclass(frozen=True)
class ExplainConfig:
    """What the model is shown and how it is asked; part of the prompt's fingerprint."""

    show: ShowConfig = field(default_factory=ShowConfig)
    cell: int = 224
    """Pixels of a cell or of a single picture. 336 is sharper: free of charge on Gemini, 1.7 to 2.3
    times the price elsewhere."""
    layout: Layout = "grid"
    """One grid a set, or a picture for each letter."""
    temperature: float = 0.3
    max_tokens: int = 700
    """An answer takes about 440; one that is cut is asked again with twice as many."""


class VlmExplainer(Asker):
    """Shows a vision model a set of positives and one of negatives, and asks for a label."""

    def __init__(
        self,
        model: VisionModel,
        config: ExplainConfig | None = None,
        heat_of: HeatOf = lambda example: None,
        *,
        again: bool = False,
        server: str = "",
    ) -> None:
        """`heat_of`: what is outlined on a patch store's images.

        `again`: ask anew what was answered in an unusable way before. `server`: as in
        `Explanation`.
        """
        super().__init__(model, again=again)
        self.config = config or ExplainConfig()
        self._heat_of = heat_of
        self._painter = Painter(self.config.layout, COLUMNS, self.config.cell)
        self.name = model.name
        self.prompt = self.prompt_of(self.config)
        self._by = AnsweredBy(self.name, self.prompt, server)

    @staticmethod
    def prompt_of(config: ExplainConfig) -> str:
        """Fingerprint of all that decides the answers, before a model is there."""
        return explain_prompt(config)

    async def explain(self, evidence: Evidence, images: Images) -> Explanation:
        """One label for one latent. Raises `LeakError` when an image is not of the explain side."""
        # Decoding and drawing must not hold up the requests in flight.
        page = await asyncio.to_thread(self._drawn_page, evidence, images)
        latent = evidence.stats.latent
        if self._shows_too_little(page):
            chosen = choose_shown(evidence, self.config.show).positives
            too_few = len(chosen) < self.config.show.min_positives
            return self._failed(latent, TOO_FEW if too_few else UNREADABLE, page)
        try:
            answered = await self.ask(self._question(page, latent), page.parse)
        except ReplyError as error:
            words = scrub(error.message)
            return self._failed(latent, error.kind, page, error.calls, error.usage.usd, words)
        classes = {name.lower() for name, _ in evidence.stats.top_classes}
        return self._explained(latent, answered, page, classes)

    def question(self, evidence: Evidence, images: Images) -> Question | None:
        """What `explain` asks first; None where there are too few images."""
        page = self._page(evidence, images)
        if self._shows_too_little(page):
            return None
        return self._question(page, evidence.stats.latent)

    def _drawn_page(self, evidence: Evidence, images: Images) -> Page:
        page = self._page(evidence, images)
        if not self._shows_too_little(page):
            draw(page.drawn)
        return page

    def _page(self, evidence: Evidence, images: Images) -> Page:
        shown = choose_shown(evidence, self.config.show)
        domain = evidence.stats.bound_domain
        return draw_page(shown, images, self.config.show, self._painter, self._heat_of, domain)

    def _shows_too_little(self, page: Page) -> bool:
        return len(page.codes) < self.config.show.min_positives

    def _question(self, page: Page, latent: int) -> Question:
        return Question(
            system=render("system", layout=self.config.layout),
            parts=page.parts(),
            schema=page.schema(),
            schema_name="explain",
            max_tokens=self.config.max_tokens,
            temperature=self.config.temperature,
            prompt=self.prompt,
            about=f"explain {latent}",
        )

    def _explained(
        self, latent: int, answered: Answered[ExplainAnswer], page: Page, classes: set[str]
    ) -> Explanation:
        answer = answered.value
        bound = bool(page.domain)
        label = lint_label(answer.label, classes, outlined=page.outlined, medium_allowed=bound)
        if not label.label:
            words = scrub(f"nothing is left of the label {answer.label!r}")
            return self._failed(latent, "invalid", page, answered.calls, answered.usd, words)
        description = lint_description(answer.description)
        second = lint_label(answer.second_label or "", medium_allowed=bound).label or None
        low = ("low_resolution",) if page.low_resolution else ()
        return Explanation(
            latent=latent,
            label=label.label,
            second_label=second,
            description=description.label,
            verdict=answer.verdict,
            level=answer.level,
            confidence=answer.confidence,
            failure=None,
            lint=tuple(dict.fromkeys((*label.remarks, *description.remarks, *low))),
            provider=answered.reply.provider,
            candidates=tuple(
                lint_label(c.text, medium_allowed=bound).label for c in answer.candidates
            ),
            calls=answered.calls,
            usd=answered.usd,
            model=self.name,
            prompt=self.prompt,
            codes=_codes(page),
            server=self._by.server,
            domain=page.domain if answer.domain == "bound" else "",
        )

    def _failed(
        self,
        latent: int,
        failure: str,
        page: Page,
        calls: tuple[str, ...] = (),
        usd: float = 0.0,
        reason: str = "",
    ) -> Explanation:
        return Explanation.failed(latent, self._by, failure, _codes(page), calls, usd, reason)


def _codes(page: Page) -> dict[str, str]:
    return {**page.codes, **page.neg_codes}


def explain_prompt(config: ExplainConfig, template: str = "explain") -> str:
    """Fingerprint of the explainer's templates, schema and settings."""
    schema = explain_schema(FIRST, SECOND, region=True, bound=True)
    settings = dataclasses.asdict(config)
    if not config.show.draw:  # as it was before there were others: what was paid for still counts
        del settings["show"]["draw"]
    return fingerprint(("system", template, "repair", "schema"), schema, settings)
