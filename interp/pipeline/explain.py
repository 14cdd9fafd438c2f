"""Evidence -> explanations.jsonl: the stage of explaining."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from interp.explain.examples import choose_shown
from interp.explain.explainer import ExplainConfig, Explainer, VlmExplainer, explain_prompt
from interp.explain.run import ExplainSummary, pending_latents, summarise
from interp.llm.types import Question, VisionModel
from interp.pictures.cache import EvidenceSource, PictureCache
from interp.pipeline.clip.model import background, clip_name, local_encoder, warn_of_misfit
from interp.pipeline.paid.dry_run import Unasked
from interp.pipeline.paid.model import EXPLAIN_SHAPE
from interp.pipeline.settings import ModelSettings, Work
from interp.pipeline.stage import Stage
from interp.records.family import LINEAR, is_linear
from interp.records.types import AnsweredBy, Example, Explanation
from interp.run.run import Run
from sae.core.errors import UserError, quote

if TYPE_CHECKING:
    from interp.local.models import LocalNamer
    from interp.local.vocabulary import Term


class ExplainStage(Stage[int, Explanation, ExplainSummary]):
    """Names latents; an item is a latent."""

    shape = EXPLAIN_SHAPE
    name = "explain"

    def __init__(
        self, run: Run, settings: ModelSettings, latents: Sequence[int], work: Work | None = None
    ) -> None:
        super().__init__(run, settings, work or Work())
        self._latents = latents
        self._config = ExplainConfig(layout=self._layout)

    @property
    def file(self) -> Path:
        return self._run.explanations

    @cached_property
    def by(self) -> AnsweredBy:
        if not self._settings.is_local:
            return AnsweredBy(
                self._settings.model, explain_prompt(self._config), self._settings.server
            )
        return self._clip_namer.identify(clip_name(self._run, self._settings), self._vocabulary)

    def questions(self, items: Iterable[int]) -> Iterator[Question]:
        source = PictureCache(self._source)
        explainer = self._paid_answerer(Unasked(self._settings.model))
        for latent in items:
            question = explainer.question(source.of(latent), source.image)
            if question is not None:
                yield question

    def summary(self, made: Sequence[Explanation]) -> ExplainSummary:
        n_skipped = len(set(self._latents)) - len(self.all_pending)
        return summarise(self._known(), self.by, self._latents, made, n_skipped)

    def _find_pending(self) -> list[int]:
        rightly = self._run.evidence.were_shown_rightly
        known = (e for e in self._known() if rightly(e.codes.values()))
        again = self._work.retry_failed
        pending = pending_latents(known, self.by, self._latents, retry_failed=again)
        if self._settings.is_linear:
            self._require_first(pending)
        return pending

    def _require_first(self, pending: Sequence[int]) -> None:
        """The newest label counts: a baseline that comes later would take the others' place."""
        newest = self._results.newest_explanations()
        said = [newest[latent] for latent in pending if latent in newest]
        others = [one for one in said if one.label is not None and not is_linear(one.model)]
        if others:
            raise UserError(
                f"{self._run.path}: {len(others):,} of the latents have labels by "
                f"{others[0].model}, which {LINEAR} would take the place of; make it first, in a "
                f"run of its own: interp collect {quote(self._run.sae)} {quote(self._run.store)} "
                "--run NAME"
            )

    def _known(self) -> Iterable[Explanation]:
        """What was said before of what this stage is about."""
        return self._results.explanations

    def _shown(self, item: int) -> Iterable[Example]:
        evidence = self._source.of(item)
        if self._settings.is_local:
            return self._clip_namer.choose(evidence)
        shown = choose_shown(evidence, self._config.show)
        return (*shown.positives, *shown.negatives)

    def _askable(self) -> list[int]:
        return [latent for latent in self.pending if self._n_requests(latent)]

    def _n_requests(self, item: int) -> int:
        show = self._config.show
        shown = choose_shown(self._source.of(item), show)
        return int(len(shown.positives) >= show.min_positives)

    @cached_property
    def _vocabulary(self) -> list[Term]:
        from interp.local.vocabulary import load_vocabulary

        return load_vocabulary(self._settings.vocabulary, clip_name(self._run, self._settings))

    @property
    def _clip_namer(self) -> type[LocalNamer]:
        if self._settings.is_linear:
            from interp.local.linear import LinearNamer

            return LinearNamer
        from interp.local.models import LocalNamer

        return LocalNamer

    def _local_answerer(self) -> Explainer:
        encoder = local_encoder(self._run, self._settings)
        namer = self._clip_namer(
            encoder, self._vocabulary, background(self._run.evidence, self.domain, encoder)
        )
        words = [term.name for term in self._vocabulary]
        warn_of_misfit(self._run, encoder.clip.name, words, namer.background)
        return namer

    def _paid_answerer(self, model: VisionModel) -> VlmExplainer:
        again, server = self._work.retry_failed, self._settings.server
        heat_of = self._run.evidence.heat
        return VlmExplainer(model, self._config, heat_of, again=again, server=server)

    def _worker(
        self, answerer: Explainer, source: EvidenceSource
    ) -> Callable[[int], Awaitable[Explanation]]:
        return lambda latent: answerer.explain(source.of(latent), source.image)
