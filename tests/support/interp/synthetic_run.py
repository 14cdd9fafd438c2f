"""A run folder made by hand for the tests of gallery and sheets: known figures, drawn images."""

from __future__ import annotations

import dataclasses
import math
import os
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from PIL import Image, ImageDraw
from safetensors.numpy import save_file

from interp.evidence.config import EXAMPLES, LATENTS, CollectInfo
from interp.evidence.tables import EXAMPLE_SCHEMA, latent_schema, write_table
from interp.records.codec import to_json
from interp.records.split import split_of
from interp.records.types import (
    SIDES,
    Evidence,
    Example,
    Explanation,
    HeldOut,
    Kind,
    LatentStats,
    Score,
    Side,
    Status,
    Verdict,
)
from interp.run.run import RunInfo
from sae.core.files import append_jsonl, write_json
from sae.data.images import read_image
from sae.data.roots import remember
from sae.data.sources.folders import ImageFile
from sae.data.store_format import StoreInfo, shard_path

Painter = Callable[[str, str, int], Image.Image]
"""(domain, class, number) -> picture."""

CLASSES = ("wheel", "cat", "house", "leaf")


def paint(domain: str, label: str, number: int) -> Image.Image:
    """A simple distinct picture: an outline for sketches, a filled form for the others."""
    rng = random.Random(f"{domain}/{label}/{number}")
    size = rng.choice([(96, 96), (140, 90), (70, 130)])
    colour = tuple(rng.randrange(40, 220) for _ in range(3))
    sketch = domain == "sketch"
    image = Image.new("RGB", size, "white" if sketch else colour)
    box = (12, 12, size[0] - 12, size[1] - 12)
    draw = ImageDraw.Draw(image)
    fill = None if sketch else tuple(255 - c for c in colour)
    (draw.ellipse if CLASSES.index(label) % 2 else draw.rectangle)(box, fill, "black", 3)
    draw.text((18, 20), f"{label[:3]}{number}", fill="black")
    return image


def make_images(
    root: Path,
    domains: Sequence[str] = ("sketch", "photo"),
    per_class: int = 12,
    painter: Painter = paint,
    classes: Sequence[str] = CLASSES,
) -> list[tuple[str, ImageFile]]:
    """(image_id, file) of every image, written under root/<domain>/<class>/."""
    made = []
    for domain in domains:
        for label in classes:
            for number in range(per_class):
                path = root / domain / label / f"{number:03d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                painter(domain, label, number).save(path)
                made.append((read_image(path)[0], ImageFile(path, domain, label)))
    return made


def make_evidence(
    root: Path,
    images: Sequence[tuple[str, ImageFile]],
    n_latents: int = 6,
    grid: Sequence[int] = (),
    special: Mapping[int, Status] | None = None,
) -> list[Evidence]:
    """Evidence with every kind of example; `special` gives latents another status than live."""
    statuses = special or {}
    return [
        _evidence(root, images, latent, grid, statuses.get(latent, "live"))
        for latent in range(n_latents)
    ]


def _evidence(
    root: Path,
    images: Sequence[tuple[str, ImageFile]],
    latent: int,
    grid: Sequence[int],
    status: Status,
) -> Evidence:
    domains = list(dict.fromkeys(file.domain for _, file in images))
    if status == "dead":
        rates = dict.fromkeys(domains, 0.0)
        nan = math.nan
        hist: tuple[int, ...] = (0,) * 32
        return Evidence(
            LatentStats(latent, status, 0, 0.0, nan, 0.0, hist, rates, nan, nan, ()), ()
        )
    rng = random.Random(latent)
    known = list(dict.fromkeys(file.label for _, file in images))
    liked = known[latent % len(known)]
    order = sorted(
        range(len(images)), key=lambda row: (images[row][1].label != liked, rng.random())
    )
    half = min(len(images) // 4, 24)
    sides = {side: [row for row in order if split_of(images[row][0]) == side] for side in SIDES}
    examples: list[Example] = []

    def add(side: Side, kind: Kind, rank: int, stratum: int, row: int, act: float) -> None:
        image_id, file = images[row]
        path = file.path.relative_to(root / file.domain).as_posix()
        heat = _heat(grid, rng) if grid and act > 0 else None
        examples.append(
            Example(
                latent,
                side,
                kind,
                rank,
                stratum,
                row,
                image_id,
                file.domain,
                file.label,
                path,
                act,
                heat,
            )
        )

    largest = 2.0 + latent
    for side, rows in sides.items():
        active, silent = rows[:half], rows[half : half + 24]
        acts = [largest * (1 - i / (half + 1)) ** 2 for i in range(half)]
        for i, row in enumerate(active):
            add(side, "top", i, -1, row, acts[i])
            add(side, "quantile", i, 4 - 5 * i // half, row, acts[i])
        for i, row in enumerate(silent):
            add(side, "hard" if i < 8 else "silent", i, -1, row, 0.0)
    classes = tuple((name, 40 - 9 * i) for i, name in enumerate(known[latent % 2 :][:5]))
    hist = tuple(int(900 * math.exp(-i / 4)) for i in range(32))
    rates = {name: min(0.021 + 0.04 * latent, 0.9) / (1 + 2 * i) for i, name in enumerate(domains)}
    share = rates[domains[0]] / sum(rates.values())
    n = sum(hist)
    mean, entropy = largest / 3, 1.2
    stats = LatentStats(
        latent, status, n, 0.013, mean, largest, hist, rates, share, entropy, classes
    )
    return Evidence(stats, tuple(examples))


def _heat(grid: Sequence[int], rng: random.Random) -> bytes:
    y, x = rng.random() * grid[0], rng.random() * grid[1]
    far = [math.hypot(i - y, j - x) for i in range(grid[0]) for j in range(grid[1])]
    heat = [int(255 * math.exp(-((d / 1.6) ** 2))) for d in far]
    return bytes(round(255 * h / max(*heat, 1)) for h in heat)


def explanation(latent: int, label: str | None, **changes: Any) -> Explanation:
    """An explainer's answer; without a label it is a failure."""
    made = Explanation(
        latent=latent,
        label=label,
        second_label=None,
        description="" if label is None else f"Images that show {label}.",
        verdict="single",
        level="object",
        confidence=80,
        failure="refused" if label is None else None,
        lint=(),
        model="local",
        provider=None,
        prompt="",
        codes={"A": "0" * 64},
        candidates=("wheel", "ring"),
        calls=(),
        usd=0.0,
    )
    return dataclasses.replace(made, **changes)


def scored(evidence: Evidence, label: str, auroc: float = 0.9, **changes: Any) -> Score:
    """A judge's answers on the score side: active images high, some of them wrong."""
    rng = random.Random(evidence.stats.latent)
    verdicts = []
    positives = evidence.of("score", "quantile")[:20]
    negatives = evidence.of("score", "hard")[:10] + evidence.of("score", "silent")[:10]
    negatives += evidence.of("score", "weak")[:10]
    for e in positives + negatives:
        centre = 78 if e.is_positive else 34 if e.kind == "hard" else 16
        answer = None if rng.random() < 0.03 else min(100.0, max(0.0, rng.gauss(centre, 20)))
        truth = e.is_positive
        verdicts.append(
            Verdict(e.image_id, e.row, truth, e.act, e.stratum, e.kind, e.domain, answer)
        )
    made = Score(
        latent=evidence.stats.latent,
        label=label,
        model="local",
        explainer="local",
        prompt="",
        verdicts=tuple(verdicts),
        auroc=auroc,
        auroc_low=max(0.0, auroc - 0.09),
        auroc_high=min(1.0, auroc + 0.06),
        auroc_easy=min(1.0, auroc + 0.04),
        auroc_hard=max(0.0, auroc - 0.06),
        balanced_accuracy=0.83,
        spearman=0.41,
        n_positive=len(positives),
        n_negative=len(negatives),
        n_missing=sum(v.score is None for v in verdicts),
        failure=None,
        calls=(),
        usd=0.0,
    )
    return dataclasses.replace(made, **changes)


def write_run(
    run_dir: Path,
    root: Path,
    images: Sequence[tuple[str, ImageFile]],
    evidence: Sequence[Evidence],
    explanations: Sequence[Explanation] = (),
    scores: Sequence[Score] = (),
    grid: Sequence[int] = (),
) -> Path:
    """The run's files as the commands leave them, beside a store of nought embeddings."""
    store = run_dir.parent / "store"
    _write_store(store, root, images, grid)
    domains = list(dict.fromkeys(file.domain for _, file in images))
    examples = [dataclasses.asdict(e) for one in evidence for e in one.examples]
    latents = [dataclasses.asdict(one.stats) for one in evidence]
    for row in latents:
        row["top_classes"] = [{"label": label, "n": n} for label, n in row["top_classes"]]
        row["held_out"] = [one._asdict() for one in map(HeldOut._make, row["held_out"])]
    folder = run_dir / "collect"
    write_table(folder / LATENTS, pa.Table.from_pylist(latents, latent_schema(domains)))
    write_table(folder / EXAMPLES, pa.Table.from_pylist(examples, EXAMPLE_SCHEMA))
    info = CollectInfo(
        version="0",
        store="../store",
        store_identity="store",
        sae_identity="sae",
        domains=domains,
        grid=list(grid),
        n_images=len(images),
        n_latents=len(evidence),
        n_live=sum(one.stats.status == "live" for one in evidence),
        n_dead=sum(one.stats.status == "dead" for one in evidence),
        n_dense=sum(one.stats.status == "dense" for one in evidence),
        n_examples=len(examples),
        exact_classes=True,
    )
    write_json(folder / "collect.json", info)
    _write_run_info(run_dir, len(images), len(evidence))
    append_jsonl(run_dir / "explanations.jsonl", map(to_json, explanations))
    append_jsonl(run_dir / "scores.jsonl", map(to_json, scores))
    return run_dir


def _write_run_info(run_dir: Path, n_images: int, n_latents: int) -> None:
    info = RunInfo(
        name=run_dir.name,
        store="../store",
        store_identity="store",
        clip="ViT-B-32/openai",
        clip_sha="0" * 16,
        layer="projected",
        tokens="cls",
        n_images=n_images,
        n_latents=n_latents,
        k=4,
        sae_identity="sae",
        versions={},
        git_commit="",
    )
    write_json(run_dir / "run.json", info)


def _write_store(
    store: Path, root: Path, images: Sequence[tuple[str, ImageFile]], grid: Sequence[int]
) -> None:
    domains = list(dict.fromkeys(file.domain for _, file in images))
    rows = [
        (image_id, file.path.relative_to(root / file.domain).as_posix(), file.domain, file.label)
        for image_id, file in images
    ]
    store.mkdir(parents=True, exist_ok=True)
    frame = pd.DataFrame(rows, columns=["image_id", "path", "domain", "label"])
    widths, heights = zip(*(Image.open(file.path).size for _, file in images), strict=True)
    frame.assign(width=widths, height=heights).to_parquet(store / "images.parquet")
    info = StoreInfo(
        format=1,
        clip="ViT-B-32/openai",
        clip_sha="0" * 16,
        layer="9" if grid else "projected",
        tokens="patch" if grid else "cls",
        dtype="float16",
        d=8,
        tokens_per_image=math.prod(grid) if grid else 1,
        grid=list(grid),
        n_images=len(rows),
        n_skipped=0,
        shard_rows=[len(rows)],
        roots={domain: os.path.relpath(root / domain, store) for domain in domains},
        identity="store",
        version="0",
    )
    x = np.zeros((len(rows), info.tokens_per_image, info.d), dtype=np.float16)
    save_file({"x": x}, shard_path(store, 0))
    write_json(store / "store.json", info)
    remember(info)  # the images do not lie beside the store
