"""A world and its store -> what the local namer says of constructed latents.

    python benchmarks/local_namer.py WORLD STORE [--seed 50] [--n 25]

The store holds the tiny CLIP's projected embeddings: what the namer would see of the pixels.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.stats import rankdata, spearmanr

from interp.bench.constructed import KINDS, construct
from interp.bench.truth import read_truth
from interp.local.clip_encoder import embed_terms
from interp.local.models import N_FURTHER_IMAGES, N_NAMING_IMAGES
from interp.local.naming import Usual, name_images, standardise
from interp.local.vocabulary import load_vocabulary
from interp.records.split import split_of
from sae.clip.model import load_clip
from sae.data.store import EmbeddingStore
from sae.world.scene.concepts import PLANTED

CONCEPTS = tuple(concept.name for concept in PLANTED)


def main() -> None:
    given = argparse.ArgumentParser()
    given.add_argument("world", type=Path)
    given.add_argument("store", type=Path)
    given.add_argument("--seed", type=int, default=50)
    given.add_argument("--n", type=int, default=25)
    args = given.parse_args()
    store = EmbeddingStore.open(args.store)
    x = np.concatenate([np.asarray(batch.x, np.float32)[:, 0] for batch in store.batches()])
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    ids = store.images["image_id"]
    truth = read_truth(args.world / "truth.parquet").loc[ids].reset_index(drop=True)
    made = construct(truth[["domain", *CONCEPTS]], dict.fromkeys(KINDS, args.n), args.seed, x)
    explain = np.array([split_of(image_id) == "explain" for image_id in ids])
    terms = load_vocabulary("world", "tiny")
    texts = embed_terms(load_clip("tiny", "cpu"), [term.texts for term in terms])
    similarity = torch.from_numpy(x) @ texts.T
    rng = np.random.default_rng(args.seed)
    background = similarity[rng.choice(np.flatnonzero(explain), 1024, replace=False)]
    z, usual = standardise(similarity, background), Usual.of(background)
    rows = []
    for latent, meaning in enumerate(made.latents):
        acts = made.acts[:, latent]
        active = np.flatnonzero(explain & (acts > 0))
        top = active[np.argsort(-acts[active], kind="stable")][:N_NAMING_IMAGES]
        rest = np.setdiff1d(active, top)
        further = rng.choice(rest, min(N_FURTHER_IMAGES, len(rest)), replace=False)
        own = np.concatenate([top, further])
        named = name_images(z[own], torch.arange(len(own)) < len(top), usual, (3, latent))
        words = [terms[term].name for term in named.terms]
        planted = {*(meaning.concepts[:1] if meaning.kind == "absorbed" else meaning.concepts)}
        said = truth[[word for word in words if word in CONCEPTS]].any(axis=1).to_numpy(bool)
        rows.append(
            {
                "kind": meaning.kind,
                "first": words[0] in planted,
                "several": named.verdict == "several",
                "both": named.verdict == "several" and set(words) == planted,
                "false": not set(words) <= planted,
                "unclear": named.verdict == "unclear",
                "confidence": named.confidence,
                "true": auroc(said[~explain], acts[~explain] > 0),
            }
        )
    table = pd.DataFrame(rows)
    table["false and not unclear"] = table["false"] & ~table["unclear"]
    shown = ["first", "several", "both", "unclear", "false and not unclear", "confidence"]
    print(table.groupby("kind", sort=False)[shown].mean().round(2).to_string())
    print("unclear, of false labels", round(table["unclear"][table["false"]].mean(), 3))
    print("unclear, of right labels", round(table["unclear"][~table["false"]].mean(), 3))
    print(
        "Spearman(confidence, AUROC of the named concepts)",
        round(float(spearmanr(table["confidence"], table["true"]).statistic), 3),
    )


def auroc(said: np.ndarray, active: np.ndarray) -> float:
    """Of the truth of what was said, for active against silent images."""
    ranks, n = rankdata(said)[active], int(active.sum())
    return float((ranks.sum() - n * (n + 1) / 2) / (n * (len(said) - n)))


if __name__ == "__main__":
    main()
