"""Labels that a free judge has scored -> of how many other latents each fits the images less."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from interp.pictures.cache import read_images
from interp.pipeline.score import ScoreStage
from interp.records.codec import to_json
from interp.records.score_line import ScoreLine, digest_of
from interp.records.tasks import SPECIFICITY, TaskScore, share_below
from interp.records.types import Example, Score
from interp.run.run import Run
from interp.score.sampling import draw_sample
from sae.core.files import append_jsonl, repair_jsonl
from sae.core.progress import bar

if TYPE_CHECKING:
    from interp.local.models import LocalJudge

MOST_LATENTS = 500
"""Others on whose images a label is graded, an even choice of all that were scored."""
N_AT_ONCE = 64
"""Labels that are graded together."""


def measure_specificity(run: Run, stage: ScoreStage) -> list[TaskScore]:
    """A line of tasks.jsonl for each label that the judge of `stage` has scored; what is known for
    the same labels and images stays.

    Each label is graded on the active images of other latents' tests, which a judge that has just
    scored has seen.
    """
    lines = _scored(run, stage)
    step = max(1.0, len(lines) / MOST_LATENTS)
    others = [lines[int(at * step)] for at in range(min(len(lines), MOST_LATENTS))]
    if len(others) < 2:
        return []
    latents = [line.score.latent for line in others]
    shown = [draw_sample(run.evidence.of(one), stage.sample).positives for one in latents]
    images = digest_of(f"{e.latent} {e.image_id}" for some in shown for e in some)
    known = {
        _key(task): task
        for task in run.results.tasks
        if (task.kind, task.by, task.images) == (SPECIFICITY, stage.by, images)
    }
    if all(_key(line.score) in known for line in lines):
        return [known[_key(line.score)] for line in lines]
    looked = _look(run, stage.local_judge(), latents, shown)
    made = _measure(run, stage, lines, looked, images)
    fresh = [task for task in made if _key(task) not in known]
    with closing(run.hold()):
        repair_jsonl(run.tasks)
        append_jsonl(run.tasks, map(to_json, fresh))
        for task in fresh:
            run.results.add(task)
    return made


class _Looked(NamedTuple):
    """A judge, and other latents' images that it has seen, one after the other."""

    judge: LocalJudge
    latents: NDArray[np.int64]
    image_ids: list[str]
    starts: list[int]
    """Where each latent's images begin."""


def _scored(run: Run, stage: ScoreStage) -> list[ScoreLine]:
    """Of the labels that the latents have now, by latent."""
    lines = (run.results.score_line(latent) for latent in run.results.newest_explanations())
    return [
        line
        for line in lines
        if line is not None
        and line.score.failure is None
        and (line.score.model, line.score.prompt, line.score.server) == stage.by
    ]


def _key(score: Score | TaskScore) -> tuple[int, str, str]:
    return score.latent, score.label, score.explainer


def _look(
    run: Run, judge: LocalJudge, latents: Sequence[int], shown: Sequence[Sequence[Example]]
) -> _Looked:
    from interp.local.clip_encoder import SeenOnce

    source = SeenOnce(run.evidence, judge.encoder)
    kept: list[int] = []
    image_ids: list[str] = []
    starts: list[int] = []
    with bar("specificity", unit="latents") as progress:
        for place, (latent, examples) in enumerate(zip(latents, shown, strict=True), 1):
            read = read_images(source.image, examples)
            if read:
                judge.encoder.encode((e.image_id, image) for e, image in read.items())
                kept.append(latent)
                starts.append(len(image_ids))
                image_ids += [example.image_id for example in read]
            progress(place, len(latents))
    return _Looked(judge, np.array(kept), image_ids, starts)


def _measure(
    run: Run, stage: ScoreStage, lines: Sequence[ScoreLine], looked: _Looked, images: str
) -> list[TaskScore]:
    sizes = np.diff([*looked.starts, len(looked.image_ids)])
    made = []
    for at in range(0, len(lines), N_AT_ONCE):
        some = lines[at : at + N_AT_ONCE]
        grades = looked.judge.grade_all([line.score.label for line in some], looked.image_ids)
        means = np.add.reduceat(grades, looked.starts, axis=1) / sizes  # (labels, latents)
        for line, row in zip(some, means, strict=True):
            of_others = row[looked.latents != line.score.latent].tolist()
            verdicts = run.results.with_verdicts(line).verdicts
            own = [v.score for v in verdicts if v.truth and v.score is not None]
            share = share_below(math.fsum(own) / len(own), of_others)
            made.append(_task(line.score, stage, images, share, len(of_others)))
    return made


def _task(score: Score, stage: ScoreStage, images: str, share: float, n: int) -> TaskScore:
    return TaskScore(
        latent=score.latent,
        kind=SPECIFICITY,
        label=score.label,
        explainer=score.explainer,
        model=stage.by.model,
        prompt=stage.by.prompt,
        server=stage.by.server,
        images=images,
        trials=(),
        value=share,
        low=math.nan,
        high=math.nan,
        chance=0.5,
        n=n,
        n_missing=0,
        failure=None,
        calls=(),
        usd=0.0,
    )
