"""A label and unseen images -> how well the label predicts where the latent is active."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeVar

from PIL import Image

from interp.llm.scheduler import GRACE
from interp.llm.types import Question
from interp.pictures.cache import Images, read_images
from interp.pictures.grid import FIRST
from interp.records.types import Evidence, Example, Explanation, Score, Verdict
from interp.score.judge import Judge, Judgement, VlmJudge
from interp.score.metrics import auroc, auroc_interval, balanced_accuracy, spearman
from interp.score.sampling import Sample, SampleConfig, check_held_out, deal, held_out, is_enough

CHANCE = 50.0
"""What a missing answer counts as in the AUROC: it tells nothing either way."""
TOO_FEW = "too_few_images"

Result = TypeVar("Result")


async def score_latent(
    evidence: Evidence,
    explanation: Explanation,
    judge: Judge,
    images: Images,
    config: SampleConfig | None = None,
    control: str = "",
) -> Score:
    """Test one label on held-out images of a latent, which `control` says is not its own.

    A failure is a state of the result: "too_few_images", or a kind of `ReplyError` that waiting can
    cure. Other missing answers count as chance. Raises `LeakError`, and `UserError` of the judge.
    """
    config = config or SampleConfig()
    sample = _sample(evidence, explanation, config)
    case = _Case(evidence.stats.latent, explanation, judge, control)
    if not is_enough(sample, config):
        counts = (len(sample.positives), len(sample.negatives))
        return _score(case, counts, failure=TOO_FEW)
    grids = deal(sample, config.n_tiles, case.latent)
    judged = await _together(_judged(case, grid, images) for grid in grids)
    verdicts = [verdict for one in judged for verdict in one.verdicts]
    return _scored(case, verdicts, [one.judgement for one in judged])


def score_questions(
    evidence: Evidence,
    explanation: Explanation,
    judge: VlmJudge,
    images: Images,
    config: SampleConfig | None = None,
    control: str = "",
) -> Iterator[Question]:
    """What `score_latent` asks with the same arguments, without asking."""
    config = config or SampleConfig()
    sample = _sample(evidence, explanation, config)
    case = _Case(evidence.stats.latent, explanation, judge, control)
    if not is_enough(sample, config):
        return
    for grid in deal(sample, config.n_tiles, case.latent):
        pictures = partial(_pictures, grid, images)
        found = judge.question(case.label, explanation.description, pictures, case.about)
        if found is not None:
            yield found.asked


def _sample(evidence: Evidence, explanation: Explanation, config: SampleConfig) -> Sample:
    if explanation.label is None:
        raise ValueError(f"latent {explanation.latent} has no label to score")
    sample = held_out(evidence, config)
    check_held_out((*sample.positives, *sample.negatives), explanation.codes.values())
    return sample


@dataclass(frozen=True)
class _Case:
    """What is tested, and who tests it."""

    latent: int
    explanation: Explanation
    judge: Judge
    control: str

    @property
    def about(self) -> str:
        """What a paid answer is filed under."""
        return f"{'score-control' if self.control else 'score'} {self.latent}"

    @property
    def label(self) -> str:
        assert self.explanation.label is not None
        return self.explanation.label


class _Judged(NamedTuple):
    """What came of one question."""

    verdicts: list[Verdict]
    judgement: Judgement


async def _judged(case: _Case, grid: Sequence[Example], images: Images) -> _Judged:
    letters = _letters(grid)
    description = case.explanation.description
    pictures = partial(_pictures, grid, images)
    judgement = await case.judge.judge(case.label, description, pictures, case.about)
    return _Judged([_verdict(one, judgement.scores.get(letters[one])) for one in grid], judgement)


def _letters(grid: Sequence[Example]) -> dict[Example, str]:
    return dict(zip(grid, FIRST, strict=False))


def _pictures(grid: Sequence[Example], images: Images) -> dict[str, Image.Image]:
    letters = _letters(grid)
    return {letters[one]: image for one, image in read_images(images, grid).items()}


async def _together(work: Iterable[Coroutine[Any, Any, Result]]) -> list[Result]:
    """Results in order. The first error ends the rest, and is raised.

    The rest first gets half of the time that a stopped run grants: its answers may be paid already.
    """
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        done, others = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        if others:
            await asyncio.wait(others, timeout=GRACE / 2)
        for task in done:
            task.result()
        return [task.result() for task in tasks]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _verdict(example: Example, score: float | None) -> Verdict:
    return Verdict(
        image_id=example.image_id,
        row=example.row,
        truth=example.act > 0,
        act=example.act,
        stratum=example.stratum,
        kind=example.kind,
        domain=example.domain,
        score=score,
    )


def _scored(case: _Case, verdicts: Sequence[Verdict], judgements: Sequence[Judgement]) -> Score:
    """No figures while an answer is missing that waiting would bring: the next run asks for it."""
    waiting = next((j.failure for j in judgements if j.transient), None)
    n_positive = sum(verdict.truth for verdict in verdicts)
    return _score(
        case,
        (n_positive, len(verdicts) - n_positive),
        verdicts,
        judgements,
        None if waiting else _figures(verdicts, seed=case.latent),
        waiting,
    )


class _Figures(NamedTuple):
    """The numbers of a `Score`; NaN without one."""

    auroc: float = math.nan
    auroc_low: float = math.nan
    auroc_high: float = math.nan
    auroc_easy: float = math.nan
    auroc_hard: float = math.nan
    balanced_accuracy: float = math.nan
    spearman: float = math.nan


def _figures(verdicts: Sequence[Verdict], seed: int) -> _Figures:
    positives = [v for v in verdicts if v.truth]
    negatives = [v for v in verdicts if not v.truth]
    answered = [(v.score, v.act) for v in positives if v.score is not None]
    pos, neg = _scores(positives), _scores(negatives)
    interval = auroc_interval(pos, neg, seed)
    return _Figures(
        auroc=auroc(pos, neg),
        auroc_low=interval.low,
        auroc_high=interval.high,
        auroc_easy=auroc(pos, _scores([v for v in negatives if v.kind == "silent"])),
        auroc_hard=auroc(pos, _scores([v for v in negatives if v.kind == "hard"])),
        balanced_accuracy=balanced_accuracy(
            _scores(positives, missing=math.nan), _scores(negatives, missing=math.nan)
        ),
        spearman=spearman([score for score, _ in answered], [act for _, act in answered]),
    )


def _scores(verdicts: Sequence[Verdict], missing: float = CHANCE) -> list[float]:
    return [missing if v.score is None else v.score for v in verdicts]


def _score(
    case: _Case,
    counts: tuple[int, int],
    verdicts: Sequence[Verdict] = (),
    judgements: Sequence[Judgement] = (),
    figures: _Figures | None = None,
    failure: str | None = None,
) -> Score:
    """`counts`: positives and negatives."""
    return Score(
        latent=case.latent,
        label=case.label,
        model=case.judge.name,
        explainer=case.explanation.model,
        prompt=case.judge.prompt,
        verdicts=tuple(verdicts),
        **(figures or _Figures())._asdict(),
        n_positive=counts[0],
        n_negative=counts[1],
        n_missing=sum(verdict.score is None for verdict in verdicts),
        failure=failure,
        calls=tuple(key for judgement in judgements for key in judgement.calls),
        usd=sum(judgement.usd for judgement in judgements),
        control=case.control,
    )
