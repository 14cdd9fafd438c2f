"""Evidence -> explanation: a vision model names what the images of a latent share."""

from __future__ import annotations

import asyncio
import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol

from interp.explain.examples import ShowConfig, choose
from interp.explain.lint import lint_description, lint_label
from interp.explain.page import COLUMNS, Page, draw_page
from interp.llm.prompts import fingerprint, render
from interp.llm.repair import Answered, ask_until_usable
from interp.llm.replies.schemas import ExplainAnswer, explain_schema
from interp.llm.scheduler import CONCURRENCY, Width, append_run, entered, finished
from interp.llm.types import Question, ReplyError, VisionModel, is_transient
from interp.pictures.cache import EvidenceSource, Images
from interp.pictures.grid import FIRST, SECOND
from interp.pictures.painter import Layout, Painter
from interp.records.types import Evidence, Explanation

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


class VlmExplainer:
    """Shows a vision model a set of positives and one of negatives, and asks for a label."""

    def __init__(
        self,
        model: VisionModel,
        config: ExplainConfig | None = None,
        patch_grid: tuple[int, int] | None = None,
        *,
        again: bool = False,
    ) -> None:
        """`patch_grid`: (rows, columns) of a patch store's heat maps; square when not given.

        `again`: ask anew what was answered in an unusable way before.
        """
        self._model = model
        self._again = again
        self.config = config or ExplainConfig()
        self._patch_grid = patch_grid
        self._painter = Painter(self.config.layout, COLUMNS, self.config.cell)
        self.name = model.name
        self.prompt = explain_prompt(self.config)
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
        # Decoding and drawing must not hold up the requests in flight.
        page = await asyncio.to_thread(self._page, evidence, images)
        latent = evidence.stats.latent
        if self._shows_too_little(page):
            return self._failed(latent, TOO_FEW, page)
        try:
            answered = await ask_until_usable(
                self._model, self._question(page, latent), page.parse, again=self._again
            )
        except ReplyError as error:
            return self._failed(latent, error.kind, page, error.calls, error.usage.usd)
        classes = {name.lower() for name, _ in evidence.stats.top_classes}
        return self._explained(latent, answered, page, classes)

    def question(self, evidence: Evidence, images: Images) -> Question | None:
        """What `explain` asks first; None where there are too few images."""
        page = self._page(evidence, images)
        if self._shows_too_little(page):
            return None
        return self._question(page, evidence.stats.latent)

    def _page(self, evidence: Evidence, images: Images) -> Page:
        shown = choose(evidence, self.config.show)
        return draw_page(shown, images, self.config.show, self._painter, self._patch_grid)

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
        label = lint_label(answer.label, classes, outlined=page.outlined)
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


def explain_prompt(config: ExplainConfig) -> str:
    """Fingerprint of the explainer's templates, schema and settings."""
    schema = explain_schema(FIRST, SECOND, region=True)
    return fingerprint(_TEMPLATES, schema, dataclasses.asdict(config))


def pending_latents(
    path: Path, name: str, prompt: str, latents: Sequence[int], *, retry_failed: bool = False
) -> list[int]:
    """Those that this explainer has not done with this prompt, in the order of `latents`.

    What failed for a reason that waiting cures is to be done; with `retry_failed` what failed for
    any other is too, unless there are too few images.
    """
    failures = _failures(path, name, prompt)
    done = {latent for latent, why in failures.items() if not _to_do_again(why, retry_failed)}
    return [latent for latent in dict.fromkeys(latents) if latent not in done]


def _failures(path: Path, name: str, prompt: str) -> dict[int, str | None]:
    """Latent -> why its last explanation by this explainer and prompt failed; None: it did not."""
    rows = [row for row in finished(path) if (row["model"], row["prompt"]) == (name, prompt)]
    return {row["latent"]: row["failure"] for row in rows}


def _to_do_again(failure: str | None, retry_failed: bool) -> bool:
    if failure is None or failure == TOO_FEW:
        return False
    return retry_failed or is_transient(failure)


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
    n_asked: int = 0
    """Latents that a model was asked about, by this and earlier calls."""
    n_unusable: int = 0
    """Those of them without a usable answer."""


def explain_run(
    path: Path,
    source: EvidenceSource,
    explainer: Explainer,
    latents: Sequence[int],
    *,
    concurrency: Width = CONCURRENCY,
    on_record: Callable[[Explanation], None] | None = None,
    limit: int | None = None,
    retry_failed: bool = False,
    opened: Iterable[object] = (),
) -> ExplainSummary:
    """Explain latents and append to `path` (explanations.jsonl) in the order of `latents`.

    What is done is skipped (`pending_latents`), so the same command goes on with a run that was
    stopped; of the rest at most `limit` are done. `on_record`, `opened`: see `append_run`.
    """
    todo = pending_latents(
        path, explainer.name, explainer.prompt, latents, retry_failed=retry_failed
    )
    made: list[Explanation] = []

    async def work(latent: int) -> Explanation:
        return await explainer.explain(source.of(latent), source.image)

    def note(explanation: Explanation) -> None:
        made.append(explanation)
        if on_record is not None:
            on_record(explanation)

    append_run(
        path,
        todo[:limit],
        work,
        concurrency=concurrency,
        on_record=note,
        opened=(explainer, *opened),
    )
    n_skipped = len(set(latents)) - len(todo)
    return summarise(path, explainer.name, explainer.prompt, latents, made, n_skipped)


def summarise(
    path: Path,
    name: str,
    prompt: str,
    latents: Iterable[int],
    made: Sequence[Explanation] = (),
    n_skipped: int = 0,
) -> ExplainSummary:
    """Of one call, which made the explanations `made`, and of all calls before it on `latents`."""
    kinds = Counter(e.failure for e in made if e.failure is not None)
    known = _failures(path, name, prompt)
    asked = [known[n] for n in set(latents) if n in known and known[n] != TOO_FEW]
    return ExplainSummary(
        n_labelled=len(made) - kinds.total(),
        n_failed=kinds.total(),
        n_skipped=n_skipped,
        failures=dict(kinds),
        usd=math.fsum(e.usd for e in made),
        n_asked=len(asked),
        n_unusable=sum(failure is not None for failure in asked),
    )
