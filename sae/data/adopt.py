"""A folder of other labs' embeddings -> a small store that points to them: nothing is copied.

Four kinds: saev's activation shards, embedding chunks, clip-retrieval's arrays, dense latents. A
folder of them is a store to every command, as `FOLDER` or `FOLDER@10,cls` (layer and tokens);
`adopt` writes a small store that points to them, and knows which images they are of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sae.core.errors import UserError
from sae.core.files import replacing_folder, sha256_hex, write_json
from sae.core.output import is_new, require_own
from sae.core.places import kind_of, refuse_place
from sae.core.progress import Progress
from sae.data import foreign
from sae.data.formats import image_folder, saev
from sae.data.formats.find import FORMATS, find_layout, split_choice
from sae.data.formats.ids import Ids, is_content_id, read_ids
from sae.data.formats.layout import Choice, Layout
from sae.data.roots import remember, require_inside
from sae.data.store import EmbeddingStore
from sae.data.store_format import ImageRow, StoreInfo
from sae.data.store_writer import relative_roots, row_frame, write_rows
from sae.untrusted.json_file import json_object


def adopt(
    source: Path | str,
    out: Path | str,
    choice: Choice | None = None,
    images: Path | str | None = None,
    domain: str = foreign.DOMAIN,
    progress: Progress | None = None,
    ids: Path | str | None = None,
) -> EmbeddingStore:
    """Write a store to `out` that points to foreign embeddings: store.json and images.parquet.

    `images` is the folder they were made of, in torchvision's order where they do not name their
    images; its files are read once, for
    the hash of their content. Without it an image is known by its place alone. `ids` is a table of
    what the image of each vector is called: its file in `images`, or without these whatever tells
    it from others; where that is the hash of its content, as `sae embed` knows it. Raises
    `UserError` when the numbers of images or their classes differ, or `out` holds another store.
    """
    place, suffix = split_choice(Path(source))
    choice = Choice(*(a or b for a, b in zip(choice or Choice(), suffix, strict=True)))
    out, layout = Path(out), find_layout(place, choice)
    if layout is None and kind_of(place) not in ("file", "other"):
        raise refuse_place(place, "embeddings")
    if layout is None:
        raise UserError(
            f"{source} is none of {', '.join(form.NAME for form in FORMATS)}; "
            "see `sae embed` for images"
        )
    named = None if ids is None else _read_ids(layout, Path(ids))
    if images is not None:
        rows = _rows_of_folder(layout, images, domain, progress, named)
    elif named is not None:
        require_inside(named.names, Path(str(ids)))
        rows = _rows_of_ids(layout, named, domain)
    else:
        rows = foreign.image_rows(layout, domain)
    relative = relative_roots({"": place} | ({domain: Path(images)} if images else {}), out)
    info = replace(
        foreign.store_info(layout, [row.image_id for row in rows] if images or named else []),
        shards=relative.pop(""),
        roots=relative or {domain: ""},
    )
    _write(out, info, rows)
    return EmbeddingStore(out, info, layout)


def _read_ids(layout: Layout, file: Path) -> Ids:
    """Of the vectors of a layout that does not name its images itself."""
    if layout.paths is not None:
        raise UserError(f"{layout.form} say themselves whose they are; leave --ids out")
    return read_ids(file, layout.n_images)


def _rows_of_ids(layout: Layout, named: Ids, domain: str) -> list[ImageRow]:
    """Images known by the hash of their content where that is the id, else by the id."""
    labels = named.labels or foreign.read_labels(layout).values or [""] * layout.n_images
    return [
        ImageRow(
            name if is_content_id(name) else sha256_hex(f"{layout.fingerprint} {name}".encode()),
            name,
            domain,
            label,
            0,
            0,
        )
        for name, label in zip(named.names, labels, strict=True)
    ]


def _rows_of_folder(
    layout: Layout,
    images: Path | str,
    domain: str,
    progress: Progress | None,
    named: Ids | None,
) -> list[ImageRow]:
    """Images found in a folder; the classes that came with the embeddings must be its own."""
    root, given = Path(images), foreign.read_labels(layout)
    if named is not None:
        found = image_folder.by_name(root, named.names)
    elif layout.paths is None:
        found = image_folder.in_order(root, layout.n_images)
    else:
        found = image_folder.by_name(root, layout.paths())
    classes = [name for _, name in found]
    checkable = given.kind in ("name", "number") and any(classes) and bool(given.values)
    if checkable and not image_folder.same_classes(classes, given.values, given.kind == "number"):
        raise UserError(
            f"the classes of {root} do not follow each other as those of {layout.files[0].parent} "
            "do: it is another set of images, or was read in another order"
        )
    rows = image_folder.rows_of(root, found, domain, progress)
    if named is not None and named.labels:
        return [r._replace(label=g) for r, g in zip(rows, named.labels, strict=True)]
    if given.kind in ("name", "caption") or not any(classes):
        rows = [r._replace(label=g) for r, g in zip(rows, given.values or classes, strict=True)]
    return rows


def _write(out: Path, info: StoreInfo, rows: Sequence[ImageRow]) -> None:
    for name in ("store.json", "plan.json", saev.METADATA):
        if (out / name).exists() and not _points_to(out, info.shards_sha256):
            raise UserError(f"{out} has {name}: other embeddings are there; give another --out")
    require_own(out, "store", is_new(out, ("images.parquet", "store.json")))
    with replacing_folder(out) as part:
        write_rows(part / "images.parquet", row_frame(rows))
        write_json(part / "store.json", info)
    remember(info)


def _points_to(out: Path, fingerprint: str) -> bool:
    """Whether `out` is an adopted store of the same embeddings: it may be written again."""
    if not (out / "store.json").exists():
        return False
    return json_object(out / "store.json").get("shards_sha256") == fingerprint
