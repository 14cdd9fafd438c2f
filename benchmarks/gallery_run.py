"""A made-up run of any size -> the files that `interp cards` reads, for `gallery.py` to time.

Images are drawn; evidence, labels and scores are random and of real sizes. The same seed gives the
same run.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from safetensors.numpy import save_file

from interp.evidence.config import EXAMPLES, LATENTS, CollectInfo
from interp.evidence.tables import EXAMPLE_SCHEMA, latent_schema, write_table
from interp.records.codec import to_json
from interp.records.nulls import Null, NullTest
from interp.records.split import split_of
from interp.records.types import Explanation, HeldOut, Score, Verdict
from interp.run.run import RunInfo
from sae.core.files import sha256_hex, write_json
from sae.data.roots import remember
from sae.data.store_format import StoreInfo, shard_path

DOMAINS = ("sketch", "photo")
KEPT = (("top", 16), ("quantile", 20), ("silent", 10), ("hard", 9))
"""Examples of a latent on each side: 55, so 110 in all."""
N_CLASSES = 120


def write_run(folder: Path, n_latents: int, n_images: int, d: int, seed: int = 0) -> Path:
    """The run's folder, with a store and its images beside it."""
    rng = np.random.default_rng(seed)
    images = _images(folder / "images", n_images, rng)
    _store(folder / "store", folder / "images", images)
    run = folder / "run"
    n_examples, judged = _evidence(run / "collect", images, n_latents, rng)
    _infos(run, n_images, n_latents, n_examples)
    (run / "sae").mkdir(exist_ok=True)
    centres = rng.normal(size=(n_latents // 40 + 1, d))
    rows = centres[rng.integers(len(centres), size=n_latents)] + rng.normal(size=(n_latents, d))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    save_file({"W_dec": rows.astype(np.float32)}, run / "sae" / "sae.safetensors")
    words = [_word(rng) for _ in range(4000)]
    with (run / "explanations.jsonl").open("w") as said, (run / "scores.jsonl").open("w") as scores:
        for latent in range(n_latents):
            label = " ".join(rng.choice(words, 2 + latent % 3))
            said.write(json.dumps(to_json(_explanation(latent, label, judged[latent]))) + "\n")
            scores.write(json.dumps(to_json(_score(latent, label, judged[latent], rng))) + "\n")
    return run


def _word(rng: np.random.Generator) -> str:
    parts = ("ba", "rin", "to", "le", "ska", "mu", "der", "no", "fi", "grass")
    return "".join(rng.choice(parts, 3))


def _images(root: Path, n: int, rng: np.random.Generator) -> pd.DataFrame:
    rows = []
    for i in range(n):
        domain, label = DOMAINS[i % 2], f"class {i % N_CLASSES:03d}"
        path = root / domain / label / f"{i:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        size = (int(rng.integers(120, 240)), int(rng.integers(120, 240)))
        image = Image.new("RGB", size, "white" if i % 2 == 0 else tuple(rng.integers(256, size=3)))
        draw = ImageDraw.Draw(image)
        for _ in range(6):
            corners = sorted(rng.integers(0, 120, 2).tolist()), sorted(rng.integers(0, 120, 2))
            box = (corners[0][0], int(corners[1][0]), corners[0][1] + 9, int(corners[1][1]) + 9)
            draw.ellipse(box, outline="black", width=2, fill=tuple(rng.integers(256, size=3)))
        draw.text((2, 2), str(i), fill="black")
        image.save(path)
        image_id = sha256_hex(path.read_bytes())
        rows.append((image_id, f"{label}/{i:05d}.png", domain, label, *size))
    columns = ["image_id", "path", "domain", "label", "width", "height"]
    return pd.DataFrame(rows, columns=columns)


def _store(store: Path, root: Path, images: pd.DataFrame) -> None:
    store.mkdir(parents=True, exist_ok=True)
    images.to_parquet(store / "images.parquet")
    info = StoreInfo(
        format=1,
        clip="ViT-B-32/openai",
        clip_sha="0" * 16,
        layer="projected",
        tokens="cls",
        dtype="float16",
        d=8,
        tokens_per_image=1,
        grid=[],
        n_images=len(images),
        n_skipped=0,
        shard_rows=[len(images)],
        roots={domain: os.path.relpath(root / domain, store) for domain in DOMAINS},
        identity="store",
        version="0",
    )
    save_file({"x": np.zeros((len(images), 1, 8), np.float16)}, shard_path(store, 0))
    write_json(store / "store.json", info)
    remember(info)


def _evidence(
    folder: Path, images: pd.DataFrame, n: int, rng: np.random.Generator
) -> tuple[int, list[list[tuple[int, str, str, str, float]]]]:
    """Both tables; of each latent the 39 held-out images (row, id, kind, domain, act)."""
    side_of = np.array([split_of(image_id) == "score" for image_id in images.image_id])
    kinds = np.concatenate([[i] * count for i, (_, count) in enumerate(KEPT)])
    ranks = np.concatenate([np.arange(count) for _, count in KEPT])
    parts: list[NDArray[np.int64]] = []
    for side in (False, True):
        rows = np.flatnonzero(side_of == side)
        # Latents like the images around a place of their own, so that some share images.
        start = rng.integers(len(rows), size=n)[:, None]
        step = rng.integers(1, 400, size=(n, len(kinds))).cumsum(1) // 9
        parts.append(rows[(start + step) % len(rows)])
    rows = np.stack(parts, 1)  # (n, side, example)
    size = rows.shape
    acts = np.where(kinds < 2, 3.0 * rng.random(size) + 0.1, 0.0).astype(np.float32)
    acts = np.where(kinds < 2, -np.sort(-acts, axis=2), 0).astype(np.float32)
    stratum = np.where(kinds == 1, 4 - ranks // 4, -1)
    flat = rows.reshape(-1)

    def texts(name: str) -> pa.DictionaryArray:
        codes, known = pd.factorize(images[name], sort=True)
        return pa.DictionaryArray.from_arrays(codes[flat].astype(np.int32), pa.array(list(known)))

    def spread(values: NDArray[Any], kind: Any) -> NDArray[Any]:
        return np.broadcast_to(values, size).reshape(-1).astype(kind)

    sides = spread(np.arange(2)[None, :, None], np.int32)
    columns = {
        "latent": spread(np.arange(n)[:, None, None], np.int32),
        "side": pa.DictionaryArray.from_arrays(sides, ["explain", "score"]),
        "kind": pa.DictionaryArray.from_arrays(spread(kinds, np.int32), [k for k, _ in KEPT]),
        "rank": spread(ranks, np.int16),
        "stratum": spread(stratum, np.int8),
        "row": flat,
        **{name: texts(name) for name in ("image_id", "domain", "label", "path")},
        "act": acts.reshape(-1),
        "heat": pa.nulls(flat.size, pa.binary()),
        "peak": np.full(flat.size, -1, np.int32),
        "group": pa.DictionaryArray.from_arrays(np.zeros(flat.size, np.int32), [""]),
    }
    write_table(folder / EXAMPLES, pa.table(columns, schema=EXAMPLE_SCHEMA))
    write_table(folder / LATENTS, _latents(n, images, rng))
    ids, domains = images.image_id.to_list(), images.domain.to_list()
    judged = []
    for latent in range(n):
        chosen = np.r_[16:36, 36:55]
        judged.append(
            [
                (row, ids[row], KEPT[kinds[at]][0], domains[row], float(acts[latent, 1, at]))
                for at, row in zip(chosen, rows[latent, 1, chosen].tolist(), strict=True)
            ]
        )
    return flat.size, judged


def _latents(n: int, images: pd.DataFrame, rng: np.random.Generator) -> pa.Table:
    rows = []
    for latent in range(n):
        rates = dict(zip(DOMAINS, (rng.random(2) ** 3 * 0.2).tolist(), strict=True))
        first = int(rng.integers(N_CLASSES - 5))
        rows.append(
            {
                "latent": latent,
                "status": "dead" if latent % 50 == 49 else "live",
                "n_active": 200,
                "frequency": float(sum(rates.values()) / 2),
                "token_frequency": float(sum(rates.values()) / 2),
                "mean_act": 1.3,
                "max_act": 3.1,
                "hist": (200 * np.exp(-np.arange(32) / 6)).astype(int).tolist(),
                "domain_rate": rates,
                "sketch_share": rates["sketch"] / sum(rates.values()),
                "class_entropy": 2.5,
                "top_classes": [
                    {"label": f"class {first + i:03d}", "n": 50 - 9 * i} for i in range(5)
                ],
                "held_out": [HeldOut(domain, 90, 2900)._asdict() for domain in DOMAINS],
            }
        )
    return pa.Table.from_pylist(rows, latent_schema(DOMAINS))


def _explanation(latent: int, label: str, judged: list[tuple[int, str, str, str, float]]) -> Any:
    return Explanation(
        latent=latent,
        label=label,
        second_label=None,
        description=f"Images in which one can see {label}, alone or among other things.",
        verdict="single",
        level="object",
        confidence=80,
        failure=None,
        lint=(),
        model="a/model",
        provider="provider",
        prompt="0" * 64,
        codes={chr(65 + i): image_id for i, (_, image_id, *_) in enumerate(judged[:16])},
        candidates=(label, "another thing"),
        calls=(f"{latent:064x}",),
        usd=0.002,
    )


def _score(
    latent: int,
    label: str,
    judged: list[tuple[int, str, str, str, float]],
    rng: np.random.Generator,
) -> Score:
    area = float(0.5 + 0.5 * rng.random())
    grades = rng.integers(0, 101, len(judged)).tolist()
    verdicts = tuple(
        Verdict(image_id, row, act > 0, act, -1, kind, domain, float(grade))
        for (row, image_id, kind, domain, act), grade in zip(judged, grades, strict=True)
    )
    nulls = tuple(
        Null(kind, "x", 0.5 + i / 50, area - 0.5 - i / 50, -0.1, 0.4)
        for i, kind in enumerate(("generic", "domain", "class", "shuffled", "word"))
    )
    return Score(
        latent=latent,
        label=label,
        model="a/judge",
        explainer="a/model",
        prompt="1" * 64,
        verdicts=verdicts,
        auroc=area,
        auroc_low=max(0.0, area - 0.1),
        auroc_high=min(1.0, area + 0.1),
        auroc_easy=area,
        auroc_hard=area,
        balanced_accuracy=0.8,
        spearman=0.4,
        n_positive=20,
        n_negative=20,
        n_missing=0,
        failure=None,
        calls=(f"{latent + 1:064x}",),
        usd=0.001,
        auroc_hard_low=max(0.0, area - 0.1),
        auroc_hard_high=min(1.0, area + 0.1),
        nulls=NullTest("free", nulls, 2000, 10),
    )


def _infos(run: Path, n_images: int, n_latents: int, n_examples: int) -> None:
    collected = CollectInfo(
        version="0",
        store="../store",
        store_identity="store",
        sae_identity="sae",
        domains=list(DOMAINS),
        grid=[],
        n_images=n_images,
        n_latents=n_latents,
        n_live=n_latents - n_latents // 50,
        n_dead=n_latents // 50,
        n_dense=0,
        n_examples=n_examples,
        exact_classes=True,
    )
    write_json(run / "collect" / "collect.json", collected)
    info = RunInfo(
        name="run",
        store="../store",
        store_identity="store",
        clip="ViT-B-32/openai",
        clip_sha="0" * 16,
        layer="projected",
        tokens="cls",
        n_images=n_images,
        n_latents=n_latents,
        k=32,
        sae_identity="sae",
        versions={},
        git_commit="",
    )
    write_json(run / "run.json", info)
