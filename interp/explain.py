"""Evidence -> explanation: a vision model names what the images of a latent share."""

from __future__ import annotations

import asyncio
import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol

from PIL import Image

from interp.asking import Answered, ask_until_usable
from interp.grid import FIRST, SECOND
from interp.lint import lint_description, lint_label
from interp.page import Page, draw_page
from interp.pictures import Images
from interp.prompts import fingerprint, render
from interp.questions import Question, ReplyError, VisionModel, is_transient
from interp.records import Evidence, Example, Explanation
from interp.replies import ExplainAnswer, explain_schema
from interp.schedule import CONCURRENCY, append_run, entered, finished
from interp.showing import ShowConfig, choose
from sae.progress import Progress

__all__ = [
    "EvidenceSource",
    "ExplainConfig",
    "ExplainSummary",
    "Explainer",
    "Images",
    "VlmExplainer",
    "explain_run",
]

TOO_FEW = "too_few_images"
_TEMPLATES = ("system", "explain", "repair", "schema")


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


class EvidenceSource(Protocol):
    """Where evidence comes from (`EvidenceReader`)."""

    def of(self, latent: int) -> Evidence: ...
    def image(self, example: Example) -> Image.Image: ...


@dataclass(frozen=True)
class ExplainConfig:
    """What the model is shown and how it is asked; part of the prompt's fingerprint."""

    show: ShowConfig = field(default_factory=ShowConfig)
    cell: int = 224
    """Pixels. 336 is sharper: free of charge on Gemini, 1.7 to 2.3 times the price elsewhere."""
    temperature: float = 0.3
    max_tokens: int = 700
    """An answer takes about 440; one that is cut is asked again with twice as many."""


class VlmExplainer:
    """Shows a vision model one grid of positives and one of negatives, and asks for a label."""

    def __init__(
        self,
        model: VisionModel,
        config: ExplainConfig | None = None,
        patch_grid: tuple[int, int] | None = None,
    ) -> None:
        """`patch_grid`: (rows, columns) of a patch store's heat maps; square when not given."""
        self._model = model
        self.config = config or ExplainConfig()
        self._patch_grid = patch_grid
        self.name = model.name
        schema = explain_schema(FIRST, SECOND, region=True)
        self.prompt = fingerprint(_TEMPLATES, schema, dataclasses.asdict(self.config))
        self._open = AsyncExitStack()

    async def __aenter__(self) -> VlmExplainer:
        await self._open.enter_async_context(entered((self._model,)))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._open.aclose()

    async def explain(self, evidence: Evidence, images: Images) -> Explanation:
        """One label for one latent. Raises `LeakError` when an image is not of the explain side."""
        shown = choose(evidence, self.config.show)
        # Decoding and drawing must not hold up the requests in flight.
        page = await asyncio.to_thread(
            draw_page, shown, images, self.config.show, self.config.cell, self._patch_grid
        )
        latent = evidence.stats.latent
        if len(page.codes) < self.config.show.min_positives:
            return self._failed(latent, TOO_FEW, page)
        try:
            answered = await ask_until_usable(self._model, self._question(page), page.parse)
        except ReplyError as error:
            return self._failed(latent, error.kind, page, error.calls, error.usage.usd)
        classes = {name.lower() for name, _ in evidence.stats.top_classes}
        return self._explained(latent, answered, page, classes)

    def _question(self, page: Page) -> Question:
        return Question(
            system=render("system"),
            parts=page.parts(),
            schema=page.schema(),
            schema_name="explain",
            max_tokens=self.config.max_tokens,
            temperature=self.config.temperature,
            prompt=self.prompt,
        )

    def _explained(
        self, latent: int, answered: Answered[ExplainAnswer], page: Page, classes: set[str]
    ) -> Explanation:
        answer = answered.value
        label = lint_label(answer.label, classes, outlined=page.twin is not None)
        if not label.label:
            return self._failed(latent, "invalid", page, answered.calls, answered.usd)
        description = lint_description(answer.description)
        second = lint_label(answer.second_label or "").label or None
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
            lint=(*label.remarks, *description.remarks, *low),
            provider=answered.reply.provider,
            candidates=tuple(lint_label(c.text).label for c in answer.candidates),
            calls=answered.calls,
            usd=answered.usd,
            **self._provenance(page),
        )

    def _failed(
        self,
        latent: int,
        failure: str,
        page: Page,
        calls: tuple[str, ...] = (),
        usd: float = 0.0,
    ) -> Explanation:
        return Explanation(
            latent=latent,
            label=None,
            second_label=None,
            description="",
            verdict="",
            level="",
            confidence=None,
            failure=failure,
            lint=(),
            provider=None,
            candidates=(),
            calls=calls,
            usd=usd,
            **self._provenance(page),
        )

    def _provenance(self, page: Page) -> dict[str, Any]:
        codes = {**page.codes, **page.neg_codes}
        return {"model": self.name, "prompt": self.prompt, "codes": codes}


class ExplainSummary(NamedTuple):
    """What one `explain_run` did."""

    n_labelled: int
    n_failed: int
    n_skipped: int
    """Latents that were already in the file."""
    failures: dict[str, int]
    """Kind of failure -> latents."""
    usd: float
    """Billed for these explanations; NaN when a server did not say."""


def explain_run(
    path: Path,
    source: EvidenceSource,
    explainer: Explainer,
    latents: Sequence[int],
    *,
    concurrency: int = CONCURRENCY,
    progress: Progress | None = None,
) -> ExplainSummary:
    """Explain latents and append to `path` (explanations.jsonl) in the order of `latents`.

    What this explainer with this prompt has already written is skipped, unless it failed for a
    reason that waiting cures; so the same command goes on with a run that was stopped.
    """
    done = {
        row["latent"]
        for row in finished(path)
        if (row["model"], row["prompt"]) == (explainer.name, explainer.prompt)
        and not is_transient(row["failure"] or "")
    }
    todo = [latent for latent in dict.fromkeys(latents) if latent not in done]
    made: list[tuple[str | None, float]] = []

    async def work(latent: int) -> Explanation:
        explanation = await explainer.explain(source.of(latent), source.image)
        made.append((explanation.failure, explanation.usd))
        return explanation

    append_run(path, todo, work, concurrency=concurrency, progress=progress, opened=(explainer,))
    failures = Counter(failure for failure, _ in made if failure is not None)
    return ExplainSummary(
        n_labelled=len(made) - failures.total(),
        n_failed=failures.total(),
        n_skipped=len(set(latents)) - len(todo),
        failures=dict(failures),
        usd=math.fsum(usd for _, usd in made),
    )
