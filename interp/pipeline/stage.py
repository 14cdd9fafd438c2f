"""A run and its settings -> one stage of asking: what is pending, questions, cost, the run itself.

A stage is made once. What it would ask, what that would cost, the first requests as files and the
run itself all follow from the same `pending`. Behind it is CLIP on this machine, or a paid model.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import closing
from copy import copy
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

from interp.evidence.bad_images import check_images, report_bad_images
from interp.evidence.reader import EvidenceReader, OneDomain
from interp.llm.cost.estimate import N_SAMPLE, Estimate, estimate
from interp.llm.cost.tariff import Tariff
from interp.llm.ledger.ledger import Ledger
from interp.llm.ledger.report import read_billed, read_note
from interp.llm.scheduler import append_run
from interp.llm.server.client import ChatModel
from interp.llm.server.dialect import INSTEAD, Dialect
from interp.llm.server.http import dialect_scope
from interp.llm.server.ladder import dialect_note, read_dialect, read_refusals
from interp.llm.server.preflight import preflight
from interp.llm.types import Question, Width
from interp.pictures.cache import EvidenceSource, PictureCache
from interp.pipeline.clip.model import background_examples
from interp.pipeline.paid.dry_run import FOLDER, Request, write_requests
from interp.pipeline.paid.live_view import Meter, live
from interp.pipeline.paid.model import (
    Shape,
    client_config,
    known_price,
    layout_of,
    listed_model,
    paid_model,
    watch,
)
from interp.pipeline.settings import N_AT_WORK, ModelSettings, Work
from interp.records.tasks import TaskScore
from interp.records.types import AnsweredBy, Example, Explanation, Score
from interp.run.results import Results
from interp.run.run import Run
from sae.core.errors import UserError
from sae.core.progress import bar

N_CHECKED = 256
"""Latents, evenly spread, whose images are compared with their ids before anything is asked: this
finds a folder that changed. Every image is compared again when it is read."""


Item = TypeVar("Item")
"""What one record is made of: a latent, or a label to test."""
Record = TypeVar("Record", Explanation, Score, TaskScore)
Summary = TypeVar("Summary")


class Stage(ABC, Generic[Item, Record, Summary]):
    """Explaining or scoring in one run, with one model and one choice of latents."""

    shape: ClassVar[Shape]
    """The pictures of one question, by which the layout is chosen."""
    unit = "latents"
    """What its items are called while they are worked on."""
    domain = ""
    """The one whose images questions are made of; "" for all."""

    def __init__(self, run: Run, settings: ModelSettings, work: Work) -> None:
        self._run = run
        self._settings = settings
        self._work = work
        self._layout = layout_of(settings, self.shape)

    @property
    @abstractmethod
    def name(self) -> str:
        """What questions are filed under in the ledger, and settings in run.json."""

    @property
    def capped(self) -> tuple[str, ...]:
        """The names under which `--max-cost` counts: those of all stages of one command."""
        return (self.name,)

    @property
    @abstractmethod
    def file(self) -> Path:
        """The JSON Lines file that records go to."""

    @property
    def _results(self) -> Results:
        """What was said and measured so far."""
        return self._run.results

    @property
    def _source(self) -> EvidenceReader | OneDomain:
        """The evidence that questions are made of."""
        reader = self._run.evidence
        return reader.in_domain(self.domain) if self.domain else reader

    @property
    @abstractmethod
    def by(self) -> AnsweredBy:
        """Who answers; known before any model is loaded."""

    @cached_property
    def all_pending(self) -> list[Item]:
        """What was still to be done when this was first asked for."""
        return self._find_pending()

    @property
    def pending(self) -> list[Item]:
        """The same, at most `--limit` of it."""
        return self.all_pending[: self._work.limit]

    @abstractmethod
    def questions(self, items: Iterable[Item]) -> Iterator[Question]:
        """What a paid model would be asked about these items; nothing where images are too few."""

    @abstractmethod
    def summary(self, made: Sequence[Record]) -> Summary:
        """Of this run of the stage, which made these records, and of all before it."""

    def run(self, label: str = "") -> Summary:
        """Do what is pending, going on where an earlier call stopped; nothing is asked twice.

        `label` stands before the progress. Raises `UserError` while another process is at work, or
        where too many images are not as they were embedded.
        """
        made: list[Record] = []
        if self.pending:
            self._check_images(self.pending)
            ask = self._ask_clip if self._settings.is_local else self._ask_paid_model
            ask(label or self.name, made)
            report_bad_images(self._run.evidence, "they were left out")
        return self.summary(made)

    def split(self, n: int) -> tuple[Self, Self]:
        """Two stages: one does the first `n` of what is pending, one the rest."""
        first, rest = copy(self), copy(self)
        first.all_pending, rest.all_pending = self.pending[:n], self.pending[n:]
        return first, rest

    def estimate(self, items: Sequence[Item] | None = None) -> Estimate:
        """What `run` would ask for and what that would cost, or what these items would.

        Opens no socket, takes no lock.
        """
        self._require_paid()
        return self._estimate(self.name, self._askable() if items is None else items, self._asked)

    def estimate_nulls(self, items: Sequence[Item] | None = None) -> Estimate | None:
        """What of `estimate` is for labels that say nothing; None where it has no such part."""
        return None

    def _asked(self, items: Sequence[Item]) -> Iterator[Question]:
        """The questions that an estimate is of."""
        return self.questions(items)

    def _estimate(
        self,
        name: str,
        askable: Sequence[Item],
        questions: Callable[[Sequence[Item]], Iterator[Question]],
    ) -> Estimate:
        """The same for some items and questions, which are filed under `name`."""
        n_requests = [self._n_requests(item) for item in askable]
        step = max(1, len(askable) // N_SAMPLE)
        spread = askable[::step][:N_SAMPLE]  # evenly
        self._check_images(spread)
        sample = list(questions(spread))
        info = listed_model(self._settings)
        price = known_price(self._settings, info)
        tariff = Tariff(self._settings.model, price, info.context if info else None)
        dialect, most = self._known_dialect(), self._settings.max_tokens
        return estimate(
            name,
            self._settings.model,
            self._layout,
            (sum(n > 0 for n in n_requests), sum(n_requests), sum(map(self._n_least, askable))),
            sample,
            price,
            read_billed(self._run.ledger, self._settings.model, name),
            [tariff.worst(question, dialect.most(question, most)) for question in sample],
        )

    def first_requests(self, n: int) -> Iterator[Request]:
        """The first `n` requests of `run`. Opens no socket, takes no lock."""
        self._require_paid()
        self._check_images(self.pending[:n])
        config, dialect = client_config(self._settings), self._known_dialect()
        for question in itertools.islice(self.questions(self.pending), n):
            yield Request(config, question, dialect)

    @property
    def is_local(self) -> bool:
        """Whether CLIP answers, which costs nothing."""
        return self._settings.is_local

    def _check_images(self, items: Sequence[Item]) -> None:
        """Look at the images of up to `N_CHECKED` items before anything is paid."""
        spread = items[:: max(1, len(items) // N_CHECKED)]
        shown = itertools.chain.from_iterable(map(self._shown, spread))
        if self._settings.is_local:
            shown = itertools.chain(shown, background_examples(self._run.evidence, self.domain))
        with bar("look for the images", brief=True) as progress:
            check_images(self._run.evidence, shown, progress)

    def refusals(self) -> list[str]:
        """How requests are written otherwise since this model's server refused something."""
        refused = {} if self._settings.is_local else read_refusals(self._dialect_note())
        return [f"{INSTEAD[what]}, since the server said: {said}" for what, said in refused.items()]

    def _known_dialect(self) -> Dialect:
        return read_dialect(self._dialect_note())

    def _dialect_note(self) -> str | None:
        scope = dialect_scope(client_config(self._settings))
        return read_note(self._run.ledger, dialect_note(scope))

    @abstractmethod
    def _find_pending(self) -> list[Item]: ...

    @abstractmethod
    def _shown(self, item: Item) -> Iterable[Example]:
        """The images that are shown for an item."""

    @abstractmethod
    def _n_requests(self, item: Item) -> int: ...

    def _n_least(self, item: Item) -> int:
        """The same where as few are needed as can be."""
        return self._n_requests(item)

    @abstractmethod
    def _local_answerer(self) -> Any:
        """CLIP in the place of a vision model: an `Explainer` or a `Judge`."""

    @abstractmethod
    def _paid_answerer(self, model: ChatModel) -> Any: ...

    @abstractmethod
    def _worker(
        self, answerer: Any, source: EvidenceSource
    ) -> Callable[[Item], Awaitable[Record]]: ...

    def _askable(self) -> list[Item]:
        """The pending items that questions are counted over."""
        return self.pending

    def _require_paid(self) -> None:
        if self._settings.is_local:
            raise UserError("--model local sends nothing and costs nothing; name a vision model")

    def _ask_clip(self, label: str, made: list[Record]) -> None:
        with closing(self._run.hold()):
            self._look_again()
            answerer = self._local_answerer()
            with bar(label, unit=self.unit) as progress:

                def count(_record: Record) -> None:
                    progress(len(made), len(self.pending))

                self._append(self._local_worker(answerer), answerer, N_AT_WORK, made, count)

    def _local_worker(self, answerer: Any) -> Callable[[Item], Awaitable[Record]]:
        """The worker with CLIP, which looks at the images of `N_AT_WORK` items together before the
        first of these is worked on; no image is decoded that it knows."""
        from interp.local.clip_encoder import SeenOnce

        source = SeenOnce(self._source, answerer.encoder)
        worker, begun = self._worker(answerer, source), itertools.count()

        def work(item: Item) -> Awaitable[Record]:
            place = next(begun)
            if place % N_AT_WORK == 0:
                items = self.pending[place : place + N_AT_WORK]
                source.look_at(itertools.chain.from_iterable(map(self._shown, items)))
            return worker(item)

        return work

    def _ask_paid_model(self, label: str, made: list[Record]) -> None:
        with Ledger(self._run.ledger) as ledger:
            self._look_again()
            capped = dict.fromkeys((*self.capped, *self._settings.capped_with))
            model = paid_model(self._settings, ledger, capped)
            meter = Meter(n_total=len(self.pending), unit=self.unit)
            with live(label, meter):
                answerer = self._paid_answerer(model)
                self._append(
                    self._worker(answerer, PictureCache(self._source)),
                    answerer,
                    model.gate.room,
                    made,
                    partial(_count, meter),
                    (watch(model, meter), preflight(model)),
                )

    def _look_again(self) -> None:
        """Under the lock: what another process did since we looked is not done again."""
        if self._results.forget_outdated():
            del self.all_pending

    def _append(
        self,
        worker: Callable[[Item], Awaitable[Record]],
        answerer: Any,
        width: Width,
        made: list[Record],
        count: Callable[[Record], None],
        opened: Iterable[object] = (),
    ) -> None:
        self._run.remember(self.name, self._settings.recorded())

        def note(record: Record) -> None:
            made.append(record)
            self._results.add(record)
            count(record)

        append_run(
            self.file,
            self.pending,
            worker,
            concurrency=width,
            on_record=note,
            opened=(answerer, *opened),
        )


def write_first_requests(run: Run, stages: Iterable[Stage[Any, Any, Any]], n: int) -> list[Path]:
    """Write the first `n` requests of these stages, one after the other, as files."""
    each = (stage.first_requests(n) for stage in stages)
    first = itertools.islice(itertools.chain.from_iterable(each), n)
    return write_requests(run.path / FOLDER, first)


def _count(meter: Meter, record: Explanation | Score | TaskScore) -> None:
    refused = record.failure in ("refused", "moderated")
    meter.n_done += 1
    meter.n_ok += record.failure is None
    meter.n_refused += refused
    meter.n_failed += record.failure is not None and not refused
