"""Does a choice among labels help, and what does it cost to choose on the images that test them?

    python benchmarks/best_of.py OUT --tier hard --images 3000 --of-kind 40

On constructed latents of the built-in world (`interp bench`): `interp explain --model local
--best-of N` for several N. Of the labels that stand, means over the latents that have a right name:

- truth: AUROC of the label's own truth for active and silent images of the whole store; regret:
  what is missing to the best of all concepts; named: share of pure latents with the right name;
- select, score: AUROC of the judge on the 8 + 8 images that chose, and on the 20 + 20 that test.

Then the same labels chosen on the score side's own 20 + 20, as nobody should: `score` of these
against their AUROC on 20 + 20 images of the side select, which had no part in it.
"""

from __future__ import annotations

import argparse
import asyncio
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from interp.bench.config import BenchConfig
from interp.bench.naming import RIGHT, auroc_of, is_made_of_concepts, naming
from interp.bench.run import COLLECT, Subject, prepare
from interp.local.models import LocalJudge
from interp.pictures.cache import PictureCache
from interp.pipeline.best_of.choose import candidates_of
from interp.pipeline.best_of.settings import BestOfSettings
from interp.pipeline.best_of.stages import BestOf
from interp.pipeline.clip_model import background, judge_encoder
from interp.pipeline.collect import run_collect
from interp.pipeline.explain import ExplainStage
from interp.pipeline.settings import ModelSettings
from interp.records.types import Explanation
from interp.run.run import Run
from interp.score.latent import score_latent
from interp.score.sampling import SampleConfig

KINDS = ("pure", "noisy", "absorbed", "domain")
TEST = SampleConfig()
FRESH = replace(TEST, side="select")
SMALL = SampleConfig(n_positive=8, n_negative=8, side="select")


class Judged:
    """AUROC of labels of a run's latents by the local judge, on any side; each asked once."""

    def __init__(self, run: Run, settings: ModelSettings) -> None:
        encoder = judge_encoder(run, settings)
        self._judge = LocalJudge(encoder, background(run.evidence, "", encoder))
        self._run, self._source = run, PictureCache(run.evidence)
        self._known: dict[tuple[int, str | None, SampleConfig], float] = {}

    def auroc(self, said: Explanation, on: SampleConfig) -> float:
        key = (said.latent, said.label, on)
        if key not in self._known:
            evidence, image = self._run.evidence.of(said.latent), self._source.image
            bare = replace(said, chosen_on=())
            scored = score_latent(evidence, bare, self._judge, image, on)
            self._known[key] = asyncio.run(scored).auroc
        return self._known[key]


def measure(subject: Subject, judged: Judged, labels: Sequence[Explanation]) -> dict[str, float]:
    """Means over the latents that are made of concepts."""
    meant = [e for e in labels if e.label and is_made_of_concepts(subject.meanings[e.latent].kind)]
    active = {e.latent: subject.active[:, e.latent] for e in meant}
    truth = [float(auroc_of(subject.truth.where(e.label), active[e.latent])) for e in meant]
    best = [float(np.nanmax(subject.truth.aurocs(active[e.latent]))) for e in meant]
    pure = [e for e in meant if subject.meanings[e.latent].kind == "pure"]
    return {
        "latents": len(meant),
        "truth": float(np.mean(truth)),
        "regret": float(np.mean(np.subtract(best, truth))),
        "named": float(np.mean([naming(e, subject.meanings[e.latent]) in RIGHT for e in pure])),
        "select": float(np.nanmean([judged.auroc(e, SMALL) for e in meant])),
        "score": float(np.nanmean([judged.auroc(e, TEST) for e in meant])),
        "fresh": float(np.nanmean([judged.auroc(e, FRESH) for e in meant])),
    }


def choose_on_the_test(
    judged: Judged, labels: Sequence[Explanation], n: int, on: SampleConfig
) -> list[Explanation]:
    """The best of each latent's `n` candidates on these very images."""

    def area(said: Explanation) -> float:
        found = judged.auroc(said, on)
        return -1.0 if math.isnan(found) else found

    return [max(candidates_of(said, n), key=area) for said in labels]


def show(name: str, figures: dict[str, float]) -> None:
    print(f"{name:<28}" + "  ".join(f"{k} {v:.3f}" for k, v in figures.items()), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--tier", choices=("easy", "hard"), default="hard")
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--of-kind", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--best-of", type=int, nargs="+", default=[2, 4, 8, 16])
    asked = parser.parse_args()
    kinds = ",".join(f"{kind}={asked.of_kind}" for kind in KINDS)
    config = BenchConfig(
        tier=asked.tier, n_images=asked.images, seed=asked.seed, kinds=kinds, n_trained=0
    )
    asked.out.mkdir(parents=True, exist_ok=True)
    settings = ModelSettings(model="local", vocabulary="hard" if asked.tier == "hard" else "world")
    for subject in prepare(asked.out, config, "cpu"):
        folder = asked.out / "runs" / "select"
        wanted = replace(COLLECT, select=True)
        run, _ = run_collect(subject.latents_dir, subject.store_dir, folder, wanted, "cpu")
        judged = Judged(run, settings)
        most = max(asked.best_of)
        chosen: dict[int, list[Explanation]] = {}
        for n in (1, *asked.best_of):
            if n == 1:
                ExplainStage(run, settings, subject.latents).run()
            else:
                BestOf(run, BestOfSettings(best_of=n), settings, subject.latents).run()
            chosen[n] = [*run.results.newest_explanations().values()]
            show(f"best of {n}", measure(subject, judged, chosen[n]))
        every = [e for e in run.candidates.explanations if len(e.candidates) >= most]
        for n in asked.best_of:
            own = choose_on_the_test(judged, every, n, TEST)
            show(f"best of {n} on the test itself", measure(subject, judged, own))


if __name__ == "__main__":
    main()
