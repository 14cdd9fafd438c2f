"""How circular is a local judge, and where does it grade 50? Measured where the truth is known.

    python benchmarks/local_judge.py RUN --clip tiny tiny-conv

RUN is an explained run on a built-in world. Of each CLIP, over the latents whose label is a planted
concept, on the images of the score side (means over the latents):

- reads: AUROC of the similarity to the label for the label's own truth;
- all: AUROC for active against silent images; truth: the same of the truth itself, 0 or 1;
- absent: the same on images where the label's concept is ABSENT. A judge that looks at nothing but
  the label would have .5; more is what it sees of the latent's other images.
- spearman: rank correlation over the latents of "all" and "truth".

And the logistic fit of active (1) and silent (0) to the similarity on the 20 + 20 test images of
every latent, in deviations from the background: its midpoint and steepness are what
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

from interp.bench.truth import CONCEPTS, read_truth
from interp.evidence.reader import EvidenceReader
from interp.local.clip_encoder import embed_terms
from interp.local.vocabulary import texts_of
from interp.pipeline.clip_model import background_examples
from interp.records.split import split_of
from interp.run.run import Run
from interp.score.sampling import SampleConfig, draw_sample
from sae.clip.model import Clip, load_clip
from sae.clip.store_images import read_store_image
from sae.interchange.load import load
from sae.world.scene.concepts import concept_named

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

AT_ONCE = 100
FEWEST = 5
"""Active, and silent, images without the concept that a latent needs to be counted in `absent`."""


class Latent(NamedTuple):
    """A latent whose label is a planted concept."""

    number: int
    concept: int
    """Place in CONCEPTS."""
    active: Bools  # (rows,)


class Figures(NamedTuple):
    """What is printed of one CLIP."""

    reads: float
    all: float
    truth: float
    absent: float
    n_absent: int
    """Latents that `absent` is the mean of."""
    spearman: float
    midpoint: float
    steepness: float


def auroc(scores: NDArray[np.floating], positive: Bools) -> float:
    """Ties count 1/2; NaN where one side is empty."""
    n = int(positive.sum())
    m = len(positive) - n
    if not n or not m:
        return float("nan")
    return float((rankdata(scores)[positive].sum() - n * (n + 1) / 2) / (n * m))


def measure(
    z: Floats, latents: list[Latent], truth: Bools, tests: list[NDArray[np.int64]]
) -> Figures:
    """`z` (rows, concepts) similarities in deviations, `truth` (rows, concepts); `tests` holds the
    places of each latent's test images."""
    reads, everything, by_truth, absent = [], [], [], []
    for latent in latents:
        seen, there = z[:, latent.concept], truth[:, latent.concept]
        reads.append(auroc(seen, there))
        everything.append(auroc(seen, latent.active))
        by_truth.append(auroc(there.astype(float), latent.active))
        active = latent.active[~there]
        if min(active.sum(), (~active).sum()) >= FEWEST:
            absent.append(auroc(seen[~there], active))
    at = list(zip(latents, tests, strict=True))
    x = np.concatenate([z[test, latent.concept] for latent, test in at])
    y = np.concatenate([latent.active[test] for latent, test in at])
    fit = LogisticRegression(C=1e6).fit(x[:, None], y)
    steepness = float(fit.coef_[0, 0])
    return Figures(
        reads=float(np.nanmean(reads)),
        all=float(np.nanmean(everything)),
        truth=float(np.nanmean(by_truth)),
        absent=float(np.mean(absent)),
        n_absent=len(absent),
        spearman=float(spearmanr(everything, by_truth, nan_policy="omit").statistic),
        midpoint=-float(fit.intercept_[0]) / steepness,
        steepness=steepness,
    )


def labelled_latents(run: Run, rows: NDArray[np.int64]) -> list[Latent]:
    """Latents that are named with a planted concept, and on which of the rows they are active."""
    store, model = run.evidence.store, load(run.sae)
    x = store.read(rows).float()
    with torch.inference_mode():
        codes = model.encode(x.flatten(0, 1)).dense(model.n_latents)
    active = (codes > 0).view(len(rows), -1, model.n_latents).any(1).numpy()
    found = []
    for number, explanation in run.results.newest_explanations().items():
        concept = concept_named(explanation.label) if explanation.label else None
        if concept is not None and concept.name in CONCEPTS:
            found.append(Latent(number, CONCEPTS.index(concept.name), active[:, number]))
    return found


def embed(clip: Clip, reader: EvidenceReader, rows: NDArray[np.int64]) -> Floats:
    """(rows, d) unit rows."""
    parts = []
    for at in range(0, len(rows), AT_ONCE):
        images = [read_store_image(reader.store, int(row)) for row in rows[at : at + AT_ONCE]]
        pixels = torch.stack([clip.preprocess(image) for image in images])
        parts.append(clip.image_features(pixels).double().cpu().numpy())
    return np.concatenate(parts)


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
    truth = table.loc[ids[rows], list(CONCEPTS)].to_numpy(bool)
    latents = labelled_latents(run, rows)
    place = {int(row): number for number, row in enumerate(rows)}
    tests = []
    for latent in latents:
        sample = draw_sample(reader.of(latent.number), SampleConfig())
        shown = (*sample.positives, *sample.negatives)
        tests.append(np.array([place[e.row] for e in shown if e.row in place]))
    usual = np.array([example.row for example in background_examples(reader)])
    print(f"{len(latents)} latents, {len(rows)} images")
    for name in arguments.clip:
        clip = load_clip(name)
        texts = [texts_of(concept, "tiny") for concept in CONCEPTS]
        words = embed_terms(clip, texts).double().numpy().T  # (d, concepts)
        background = embed(clip, reader, usual) @ words
        z = (embed(clip, reader, rows) @ words - background.mean(0)) / background.std(0)
        figures = measure(z, latents, truth, tests)
        print(name, ", ".join(f"{key} {value:.3f}" for key, value in figures._asdict().items()))


if __name__ == "__main__":
    main()
