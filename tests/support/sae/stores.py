"""Small stores for tests, written by the store's own writer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from sae.core.files import sha256_hex
from sae.data.store import EmbeddingStore
from sae.data.store_format import ImageRow
from sae.data.store_writer import Plan, StoreWriter


def image_ids(n: int) -> list[str]:
    return [sha256_hex(f"image {number}".encode()) for number in range(n)]


def write_store(
    path: Path,
    x: Tensor,  # (images, t, d)
    *,
    dtype: str = "float32",
    domains: Sequence[str] = (),
    labels: Sequence[str] = (),
    paths: Sequence[str] = (),
    ids: Sequence[str] = (),
    roots: Mapping[str, str] | None = None,
    clip_sha: str = "0" * 16,
    layer: str = "projected",
    tokens: str = "",
) -> EmbeddingStore:
    n, t, d = x.shape
    domains = domains or ["photo"] * n
    plan = Plan(
        clip="fake",
        clip_sha=clip_sha,
        layer=layer,
        tokens=tokens or ("cls" if t == 1 else "patch"),
        dtype=dtype,
        d=d,
        tokens_per_image=t,
        grid=[] if t == 1 else [1, t],
        shard_images=max(1, -(-n // 3)),
        n_files=n,
        files="digest of the files",
        roots=dict(roots or {domain: f"../{domain}" for domain in dict.fromkeys(domains)}),
    )
    names = ids or image_ids(n)
    writer = StoreWriter(path, plan)
    rows = [
        ImageRow(
            image_id=names[i],
            path=paths[i] if paths else f"{i}.png",
            domain=domains[i],
            label=labels[i] if labels else "",
            width=8,
            height=8,
        )
        for i in range(n)
    ]
    for shard in range(plan.n_shards):
        span = plan.span(shard)
        writer.write_shard(x[span.start : span.stop], rows[span.start : span.stop], [])
    writer.finish()
    return EmbeddingStore.open(path)


def oracle(
    n: int, d: int, n_concepts: int, n_active: tuple[int, int] = (3, 6), seed: int = 0
) -> tuple[Tensor, Tensor]:
    """x (n, d): unit sums of a few of the unit directions (n_concepts, d), which come back too."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(n_concepts, d, generator=generator)
    directions /= directions.norm(dim=1, keepdim=True)
    low, high = n_active
    wanted = torch.randint(low, high + 1, (n, 1), generator=generator)
    rank = torch.rand(n, n_concepts, generator=generator).argsort(1).argsort(1)
    strength = 0.5 + torch.rand(n, n_concepts, generator=generator)
    x = ((rank < wanted) * strength) @ directions
    return x / x.norm(dim=1, keepdim=True), directions
