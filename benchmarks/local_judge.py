"""How circular is a local judge, and where does it grade 50? Measured where the truth is known.

    python benchmarks/local_judge.py RUN --clip tiny tiny-conv

RUN is an explained run on a built-in world. Of each CLIP as a `LocalJudge`, over the latents whose
label is a planted concept, on the images of the score side (means over the latents):

- reads: AUROC of the grades for the label's own truth;
- all: AUROC for active against silent images; truth: the same of the truth itself, 0 or 1;
- tests, tests_truth: both on the 20 + 20 test images; apart: mean distance of the two;
- own_best: latents (share) whose own label beats 95% of the world's other concepts on them;
- absent: the same on images where the label's concept is ABSENT. A judge that looks at nothing but
  the label would have .5; more is what it sees of the latent's other images.
- spearman: rank correlation over the latents of "all" and "truth", spearman_tests on the tests.

And the logistic fits of the label's truth, and of active or silent, to what the grade is made of
(`LocalJudge.standing`) on the test images: midpoint and steepness are what
`interp.local.models.JUDGE_CURVES` holds. Fit on another world than the one that is measured on.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata, spearmanr
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from interp.bench.truth import read_truth
from interp.evidence.reader import EvidenceReader
from interp.local.clip_encoder import ClipEncoder
from interp.local.models import LocalJudge
from interp.pipeline.clip.model import background
from interp.records.split import split_of
from interp.run.run import Run
from interp.score.sampling import SampleConfig, draw_sample
from sae.clip.model import load_clip
from sae.clip.store_images import read_store_image
from sae.interchange.load import load
from sae.world.scene.concepts import concept_named

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

FEWEST = 5
"""Active, and silent, images without the concept that a latent needs to be counted in `absent`."""


class Latent(NamedTuple):
    """A latent whose label is a planted concept."""

    number: int
    concept: int
    """Place among the concepts of the truth."""
    active: Bools  # (rows,)


def auroc(scores: NDArray[np.floating], positive: Bools) -> float:
    """Ties count 1/2; NaN where one side is empty."""
    n = int(positive.sum())
    m = len(positive) - n
    if not n or not m:
        return float("nan")
    return float((rankdata(scores)[positive].sum() - n * (n + 1) / 2) / (n * m))


def measure(
    grades: Floats, latents: list[Latent], truth: Bools, tests: list[NDArray[np.int64]]
) -> dict[str, float]:
    """`grades` and `truth` (rows, concepts); `tests` holds the places of each latent's test
    images."""
    columns: dict[str, list[float]] = {}

    def note(**values: float) -> None:
        for name, value in values.items():
            columns.setdefault(name, []).append(value)

    for latent, test in zip(latents, tests, strict=True):
        own, there = grades[:, latent.concept], truth[:, latent.concept]
        note(reads=auroc(own, there), all=auroc(own, latent.active))
        note(truth=auroc(there.astype(float), latent.active))
        active = latent.active[test]
        tested = auroc(own[test], active)
        note(tests=tested, tests_truth=auroc(there[test].astype(float), active))
        others = [auroc(grades[test, c], active) for c in range(truth.shape[1])]
        n_as_good = sum(area >= tested for area in others)  # itself too
        note(own_best=n_as_good <= 0.05 * len(others))
        left = latent.active[~there]
        if min(left.sum(), (~left).sum()) >= FEWEST:
            note(absent=auroc(own[~there], left))
    apart = np.abs(np.subtract(columns["tests"], columns["tests_truth"]))
    return {
        **{name: float(np.nanmean(values)) for name, values in columns.items()},
        "n_absent": len(columns["absent"]),
        "apart": float(np.nanmean(apart)),
        "spearman": _rank_correlation(columns["all"], columns["truth"]),
        "spearman_tests": _rank_correlation(columns["tests"], columns["tests_truth"]),
    }


def fit(standing: list[Floats], true: list[Bools]) -> tuple[float, float]:
    """Midpoint and steepness of the logistic curve."""
    found = LogisticRegression(C=1e6).fit(np.concatenate(standing)[:, None], np.concatenate(true))
    steepness = float(found.coef_[0, 0])
    return -float(found.intercept_[0]) / steepness, steepness


def _rank_correlation(a: list[float], b: list[float]) -> float:
    return float(spearmanr(a, b, nan_policy="omit").statistic)


def labelled_latents(run: Run, rows: NDArray[np.int64], concepts: list[str]) -> list[Latent]:
    """Latents that are named with a planted concept, and on which of the rows they are active."""
    store, model = run.evidence.store, load(run.sae)
    x = store.read(rows).float()
    with torch.inference_mode():
        codes = model.encode(x.flatten(0, 1)).dense(model.n_latents)
    active = (codes > 0).view(len(rows), -1, model.n_latents).any(1).numpy()
    found = []
    for number, explanation in run.results.newest_explanations().items():
        concept = concept_named(explanation.label) if explanation.label else None
        if concept is not None and concept.name in concepts:
            found.append(Latent(number, concepts.index(concept.name), active[:, number]))
    return found


def look(judge: LocalJudge, reader: EvidenceReader, rows: NDArray[np.int64]) -> Tensor:
    """(rows, d) unit rows of the judge's CLIP."""
    store = reader.store
    ids = store.images["image_id"].to_numpy()
    return judge.encoder.encode((ids[row], read_store_image(store, int(row))) for row in rows)


def main() -> None:
    """Print a line for each CLIP."""
    parser = argparse.ArgumentParser(description="Measure the local judge's CLIP on a world.")
    parser.add_argument("run", type=Path)
    parser.add_argument("--clip", nargs="+", default=["tiny", "tiny-conv"])
    arguments = parser.parse_args()
    run = Run(arguments.run)
    reader = run.evidence
    ids = reader.store.images["image_id"].to_numpy()
    rows = np.flatnonzero([split_of(image_id) == "score" for image_id in ids])
    root = next(iter(reader.store.info.roots.values()))
    table = read_truth(reader.store.path.resolve() / root / ".." / "truth.parquet")
    concepts = list(table.select_dtypes(bool).columns)
    truth = table.loc[ids[rows], concepts].to_numpy(bool)
    latents = labelled_latents(run, rows, concepts)
    place = {int(row): number for number, row in enumerate(rows)}
    tests = []
    for latent in latents:
        sample = draw_sample(reader.of(latent.number), SampleConfig())
        shown = (*sample.positives, *sample.negatives)
        tests.append(np.array([place[e.row] for e in shown if e.row in place]))
    print(f"{len(latents)} latents, {len(rows)} images")
    for name in arguments.clip:
        judge = LocalJudge(ClipEncoder(load_clip(name)), background(reader))
        seen = look(judge, reader, rows)
        standing = judge.standing(concepts, seen).double().numpy().T  # (rows, concepts)
        grades = judge.grade(concepts, seen).double().numpy().T
        print(name, _written(measure(grades, latents, truth, tests)))
        at = list(zip(latents, tests, strict=True))
        x = [standing[test, latent.concept] for latent, test in at]
        for what, true in (
            ("truth", [truth[test, latent.concept] for latent, test in at]),
            ("active", [latent.active[test] for latent, test in at]),
        ):
            midpoint, steepness = fit(x, true)
            print(f"  fit to {what}: midpoint {midpoint:.2f}, steepness {steepness:.2f}")


def _written(figures: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in figures.items())


if __name__ == "__main__":
    main()
