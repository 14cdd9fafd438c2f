"""A label and held-out images -> how well the label predicts where the latent is active."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from typing import Any, NamedTuple

from interp.llm.scheduler import gather
from interp.llm.types import Question
from interp.pictures.cache import Images, read_images
from interp.pictures.grid import FIRST, Tile
from interp.records.types import (
    ALL_IMAGES,
    DECIDED,
    FAILED,
    LEFT_OPEN,
    MISSING,
    NO_MORE,
    TOO_FEW,
    UNREADABLE,
    Evidence,
    Example,
    Explanation,
    Score,
    Verdict,
)
from interp.records.wording import (
    BY_PERSON,
    GROUPED,
    PERSON,
    SPEAKS_TO_JUDGE,
    UNCOUNTED,
    WEAK_NEGATIVES,
    addresses_judge,
)
from interp.score.figures import Figures, figures_of, sure_side, will_stay_open
from interp.score.judge import Judge, Judgement
from interp.score.kinds.detect import VlmJudge
from interp.score.lazy import lazy_notes
from interp.score.metrics import Z95
from interp.score.nulls.foils import FoilJudge
from interp.score.nulls.suite import Nulls
from interp.score.sampling import (
    Look,
    Sample,
    SampleConfig,
    check_held_out,
    draw_sample,
    looks_of,
    n_left_out,
)
from interp.score.statistics.sequence import UNLIKELY, chance_of_at_most, critical_values, level_of
from interp.score.statistics.weights import weigh

MOST_MISSING = 0.1
"""Share of the images without an answer above which there is no score."""


async def score_latent(
    evidence: Evidence,
    explanation: Explanation,
    judge: Judge,
    images: Images,
    config: SampleConfig | None = None,
    control: str = "",
    nulls: Nulls | None = None,
) -> Score:
    """Test one label on held-out images of a latent, which `control` says is not its own.

    `nulls` compares a score with those of labels that say nothing. A failure is a state of the
    result: `TOO_FEW`, `UNREADABLE`, `MISSING`, or a kind of `ReplyError` that waiting can cure. Up
    to `MOST_MISSING` missing answers count as chance. Raises `LeakError`, and `UserError` of the
    judge.

    With steps in `config` the images are judged look by look, until it is sure on which side of
    chance the label is, or next to sure that all images would not tell; what is judged so far
    counts as all that there is.
    """
    test = _test(evidence, explanation, judge, config, control)
    if not test.looks:
        n_positive, n_negative = map(len, test.sample)
        return _score(test, n_positive, n_negative, failure=TOO_FEW)
    judged: list[_Judged] = []
    values = critical_values(tuple(look.share for look in test.looks))
    for look, z in zip(test.looks, values, strict=True):
        calls = enumerate(look.grids, len(judged))
        judged += await gather(_judge(test, call, grid, images) for call, grid in calls)
        failure = _failure(test, judged)
        if failure is not None or _is_over(test, judged, z, look.share, values[-1]):
            break
    verdicts = _weighed(evidence, test, judged)
    judgements = [one.judgement for one in judged]
    n_positive = sum(verdict.truth for verdict in verdicts)
    n_negative = len(verdicts) - n_positive
    score = _score(test, n_positive, n_negative, verdicts, judgements, failure, z)
    if failure is not None:
        return score
    score = replace(score, rho_by_look=_rhos(evidence, test, judged))
    if nulls is None:
        return score
    return replace(score, nulls=nulls.test(evidence.stats, explanation, verdicts, z))


def _failure(test: _Test, judged: Sequence[_Judged]) -> str | None:
    """Why there is no score, whatever the answers to what is not judged yet, or next to surely."""
    # No figures while an answer is missing that waiting would bring: the next run asks for it.
    transient = next((one.judgement.failure for one in judged if one.judgement.transient), None)
    verdicts = _verdicts(judged)
    n_read = Counter(truth for one in judged for truth in one.read)
    most = MOST_MISSING * test.n_images
    if transient is not None:
        return transient
    is_all = len(verdicts) == test.n_images
    too_few = is_all and min(n_read[True], n_read[False]) < test.n_least
    if too_few or len(verdicts) - n_read.total() > most:
        return UNREADABLE
    n_missing = _n_missing(verdicts)
    # Images that cannot be read tell nothing of the answers to come.
    unanswered = n_missing - (len(verdicts) - n_read.total())
    ahead = chance_of_at_most(most, unanswered, n_read.total(), test.n_images)
    return MISSING if n_missing > most or ahead < UNLIKELY else None


def _is_over(test: _Test, judged: Sequence[_Judged], z: float, share: float, z_end: float) -> bool:
    """Whether what is judged makes a score, and one that leaves no doubt, or will hardly do so."""
    verdicts = _verdicts(judged)
    n_read = Counter(truth for one in judged for truth in one.read)
    n_missing = _n_missing(verdicts)
    enough = min(n_read[True], n_read[False]) >= test.n_least
    enough &= n_missing <= MOST_MISSING * len(verdicts)
    if not enough or share == 1:
        return False
    figures = figures_of(verdicts, z)
    return bool(sure_side(figures)) or will_stay_open(figures, z, share, z_end)


def _n_missing(verdicts: Sequence[Verdict]) -> int:
    return sum(verdict.score is None for verdict in verdicts)


def _verdicts(judged: Sequence[_Judged]) -> list[Verdict]:
    return [verdict for one in judged for verdict in one.verdicts]


def _weighed(evidence: Evidence, test: _Test, judged: Sequence[_Judged]) -> list[Verdict]:
    """The verdicts, and how many held-out images each stands for, where that is known."""
    verdicts = _verdicts(judged)
    shown = {verdict.image_id for verdict in verdicts}
    images = (*test.sample.positives, *test.sample.negatives)
    judged_images = [example for example in images if example.image_id in shown]
    weights = weigh(evidence, judged_images) if test.config.side == "score" else {}
    return [replace(v, weight=weights.get(v.image_id, math.nan)) for v in verdicts]


def _rhos(evidence: Evidence, test: _Test, judged: Sequence[_Judged]) -> tuple[float, ...]:
    """`rho` after each look that was taken, of an adaptive test."""
    ends = accumulate(len(look.grids) for look in test.looks) if test.config.steps else ()
    taken = (judged[:end] for end in ends if end <= len(judged))
    return tuple(figures_of(_weighed(evidence, test, some)).rho for some in taken)


def score_questions(
    evidence: Evidence,
    explanation: Explanation,
    judge: VlmJudge | FoilJudge,
    images: Images,
    config: SampleConfig | None = None,
    control: str = "",
) -> Iterator[Question]:
    """What `score_latent` asks with the same arguments, or asks at most, without asking."""
    test = _test(evidence, explanation, judge, config, control)
    for grid in (grid for look in test.looks for grid in look.grids):
        pictures = partial(_read_lettered, grid, images)
        found = judge.question(test.label, explanation.description, pictures, test.about)
        if found is not None:
            yield found.asked


@dataclass(frozen=True)
class _Test:
    """What is tested, who tests it, and on which images."""

    latent: int
    explanation: Explanation
    judge: Judge
    control: str
    sample: Sample
    looks: tuple[Look, ...]
    """The sample as it is shown; empty where there are too few images."""
    config: SampleConfig
    counted: bool
    """Whether `collect` counted the held-out images."""
    n_left_out: int
    """Images that it has fewer since near-duplicates count once."""

    @property
    def n_least(self) -> int:
        """Positives, and negatives, that a score needs."""
        return self.config.n_least

    @property
    def n_images(self) -> int:
        return len(self.sample.positives) + len(self.sample.negatives)

    @property
    def about(self) -> str:
        """What a paid answer is filed under."""
        return f"{'score-control' if self.control else 'score'} {self.latent}"

    @property
    def label(self) -> str:
        assert self.explanation.label is not None
        return self.explanation.label


def _test(
    evidence: Evidence,
    explanation: Explanation,
    judge: Judge,
    config: SampleConfig | None,
    control: str,
) -> _Test:
    if explanation.label is None:
        raise ValueError(f"latent {explanation.latent} has no label to score")
    config = config or SampleConfig()
    latent = evidence.stats.latent
    sample = draw_sample(evidence, config)
    held_out = (*sample.positives, *sample.negatives)
    used = [*explanation.codes.values()]
    if config.side == "score":
        used += explanation.chosen_on
    check_held_out(held_out, used, evidence.examples, config.side)
    return _Test(
        latent,
        explanation,
        judge,
        control,
        sample,
        looks_of(sample, config, latent),
        config,
        bool(evidence.stats.held_out),
        n_left_out(evidence, config, sample),
    )


class _Judged(NamedTuple):
    """What came of one question."""

    verdicts: list[Verdict]
    judgement: Judgement

    @property
    def read(self) -> list[bool]:
        """The truth of each image that could be read and was shown."""
        lettered = zip(FIRST, self.verdicts, strict=False)
        return [verdict.truth for letter, verdict in lettered if letter in self.judgement.scores]


async def _judge(test: _Test, call: int, grid: Sequence[Example], images: Images) -> _Judged:
    pictures = partial(_read_lettered, grid, images)
    description = test.explanation.description
    judgement = await test.judge.judge(test.label, description, pictures, test.about)
    scores = [judgement.scores.get(letter) for letter in FIRST[: len(grid)]]
    pairs = zip(grid, scores, strict=True)
    return _Judged([_verdict(example, score, call) for example, score in pairs], judgement)


def _read_lettered(grid: Sequence[Example], images: Images) -> list[Tile]:
    letters = dict(zip(grid, FIRST, strict=False))
    read = read_images(images, grid)
    return [Tile(letters[one], image, image_id=one.image_id) for one, image in read.items()]


def _verdict(example: Example, score: float | None, call: int) -> Verdict:
    return Verdict(
        image_id=example.image_id,
        row=example.row,
        truth=example.is_positive,
        act=example.act,
        stratum=example.stratum,
        kind=example.kind,
        domain=example.domain,
        score=score,
        call=call,
    )


def _score(
    test: _Test,
    n_positive: int,
    n_negative: int,
    verdicts: Sequence[Verdict] = (),
    judgements: Sequence[Judgement] = (),
    failure: str | None = None,
    z: float = Z95,
) -> Score:
    paid = [tuple(one.scores.values()) for one in judgements if one.calls]
    notes = {
        SPEAKS_TO_JUDGE: addresses_judge(f"{test.label}. {test.explanation.description}"),
        WEAK_NEGATIVES: any(verdict.kind == "weak" for verdict in verdicts),
        GROUPED: test.n_left_out > 0,
        UNCOUNTED: bool(test.looks) and not test.counted,
        BY_PERSON: test.explanation.model == PERSON,
        **dict.fromkeys(lazy_notes(paid), True),
    }
    figures = Figures() if failure else figures_of(verdicts, z)
    return Score(
        latent=test.latent,
        label=test.label,
        model=test.judge.name,
        explainer=test.explanation.model,
        prompt=test.judge.prompt,
        verdicts=tuple(verdicts),
        **figures._asdict(),
        n_positive=n_positive,
        n_negative=n_negative,
        n_missing=_n_missing(verdicts),
        failure=failure,
        calls=tuple(key for judgement in judgements for key in judgement.calls),
        usd=sum(judgement.usd for judgement in judgements),
        control=test.control,
        reason=next((j.reason for j in judgements if j.reason), ""),
        note="; ".join(note for note, holds in notes.items() if holds),
        server=getattr(test.judge, "server", ""),
        **_rule(test, len(verdicts), figures, failure),
        level=level_of(z),
    )


def _rule(test: _Test, n_judged: int, figures: Figures, failure: str | None) -> dict[str, Any]:
    """Why an adaptive test ended, and how often it was looked at; nothing of a fixed one."""
    config = test.config
    if not config.steps:
        return {}
    n_wanted = config.n_positive + config.n_negative
    ended = ALL_IMAGES if n_judged == n_wanted else NO_MORE
    if failure is not None and failure != TOO_FEW:
        ended = FAILED
    elif sure_side(figures):
        ended = DECIDED
    elif failure is None and n_judged < test.n_images:
        ended = LEFT_OPEN
    taken = [round(look.share * test.n_images) <= n_judged for look in test.looks]
    return {"stopped": ended, "looks": sum(taken), "most_looks": len(taken)}
