"""A run scored by the local judge -> how often a label that says nothing comes out supported.

    python benchmarks/null_labels.py RUN --json null_labels.json

Each label of the run in turn gives way to one that says nothing of its latent, and is scored on the
same images, with the same nulls, and adjusted (Benjamini and Hochberg) among the labels that the
run has: what would have come of it, had the explainer said so about this one latent.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from interp.local.clip_encoder import SeenOnce
from interp.local.vocabulary import load_vocabulary
from interp.pipeline.score import ScoreStage
from interp.pipeline.settings import JudgeSettings
from interp.records.support import find_support
from interp.records.types import Explanation, Score
from interp.run.run import Run
from interp.score.latent import score_latent
from interp.score.nulls.suite import says_the_same
from sae.core.shares import wilson_interval

GENERIC = ("an image", "a picture", "an object")
N_WORDS = 4
"""Random words of each latent."""
Scorer = Callable[[Explanation], Score]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--judge-clip", default="tiny-conv")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    figures = measure(Run.open(options.run), options.judge_clip)
    print("\n".join(f"{name:32}{value:.5g}" for name, value in figures.items()))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


def measure(run: Run, clip: str) -> dict[str, float]:
    """Shares supported with Wilson's interval, by the kind of label and by label."""
    stage = ScoreStage(run, JudgeSettings(model="local", clip=clip))
    judge = stage.local_judge()
    source, nulls = SeenOnce(run.evidence, judge.encoder), stage.free_nulls(judge)

    def score(test: Explanation) -> Score:
        evidence = source.of(test.latent)
        asked = score_latent(evidence, test, judge, source.image, stage.sample, nulls=nulls)
        return asyncio.run(asked)

    own = {n: e for n, e in run.results.newest_explanations().items() if e.label}
    scores = {n: s for n in own if (s := run.results.score(n)) and s.model == stage.by.model}
    kinds = {
        "own labels": [[e.label or ""] for e in own.values()],
        "generic": [list(GENERIC)] * len(own),
        "domain": [[f"a {name}" for name in run.evidence.info.domains]] * len(own),
        "random word": [_words(e, clip) for e in own.values()],
    }
    figures: dict[str, float] = {}
    for kind, labels in kinds.items():
        found: list[tuple[str, str]] = []
        for explanation, words in zip(own.values(), labels, strict=True):
            found += [(word, _state(explanation, word, own, scores, score)) for word in words]
        figures |= _shares(kind, [state for _, state in found])
        if kind in ("generic", "domain"):
            for label in dict.fromkeys(label for label, _ in found):
                figures |= _shares(label, [state for other, state in found if other == label])
    return figures


def _words(explanation: Explanation, clip: str) -> list[str]:
    """Drawn evenly from the general vocabulary, without those that share a word with the label."""
    rng = np.random.default_rng([8, explanation.latent])
    names = [term.name for term in load_vocabulary("general", clip)]
    drawn = [names[place] for place in rng.permutation(len(names))]
    label = explanation.label or ""
    return [word for word in drawn if not says_the_same(word, label)][:N_WORDS]


def _state(
    explanation: Explanation,
    label: str,
    own: dict[int, Explanation],
    scores: dict[int, Score],
    score: Scorer,
) -> str:
    latent = explanation.latent
    test = replace(explanation, label=label, second_label=None, description="", verdict="single")
    made = score(test)
    if made.failure is not None:
        return made.failure
    states = find_support({**own, latent: test}, {**scores, latent: made}.values())
    return states[latent].state


def _shares(name: str, states: Sequence[str]) -> dict[str, float]:
    counted = Counter(states)
    n = sum(counted[state] for state in ("supported", "undecided", "unsupported"))
    low, high = wilson_interval(counted["supported"], n)
    return {
        f"{name}/tests": n,
        f"{name}/supported": counted["supported"] / n,
        f"{name}/supported_low": low,
        f"{name}/supported_high": high,
        f"{name}/undecided": counted["undecided"] / n,
        f"{name}/failed": len(states) - n,
    }


if __name__ == "__main__":
    main()
