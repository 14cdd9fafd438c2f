"""A label and unseen images -> how well the label predicts where the latent is active."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from PIL import Image

from interp.grid import FIRST
from interp.judge import Judge, Judgement
from interp.pictures import Images, read_images
from interp.records import Evidence, Example, Explanation, Score, Verdict
from interp.sampling import SampleConfig, check_held_out, deal, held_out, is_enough
from interp.stats import auroc, auroc_interval, balanced_accuracy, spearman

CHANCE = 50.0
"""What a missing answer counts as in the AUROC: it tells nothing either way."""
TOO_FEW = "too_few_images"


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
    if explanation.label is None:
        raise ValueError(f"latent {explanation.latent} has no label to score")
    sample = held_out(evidence, config)
    check_held_out((*sample.positives, *sample.negatives), explanation.codes.values())
    case = _Case(evidence.stats.latent, explanation, judge, control)
    if not is_enough(sample, config):
        counts = (len(sample.positives), len(sample.negatives))
        return _score(case, counts, failure=TOO_FEW)
    verdicts: list[Verdict] = []
    judgements: list[Judgement] = []
    # One grid after the other: then as many questions are in flight as latents.
    for grid in deal(sample, config.n_tiles, case.latent):
        shown = await asyncio.to_thread(read_images, images, grid)
        codes = dict(zip(shown, FIRST, strict=False))
        judgement = await _judged(case, list(shown.values()), list(codes.values()))
        verdicts += [_verdict(e, judgement.scores.get(codes.get(e, ""))) for e in grid]
        judgements.append(judgement)
    return _scored(case, verdicts, judgements)


@dataclass(frozen=True)
class _Case:
    """What is tested, and who tests it."""

    latent: int
    explanation: Explanation
    judge: Judge
    control: str

    @property
    def label(self) -> str:
        assert self.explanation.label is not None
        return self.explanation.label


async def _judged(case: _Case, shown: Sequence[Image.Image], codes: Sequence[str]) -> Judgement:
    if not shown:
        return Judgement({})
    return await case.judge.judge(case.label, case.explanation.description, shown, codes)


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
