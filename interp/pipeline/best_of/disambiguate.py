"""Labels that several latents share -> one round of telling these apart, by a model or CLIP."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from interp.explain.apart import LEAST_CONTRAST, STAGE, ApartExplainer, choose_apart
from interp.explain.run import ExplainSummary, summarise
from interp.llm.repair import file_under
from interp.llm.types import Question, VisionModel
from interp.pictures.contrast import Contrast, contrast_of, sharers
from interp.pipeline.clip.model import background, clip_name, local_encoder
from interp.pipeline.explain import ExplainStage
from interp.records.codec import to_json
from interp.records.types import AnsweredBy, Example, Explanation
from interp.records.wording import wording
from interp.run.results import EXPLANATIONS, Results
from interp.run.run import DISAMBIGUATION
from sae.core.files import append_jsonl, repair_jsonl

if TYPE_CHECKING:
    from interp.local.apart import LocalApart


class ToldApart(NamedTuple):
    """What one round came to."""

    summary: ExplainSummary
    """Of the latents that were asked about."""
    n_labels: int
    """Of the run."""
    n_shared_before: int
    """Of these, as many as another latent has too."""
    n_shared: int
    n_new: int
    """Labels that took the place of a shared one."""


class DisambiguateStage(ExplainStage):
    """Asks of every latent with a shared label, once, what sets it apart.

    All answers are kept in a journal of their own; those with another label than the shared one
    become the newest explanation of their latent once all have been asked.
    """

    name = STAGE

    @property
    def file(self) -> Path:
        return self._run.path / DISAMBIGUATION / EXPLANATIONS

    @cached_property
    def by(self) -> AnsweredBy:
        if not self._settings.is_local:
            prompt = ApartExplainer.prompt_of(self._config)
            return AnsweredBy(self._settings.model, prompt, self._settings.server)
        from interp.local.apart import LocalApart

        return LocalApart.identify(clip_name(self._run, self._settings))

    def run(self, label: str = "") -> ExplainSummary:
        """See `Stage.run`."""
        return self.tell_apart(label).summary

    def tell_apart(self, label: str = "") -> ToldApart:
        """The same with what came of it. With `--limit`, what is left is asked next time."""
        before = _shared(self._run.results)
        summary = super().run(label)
        n_new = self._take_up()
        newest = self._run.results.newest_explanations().values()
        n_labels = sum(e.label is not None for e in newest)
        return ToldApart(summary, n_labels, before, _shared(self._run.results), n_new)

    def summary(self, made: Sequence[Explanation]) -> ExplainSummary:
        """Of the latents with a shared label."""
        asked = [latent for latent in self._latents if latent in self._sharers]
        n_skipped = len(set(asked)) - len(self.all_pending)
        return summarise(self._known(), self.by, asked, made, n_skipped)

    @property
    def _results(self) -> Results:
        return self._run.disambiguation

    @cached_property
    def _newest(self) -> dict[int, Explanation]:
        """The labels before the round."""
        found = self._run.results.newest_explanations()
        rightly = self._run.evidence.were_shown_rightly
        return {latent: e for latent, e in found.items() if rightly(e.codes.values())}

    @cached_property
    def _sharers(self) -> dict[int, tuple[int, ...]]:
        return sharers(self._newest)

    def _find_pending(self) -> list[int]:
        pending = (n for n in super()._find_pending() if n in self._sharers)
        return [n for n in pending if len(self._contrast(n).examples) >= LEAST_CONTRAST]

    @cached_property
    def _contrast(self) -> Callable[[int], Contrast]:
        return cache(lambda n: contrast_of(n, self._newest, self._sharers[n], self._source))

    def _shown(self, item: int) -> Iterable[Example]:
        contrast = self._contrast(item)
        if self._settings.is_local:
            return (*self._clip_namer.choose(self._source.of(item)), *contrast.examples)
        shown = choose_apart(self._source.of(item), contrast, self._config)
        return (*shown.positives, *shown.negatives)

    def _local_answerer(self) -> LocalApart:
        from interp.local.apart import LocalApart

        encoder = local_encoder(self._run, self._settings)
        images = background(self._run.evidence, self.domain, encoder)
        return LocalApart(encoder, images, self._contrast)

    def _paid_answerer(self, model: VisionModel) -> ApartExplainer:
        again, server = self._work.retry_failed, self._settings.server
        heat_of = self._run.evidence.heat
        return ApartExplainer(
            model, self._config, self._contrast, heat_of, again=again, server=server
        )

    def questions(self, items: Iterable[int]) -> Iterator[Question]:
        return (file_under(question, STAGE) for question in super().questions(items))

    def _take_up(self) -> int:
        """Make the answers with a label of their own the newest explanations; returns how many."""
        known = self._run.results
        taken = {e.latent for e in known.explanations if _by(e) == self.by}
        answers = {e.latent: e for e in self._known() if _by(e) == self.by and e.label}
        shared = sharers(known.newest_explanations())
        fresh = [
            answer
            for latent, answer in sorted(answers.items())
            if latent in shared and latent not in taken and self._differs(answer)
        ]
        with closing(self._run.hold()):
            repair_jsonl(self._run.explanations)
            for answer in fresh:
                append_jsonl(self._run.explanations, [to_json(answer)])
                known.add(answer)
        return len(fresh)

    def _differs(self, answer: Explanation) -> bool:
        return wording(answer.label or "") != wording(self._newest[answer.latent].label or "")


def _by(explanation: Explanation) -> AnsweredBy:
    return AnsweredBy(explanation.model, explanation.prompt, explanation.server)


def _shared(results: Results) -> int:
    """Labels that another latent has too."""
    return len(sharers(results.newest_explanations()))
