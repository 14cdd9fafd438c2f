"""Does `interp find` find the latents whose meaning is known, and how long does a query take?

    python benchmarks/find_latents.py results/demo --json find.json

RUN is a finished `interp demo`. A word's right latents are the live ones that show its concept in
at least 3/4 of their 16 strongest held-out images (`interp/bench/truth.py`). Then seconds of CPU a
query over `--latents` made up ones of width 512, one after another, once they are loaded: of the
ranking alone, and with the text tower of the run's CLIP.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

import numpy as np  # noqa: E402

from interp.bench.truth import PURE, find_planted, read_truth  # noqa: E402
from interp.local.ranking import Ranking, Texts  # noqa: E402
from interp.local.vocabulary import TERMS_FILE, read_terms  # noqa: E402
from interp.pipeline.clip.search import LatentSearch  # noqa: E402
from interp.run.run import Run  # noqa: E402
from sae.world.scene.concepts import PLANTED  # noqa: E402

WIDTH = 512
N_QUERIES = 50
Group = tuple[str, Callable[[str], bool]]
GROUPS: tuple[Group, ...] = (
    ("objects", lambda kind: kind == "object"),
    ("attributes", lambda kind: kind in ("colour", "pattern", "stroke", "size", "orientation")),
    ("counts, positions, backgrounds", lambda kind: kind in ("count", "position", "background")),
)


def right_latents(run: Run) -> dict[str, set[int]]:
    """By concept: live latents that are pure for it."""
    reader = run.evidence
    found = find_planted(reader, read_truth(run.path / "world" / "truth.parquet"))
    right: dict[str, set[int]] = {}
    for latent in reader.live():
        if found.purity[latent] >= PURE:
            right.setdefault(found.names[found.concept[latent]], set()).add(latent)
    return right


def count_found(run: Run, device: str) -> dict[str, Any]:
    """For each group of words: how many have a pure live latent, and where it comes."""
    right, search = right_latents(run), LatentSearch(run, device)
    figures: dict[str, Any] = {}
    for name, holds in GROUPS:
        words = [concept.name for concept in PLANTED if holds(concept.kind)]
        ranked = search.rank(words, len(search.latents))
        places = {
            word: min(at for at, one in enumerate(order) if one.latent in right[word])
            for word, order in zip(words, ranked, strict=True)
            if word in right
        }
        first = sum(at == 0 for at in places.values())
        among = sum(at < 3 for at in places.values())
        figures[f"{name}/words"], figures[f"{name}/with_pure_latent"] = len(words), len(places)
        figures[f"{name}/first"], figures[f"{name}/among_3"] = first, among
        figures[f"{name}/without"] = [word for word in words if word not in right]
        figures[f"{name}/not_first"] = [word for word, at in places.items() if at]
    return figures


def made_up(n_latents: int) -> Ranking:
    """Directions and label texts at random, labels of one and two words of the vocabulary."""
    random, words = np.random.default_rng(0), read_terms(TERMS_FILE)
    drawn = random.choice(len(words), (n_latents, 3)).tolist()
    texts = [
        Texts(words[a] if a % 2 else f"{words[a]} {words[b]}", "", f"it shows {words[c]}")
        for a, b, c in drawn
    ]
    rows = [random.standard_normal((n_latents, WIDTH), np.float32) for _ in range(2)]
    usual = np.zeros(WIDTH, np.float32)
    return Ranking(np.arange(n_latents), rows[0], texts, rows[1], usual)


def seconds(work: Callable[[str], object], queries: Sequence[str]) -> list[float]:
    """CPU seconds of each query, after three that do not count."""
    for query in queries[:3]:
        work(query)
    found = []
    for query in queries:
        start = time.process_time()
        work(query)
        found.append(time.process_time() - start)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--latents", type=int, default=24_576)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    run = Run(given.run)
    figures = count_found(run, given.device)
    ranking, search = made_up(given.latents), LatentSearch(run, given.device)
    queries = [f"a {word}" for word in read_terms(TERMS_FILE)[:: 2400 // N_QUERIES]]
    row = np.random.default_rng(1).standard_normal(WIDTH, np.float32)
    ranked = seconds(lambda query: ranking.rank(query, row, 10), queries)
    whole = seconds(lambda query: search.rank([query], 10), queries)
    for name, values in {"ranking": ranked, "run": whole}.items():
        figures[f"{name}_ms/median"] = round(1000 * float(np.median(values)), 2)
        figures[f"{name}_ms/largest"] = round(1000 * max(values), 2)
    for name, value in figures.items():
        print(f"{name:<48} {value}")
    if given.json is not None:
        given.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
