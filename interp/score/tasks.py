"""A judging task and a latent -> its questions, and what the answers to them come to."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from interp.llm.failures import Reason, commonest
from interp.llm.scheduler import gather
from interp.llm.types import Question, VisionModel, is_transient
from interp.pictures.cache import Images, read_images
from interp.pictures.grid import FIRST, SECOND, Tile
from interp.pictures.painter import Layout
from interp.records.score_line import digest_of
from interp.records.tasks import CHECKS, SIMULATE, Measured, TaskScore, Trial
from interp.records.types import TOO_FEW, UNREADABLE, AnsweredBy, Explanation
from interp.score.judge import Judgement, Pictures
from interp.score.kinds.asking import GridAsker, GridQuestion
from interp.score.kinds.task import Case, Drawn, Posed, TaskKind

MOST_MISSING = 0.1
"""With a larger share of the answers missing there is no figure, but a failure."""


class TaskJudge(Protocol):
    """Answers the questions of judging tasks."""

    @property
    def name(self) -> str: ...
    @property
    def prompt(self) -> str: ...
    @property
    def server(self) -> str: ...

    async def put(self, posed: Posed, pictures: Pictures, about: str = "") -> Judgement:
        """A number or None for every letter. Raises `UserError` when nothing can be answered."""
        ...


class VlmTaskJudge(GridAsker):
    """A vision model that is asked the questions of one task."""

    def __init__(
        self,
        model: VisionModel,
        kind: TaskKind,
        layout: Layout = "grid",
        *,
        again: bool = False,
        server: str = "",
    ) -> None:
        """See `GridAsker`."""
        super().__init__(
            model,
            kind.template,
            layout,
            most=kind.most,
            outlined=kind.outlined,
            again=again,
            server=server,
        )

    async def put(self, posed: Posed, pictures: Pictures, about: str = "") -> Judgement:
        """See `TaskJudge`."""
        return await self.answer(lambda: self.question(posed, pictures, about))

    def question(self, posed: Posed, pictures: Pictures, about: str = "") -> GridQuestion | None:
        """What `put` asks first; None where its pictures cannot be read."""
        values = posed.kind.tells(posed.test, posed.drawn)
        return self.pose(pictures(), values, about, SECOND[: len(posed.drawn.labels)])


async def run_task(kind: TaskKind, case: Case, judge: TaskJudge, images: Images) -> TaskScore:
    """Ask one task of one latent.

    A failure is a state of the result: `TOO_FEW`, `UNREADABLE`, a kind of `ReplyError` that waiting
    can cure, or the kind of which more than `MOST_MISSING` of the answers are missing. Raises
    `LeakError`, and `UserError` of the judge.
    """
    drawn = kind.draw(case)
    test = case.test if kind.needs_label else None
    about = _about(kind, case)
    asked = [
        judge.put(Posed(kind, test, one), partial(_tiles, kind, case, one, images), about)
        for one in drawn
    ]
    judged = await gather(asked) if asked else []
    trials = [_trial(*pair) for pair in zip(drawn, judged, strict=True)]
    n = sum(len(trial.answer) for trial in trials)
    n_missing = sum(answer is None for trial in trials for answer in trial.answer)
    failure = _failure(kind, judged, n, n_missing)
    measured = kind.measure(trials, case.latent) if failure is None else _NOTHING
    return TaskScore(
        latent=case.latent,
        kind=kind.name,
        label=(test.label or "") if test else "",
        explainer=test.model if test else "",
        model=judge.name,
        prompt=judge.prompt,
        server=judge.server,
        images=_images(drawn),
        trials=tuple(trials),
        **measured._asdict(),
        n_missing=n_missing,
        failure=failure,
        calls=tuple(key for one in judged for key in one.calls),
        usd=sum(one.usd for one in judged),
        reason=next((one.reason for one in judged if one.reason), ""),
    )


def task_questions(
    kind: TaskKind, case: Case, judge: VlmTaskJudge, images: Images
) -> Iterator[Question]:
    """What `run_task` asks with the same arguments, without asking."""
    for one in kind.draw(case):
        pictures = partial(_tiles, kind, case, one, images)
        found = judge.question(Posed(kind, case.test, one), pictures, _about(kind, case))
        if found is not None:
            yield found.asked


def pending_tasks(
    known: Iterable[TaskScore],
    kind: TaskKind,
    tests: Mapping[int, Explanation | None],
    case_of: Callable[[int], Case],
    by: AnsweredBy,
    *,
    retry_failed: bool = False,
) -> list[int]:
    """The latents of `tests` that are still to be judged; of a check only those that it asks about.

    What is known for the same label, judge, prompt and images is not asked again unless waiting
    cures its failure; with `retry_failed` also where answers are missing.
    """
    done = {
        (line.latent, line.label, line.explainer, line.images)
        for line in known
        if line.kind == kind.name and line.by == by and not _is_pending(line, retry_failed)
    }
    seen = {latent for latent, *_ in done}
    pending = []
    for latent, test in sorted(tests.items()):
        if latent not in seen and kind.name not in CHECKS:
            pending.append(latent)
            continue
        drawn = kind.draw(case_of(latent))
        label, explainer = (test.label or "", test.model) if test else ("", "")
        is_new = (latent, label, explainer, _images(drawn)) not in done
        if is_new and (drawn or kind.name not in CHECKS):
            pending.append(latent)
    return pending


@dataclass(frozen=True)
class TaskSummary:
    """One judge's results in one task over a run: means over the latents that have a figure."""

    kind: str
    scorer: str
    n_scored: int
    n_failed: int
    failures: dict[str, int]
    n_answers: int
    n_missing: int
    mean: float
    low: float
    high: float
    """95% interval of the mean, over latents."""
    chance: float
    more: dict[str, float]
    """Means of the further figures."""
    usd: float
    reasons: tuple[Reason, ...] = ()


def summarise_tasks(lines: Iterable[TaskScore], kind: str, by: AnsweredBy) -> TaskSummary:
    """The last result of each latent in one task by one judge."""
    last = {line.latent: line for line in lines if line.kind == kind and line.by == by}
    scored = [line for line in last.values() if line.failure is None]
    asked = [line for line in last.values() if line.failure != TOO_FEW]
    values = [line.value for line in scored if not math.isnan(line.value)]
    mean, half = _mean(values), _half_width(values)
    lost = [line for line in asked if line.failure or line.n_missing]
    names = sorted({name for line in scored for name in line.more})
    return TaskSummary(
        kind=kind,
        scorer=by.model,
        n_scored=len(scored),
        n_failed=len(last) - len(scored),
        failures=dict(Counter(line.failure for line in last.values() if line.failure)),
        n_answers=sum(len(trial.answer) for line in asked for trial in line.trials),
        n_missing=sum(line.n_missing for line in asked),
        mean=mean,
        low=max(mean - half, -1.0 if kind == SIMULATE else 0.0),
        high=min(mean + half, 1.0),
        chance=_mean([line.chance for line in scored]),
        more={name: _mean([line.more.get(name, math.nan) for line in scored]) for name in names},
        usd=sum(line.usd for line in last.values()),
        reasons=tuple(commonest((line.failure or "missing answers", line.reason) for line in lost)),
    )


_NOTHING = Measured(math.nan, math.nan, math.nan, math.nan, 0, {})


def _about(kind: TaskKind, case: Case) -> str:
    return f"score-{kind.name} {case.latent}"


def _images(drawn: Sequence[Drawn]) -> str:
    return digest_of({example.image_id for one in drawn for example in one.examples})


def _tiles(kind: TaskKind, case: Case, drawn: Drawn, images: Images) -> list[Tile]:
    """The pictures with their letters, in order; none where one is missing that is needed."""
    ours = kind.own_pictures
    read = read_images(
        lambda e: ours[e.image_id]() if e.image_id in ours else images(e), drawn.examples
    )
    if kind.whole and len(read) < len(drawn.examples):
        return []
    truth = [0.0] * len(drawn.examples) if drawn.labels else drawn.truth
    return [
        kind.mark(Tile(letter, read[one], case.heat_of(one), one.image_id), right)
        for letter, one, right in zip(FIRST, drawn.examples, truth, strict=False)
        if one in read
    ]


def _trial(drawn: Drawn, judged: Judgement) -> Trial:
    images = tuple(example.image_id for example in drawn.examples)
    letters = SECOND if drawn.labels else FIRST
    answer = tuple(judged.scores.get(letter) for letter in letters[: len(drawn.truth)])
    if drawn.labels:
        return Trial(drawn.labels, drawn.truth, answer, images)
    return Trial(images, drawn.truth, answer)


def _failure(kind: TaskKind, judged: Sequence[Judgement], n: int, n_missing: int) -> str | None:
    if not judged:
        return TOO_FEW
    waits = next((one.failure for one in judged if one.transient), None)
    if waits is not None:
        return waits
    if n_missing == n or (kind.name not in CHECKS and n_missing > MOST_MISSING * n):
        return next((one.failure for one in judged if one.failure), UNREADABLE)
    return None


def _is_pending(line: TaskScore, retry_failed: bool) -> bool:
    waits = line.failure == UNREADABLE or is_transient(line.failure or "")
    return waits or (retry_failed and line.n_missing > 0)


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan


def _half_width(values: Sequence[float]) -> float:
    """Of the 95% interval of the mean; NaN below 2 values."""
    if len(values) < 2:
        return math.nan
    mean = _mean(values)
    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return 1.96 * math.sqrt(variance / len(values))
