"""Does a choice among labels help, and what does it cost to choose on the images that test them?

    python benchmarks/best_of.py OUT --tier hard --seed 0

On constructed latents of the built-in world that have a right name. The labels of a latent are the
best ranked names of the local namer (its first one is that of a plain `interp explain`), chosen
among as `interp explain --best-of` does. By judge, images of the side select and lead that another
name must have:

- truth: mean AUROC of the chosen label's own truth for active and silent images of the whole store;
- select: mean AUROC of the judge on the images that chose.

The judges are both tiny CLIPs, and oracles that say yes to a share HIT of the images of which a
label is true and ALARM of the others. Then names chosen by the largest AUROC on the 20 + 20 images
of the score itself, as nobody should: what they get there, and what on 20 + 20 of the side select.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from interp.bench.config import BenchConfig
from interp.bench.naming import auroc_of
from interp.bench.run import COLLECT, Subject, prepare
from interp.local.models import LocalJudge
from interp.pictures.cache import read_images
from interp.pipeline.best_of.choose import LEAD, candidates_of, pick
from interp.pipeline.best_of.stages import FREE_SAMPLE, SELECT_SAMPLE
from interp.pipeline.clip.model import background, judge_encoder
from interp.pipeline.collect import run_collect
from interp.pipeline.explain import ExplainStage
from interp.pipeline.settings import ModelSettings
from interp.records.types import Compared, Example
from interp.run.run import Run
from interp.score.sampling import SampleConfig, draw_sample

KINDS = ("pure", "noisy", "absorbed", "domain")
CLIPS = ("tiny-conv", "tiny")
ORACLES = ((0.9, 0.1), (0.8, 0.2))
NUMBERS = (1, 2, 4, 5)
LEADS = (0.0, LEAD)
TEST = SampleConfig()
FRESH = replace(TEST, side="select")
SAMPLES = {"8+8": SELECT_SAMPLE, "20+20": FRESH, "32+32": FREE_SAMPLE, "the score's": TEST}

Floats = NDArray[np.float64]


class Latent(NamedTuple):
    """The names of one latent, best first."""

    truth: list[float]
    compared: Mapping[tuple[str, str], list[Compared]]
    """By judge and images."""


def auroc(grades: Floats, positive: NDArray[np.bool_]) -> float:
    """Ties count 1/2."""
    n = int(positive.sum())
    m = len(positive) - n
    return float((rankdata(grades)[positive].sum() - n * (n + 1) / 2) / (n * m))


def look(run: Run, subject: Subject, judges: Mapping[str, LocalJudge]) -> list[Latent]:
    """Every latent with several names, each of them graded by every judge on all images."""
    rng = np.random.default_rng(0)
    return [
        look_at(run, subject, judges, latent, [e.label or "" for e in candidates_of(said, 5)], rng)
        for latent, said in run.results.newest_explanations().items()
        if said.label
    ]


def look_at(
    run: Run,
    subject: Subject,
    judges: Mapping[str, LocalJudge],
    latent: int,
    names: list[str],
    rng: np.random.Generator,
) -> Latent:
    evidence, known = run.evidence.of(latent), subject.truth
    samples = {name: draw_sample(evidence, config) for name, config in SAMPLES.items()}
    wanted = [e for s in samples.values() for part in s for e in part]
    read = read_images(run.evidence.image, wanted)
    shown = {e.image_id: image for e, image in read.items()}
    flags = np.stack([known.where(name) for name in names])[:, [known.row_of[i] for i in shown]]
    grades: dict[str, Floats] = {}
    for clip, judge in judges.items():
        rows = judge.encoder.encode(shown.items())
        grades[clip] = judge.grade(names, rows).double().numpy()
    for hit, alarm in ORACLES:
        said = rng.random(flags.shape) < np.where(flags, hit, alarm)
        grades[f"oracle {hit:g}/{alarm:g}"] = said.astype(float)
    place = {image_id: at for at, image_id in enumerate(shown)}
    compared = {}
    for sample, drawn in samples.items():
        images: list[Example] = [e for part in drawn for e in part]
        positive = np.array([e.is_positive for e in images])
        for judge_name, given in grades.items():
            some = given[:, [place[e.image_id] for e in images]]
            compared[judge_name, sample] = [
                Compared(
                    name,
                    auroc(own, positive),
                    float(own[positive].mean() - own[~positive].mean()),
                )
                for name, own in zip(names, some, strict=True)
            ]
    active = subject.active[:, latent]
    truth = [float(auroc_of(known.where(name), active)) for name in names]
    return Latent(truth, compared)


def show(latents: Sequence[Latent]) -> None:
    """The table, and what a choice on the score's own images is worth."""
    for n in NUMBERS:
        best = np.mean([max(one.truth[:n]) for one in latents])
        print(f"best of {n} by the truth itself: truth {best:.3f}")
    judges = list(dict.fromkeys(judge for judge, _ in latents[0].compared))
    for judge in judges:
        for sample in list(SAMPLES)[:3]:
            for lead in LEADS:
                cells = []
                for n in NUMBERS:
                    chosen = [pick(one.compared[judge, sample][:n], lead) for one in latents]
                    pairs = list(zip(latents, chosen, strict=True))
                    truth = np.mean([one.truth[at] for one, at in pairs])
                    there = np.mean([one.compared[judge, sample][at].auroc for one, at in pairs])
                    cells.append(f"{truth:.3f} ({there:.3f})")
                print(f"{judge:<15} {sample:<6} lead {lead:<5g}" + "  ".join(cells))
    print("chosen on the 20 + 20 images of the score: AUROC there, on as many fresh ones, truth")
    for judge in judges:
        for n in NUMBERS:
            chosen = [pick(one.compared[judge, "the score's"][:n]) for one in latents]
            pairs = list(zip(latents, chosen, strict=True))
            own, fresh = (
                np.mean([one.compared[judge, sample][at].auroc for one, at in pairs])
                for sample in ("the score's", "20+20")
            )
            truth = np.mean([one.truth[at] for one, at in pairs])
            print(f"{judge:<15} best of {n}: {own:.3f} {fresh:.3f} {truth:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--tier", choices=("easy", "hard"), default="hard")
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--of-kind", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    kinds = ",".join(f"{kind}={asked.of_kind}" for kind in KINDS)
    config = BenchConfig(
        tier=asked.tier, n_images=asked.images, seed=asked.seed, kinds=kinds, n_trained=0
    )
    asked.out.mkdir(parents=True, exist_ok=True)
    settings = ModelSettings(model="local", vocabulary="hard" if asked.tier == "hard" else "world")
    (subject,) = prepare(asked.out, config, "cpu")
    wanted = replace(COLLECT, select=True)
    folder = asked.out / "runs" / "select"
    run, _ = run_collect(subject.latents_dir, subject.store_dir, folder, wanted, "cpu")
    ExplainStage(run, settings, subject.latents).run()
    judges = {}
    for clip in CLIPS:
        encoder = judge_encoder(run, replace(settings, clip=clip))
        judges[clip] = LocalJudge(encoder, background(run.evidence, "", encoder))
    latents = look(run, subject, judges)
    print(f"{asked.tier}, seed {asked.seed}: {len(latents)} latents")
    show(latents)


if __name__ == "__main__":
    main()
