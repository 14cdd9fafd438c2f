"""Judges that answer by a rule, and scores of made-up latents by them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from interp.llm.types import Question, Reply, ReplyError, Usage
from interp.records.codec import from_json
from interp.records.types import Evidence, Example, Explanation, Score
from interp.score.judge import Judge, Judgement, Pictures
from interp.score.latent import score_latent
from interp.score.run import ScoreSummary
from interp.score.sampling import SampleConfig
from sae.core.files import read_jsonl
from tests.support.interp.asking import score_run
from tests.support.interp.latents import Source, explained, make_evidence, paint


class Scripted:
    """A judge that scores each picture by a function, and remembers what it was asked."""

    name = "scripted"
    prompt = "p1"

    def __init__(self, rule: Callable[[Image.Image], float | None], failure: str = "") -> None:
        self.rule, self.failure = rule, failure
        self.asked: list[tuple[str, str, tuple[str, ...]]] = []
        self.filed: list[str] = []

    async def judge(
        self, label: str, description: str, pictures: Pictures, about: str = ""
    ) -> Judgement:
        shown = pictures()
        self.asked.append((label, description, tuple(tile.letter for tile in shown)))
        self.filed.append(about)
        scores = {tile.letter: self.rule(tile.image) for tile in shown}
        missing = None in scores.values()
        return Judgement(scores, self.failure if missing else None, ("k",), 0.25)


def redness(image: Image.Image) -> float:
    """More for a redder, so more active, positive; 0 for blue."""
    red, green, blue = pixel(image)
    return 100 * (red - (green + blue) / 2) / 255 if red > blue else 0.0


def pixel(image: Image.Image) -> tuple[int, int, int]:
    found = image.getpixel((16, 16))
    assert isinstance(found, tuple)
    return int(found[0]), int(found[1]), int(found[2])


def score(
    judge: Judge,
    evidence: Evidence | None = None,
    images: Callable[[Example], Image.Image] = paint,
    label: str = "red",
    config: SampleConfig | None = None,
) -> Score:
    evidence = evidence or make_evidence()
    explanation = explained(evidence.stats.latent, label)
    return asyncio.run(score_latent(evidence, explanation, judge, images, config))


# ------------------------------------------------------------------------------ a vision model


class FakeModel:
    """Answers a question from a queue of texts or errors."""

    name = "fake/vision"

    def __init__(self, *answers: str | ReplyError) -> None:
        self.answers = list(answers)
        self.questions: list[Question] = []

    async def ask(self, question: Question) -> Reply:
        self.questions.append(question)
        answer = self.answers.pop(0)
        if isinstance(answer, ReplyError):
            raise answer
        return Reply(answer, self.name, None, Usage(1, 1, 0.5), "stop", f"k{len(self.questions)}")


# ------------------------------------------------------------------------------ a run


LATENTS = (7, 9, 11)
EVIDENCE = [make_evidence(latent) for latent in LATENTS]


def run(
    path: Path,
    judge: Judge,
    control: str = "",
    labels: str = "red green blue",
    concurrency: int = 1,
) -> ScoreSummary:
    pairs = zip(LATENTS, labels.split(), strict=True)
    explanations = [explained(latent, label) for latent, label in pairs]
    unnamed = explained(13, None, "refused")
    return score_run(
        path,
        Source(*EVIDENCE),
        judge,
        [*explanations[::-1], unnamed],
        control=control,
        concurrency=concurrency,
    )


def scores_in(path: Path) -> list[Score]:
    return [from_json(Score, row) for row in read_jsonl(path)]


def named(labels: str = "red green blue") -> list[Explanation]:
    return [explained(*pair) for pair in zip(LATENTS, labels.split(), strict=True)]
