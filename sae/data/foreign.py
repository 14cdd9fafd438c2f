"""The `Layout` of foreign embeddings -> what store.json and images.parquet say of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sae.core.files import FORMAT, package_version, sha256_hex
from sae.data.formats.layout import Labels, Layout
from sae.data.store_format import ImageRow, StoreInfo
from sae.untrusted.damage import errors_in_one_line

DOMAIN = "images"
"""Of images about which nothing is known."""


def checked_fields(layout: Layout) -> dict[str, Any]:
    """The fields of `StoreInfo` by which a store knows its embeddings again."""
    return {
        "clip": layout.clip,
        "layer": layout.layer,
        "tokens": layout.tokens,
        "dtype": layout.dtype,
        "d": layout.d,
        "tokens_per_image": layout.tokens_per_image,
        "grid": layout.grid,
        "n_images": layout.n_images,
        "shard_rows": list(layout.rows),
        "shards_sha256": layout.fingerprint,
    }


def store_info(layout: Layout, image_ids: Sequence[str] = ()) -> StoreInfo:
    """store.json; `image_ids` where the images themselves are known."""
    parts = (layout.fingerprint, layout.layer, layout.tokens, layout.dtype, *image_ids)
    return StoreInfo(
        format=FORMAT,
        clip_sha="",
        n_skipped=0,
        roots={DOMAIN: ""},
        identity=sha256_hex("".join(f"{part}\n" for part in parts).encode()),
        version=package_version(),
        **checked_fields(layout),
    )


def image_rows(layout: Layout, domain: str = DOMAIN) -> list[ImageRow]:
    """Images known by their place in these files alone: `path` is the row's number."""
    labels = read_labels(layout).values or [""] * layout.n_images
    return [
        ImageRow(sha256_hex(f"{layout.fingerprint} {row}".encode()), str(row), domain, label, 0, 0)
        for row, label in enumerate(labels)
    ]


def read_labels(layout: Layout) -> Labels:
    """The images' classes. Raises `UserError` when the file that has them is damaged."""
    with errors_in_one_line(f"{layout.files[0].parent} is damaged", "; fetch it again"):
        return layout.labels()
