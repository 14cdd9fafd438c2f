"""Which files of an SAE may go to the hub and come from it, and in which form they go."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from sae.core.clip_name import without_place
from sae.core.csv_cells import UNCLEAR
from sae.core.errors import UserError, quote
from sae.core.files import FORMAT, build_strictly, parse_object, sha256_of
from sae.core.places import kind_of, refuse_place, require_sae
from sae.interchange.hub.labels import (
    LABELS_TABLE,
    SCORES_TABLE,
    LabelFigures,
    figures_of,
    labels_table,
    scores_table,
)
from sae.interchange.hub.scrub import cut_places, require_no_key
from sae.model.sae import CONFIG, SAE, WEIGHTS, SAEConfig, is_ours

CARD, REPORT, LABELS, GALLERY = "README.md", "eval.json", "labels.csv", "gallery"
MOST_BYTES = {CONFIG: 1 << 20, CARD: 1 << 22, REPORT: 1 << 24, LABELS: 1 << 28}
"""The largest of each that is taken from a repository."""
MOST_GALLERY_FILES, MOST_GALLERY_BYTES = 10_000, 100 << 20

_INDEX = f"{GALLERY}/data/index.js"
ITEMS = (CONFIG, WEIGHTS, REPORT, CARD, LABELS)
_TEXTS = (".json", ".md", ".csv", ".html", ".css", ".js")
_IN_GALLERY = re.compile(
    r"gallery(?!/local\.js$)(/[A-Za-z0-9_][\w.-]*)+\.(html|css|js|webp|png|jpg)"
)
"""All but local.js, which says where the images lie on this machine."""


class Item(NamedTuple):
    """A file that goes up."""

    name: str
    """Where it will lie in the repository."""
    content: Path | bytes

    @property
    def n_bytes(self) -> int:
        here = self.content
        return len(here) if isinstance(here, bytes) else here.stat().st_size


@dataclass(frozen=True)
class Parcel:
    """What of an SAE goes up, without its card."""

    config: SAEConfig
    """As it is published: without this machine's folders."""
    scale: float | None
    """What embeddings are divided by inside the SAE; None when it neither centres nor scales."""
    figures: Mapping[str, float]
    """Those of eval.json; {} without one."""
    n_labels: int | None
    """Latents that have a label; None without labels.csv."""
    items: tuple[Item, ...]
    notes: tuple[str, ...]
    """What was cut or left out, and why."""
    labels: LabelFigures | None = None
    """What is said of the labels as a whole, where they go up as tables too."""


def is_publishable(name: str) -> bool:
    """Whether a file of this name belongs to a published SAE."""
    return name in (*ITEMS, LABELS_TABLE, SCORES_TABLE) or _IN_GALLERY.fullmatch(name) is not None


def pack(folder: Path, run: Path | None = None, tables: bool = False) -> Parcel:
    """Choose and clean the files of an SAE's folder, and labels and gallery of a run.

    With `tables` labels and scores of the run go up as parquet too, and the card tells of them.
    Raises `UserError` when the SAE cannot be loaded, the run is of another SAE, or a file holds
    an access key.
    """
    require_sae(folder)
    if not is_ours(folder):
        raise UserError(
            f"{folder} is no SAE of ours; `sae import {quote(folder)} --out DIR` makes it one"
        )
    model = SAE.load(folder)
    items, notes = [_config(folder), Item(WEIGHTS, folder / WEIGHTS)], list[str]()
    if (folder / REPORT).exists():
        items.append(Item(REPORT, folder / REPORT))
    labels = _labels(folder, run)
    if labels is not None:
        items.append(Item(LABELS, labels))
    if run is not None:
        items += _gallery(run, notes)
    items, said = clean_texts(items, notes), None
    if run is not None and tables:
        cleaned = next(_bytes(item) for item in items if item.name == LABELS)
        items.append(Item(LABELS_TABLE, labels_table(cleaned)))
        scores, said = scores_table(run), figures_of(cleaned, run)
        items += [] if scores is None else [Item(SCORES_TABLE, scores)]
    _require_clean_header(folder / WEIGHTS)
    centred = bool(model.mean.any()) or float(model.scale) != 1
    return Parcel(
        config=build_strictly(SAEConfig, parse_object(_bytes(items[0]), CONFIG), CONFIG),
        scale=float(model.scale) if centred else None,
        figures=_figures(folder / REPORT),
        n_labels=None if labels is None else _n_labels(labels),
        items=tuple(items),
        notes=tuple(notes),
        labels=said,
    )


def _config(folder: Path) -> Item:
    """config.json as `SAE.save` writes it; a CLIP from a folder keeps only that folder's name."""
    values = parse_object((folder / CONFIG).read_bytes(), str(folder / CONFIG))
    values["clip"] = without_place(build_strictly(SAEConfig, values, str(folder / CONFIG)).clip)
    return Item(CONFIG, (json.dumps(values, indent=1, allow_nan=False) + "\n").encode())


def _labels(folder: Path, run: Path | None) -> Path | None:
    """labels.csv of the run, else of the SAE's own folder."""
    if run is None:
        return folder / LABELS if (folder / LABELS).exists() else None
    _require_same_sae(folder, run)
    if not (run / LABELS).exists():
        if kind_of(run) != "run":
            raise refuse_place(run, "run")
        raise UserError(f"{run} has no {LABELS}; `interp cards --run {quote(run)}` writes it")
    return run / LABELS


def _require_same_sae(folder: Path, run: Path) -> None:
    own = run / "sae" / WEIGHTS
    if own.exists() and sha256_of(own) != sha256_of(folder / WEIGHTS):
        raise UserError(
            f"{run} is the run of another SAE: its labels are not those of {folder}; "
            f"push {run / 'sae'}, or name the run that was collected with {folder}"
        )


def _gallery(run: Path, notes: list[str]) -> list[Item]:
    if not (run / GALLERY / "index.html").exists():
        notes.append(f"no gallery in {run.name}; `interp cards` makes one")
        return []
    kept = gallery_items(run, notes)
    n_bytes = sum(item.n_bytes for item in kept)
    if len(kept) > MOST_GALLERY_FILES or n_bytes > MOST_GALLERY_BYTES:
        notes.append(
            f"the gallery stays here: {len(kept):,} files of {n_bytes / 1e6:,.0f} MB are more than "
            f"{MOST_GALLERY_FILES:,} or {MOST_GALLERY_BYTES / 1e6:,.0f} MB"
        )
        return []
    return kept


def gallery_items(run: Path, notes: list[str]) -> list[Item]:
    """The files of a run's gallery that may leave this machine, as they are; it no longer says that
    the images lie here."""
    found = sorted(p for p in (run / GALLERY).rglob("*") if p.is_file() and not p.is_symlink())
    items = [Item(path.relative_to(run).as_posix(), path) for path in found]
    kept = [item for item in items if is_publishable(item.name)]
    if len(kept) < len(items):
        notes.append(f"{len(items) - len(kept)} files of the gallery are of no kind that goes up")
    return [_without_originals(item) if item.name == _INDEX else item for item in kept]


def _without_originals(index: Item) -> Item:
    data = _bytes(index).replace(b'"has_originals":true', b'"has_originals":false', 1)
    return index if data == _bytes(index) else index._replace(content=data)


def clean_texts(items: Sequence[Item], notes: list[str]) -> list[Item]:
    """The text files without keys and places; others, and texts that need no change, as they are.

    Raises `UserError` for a key.
    """
    cleaned, cuts = [], dict[str, int]()
    for item in items:
        if Path(item.name).suffix not in _TEXTS:
            cleaned.append(item)
            continue
        # What is no UTF-8 passes through, byte for byte.
        text = _bytes(item).decode("utf-8", "surrogateescape")
        require_no_key(text, item.name)
        scrubbed = cut_places(text)
        if scrubbed.text != text:
            item = item._replace(content=scrubbed.text.encode("utf-8", "surrogateescape"))
            where = item.name.partition("/")[0]
            cuts[where] = cuts.get(where, 0) + scrubbed.n_places
        cleaned.append(item)
    for where, n in cuts.items():
        notes.append(f"{where}: {n} paths of this machine cut to their last part")
    return cleaned


def _require_clean_header(weights: Path) -> None:
    with weights.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = file.read(min(length, 1 << 24)).decode("utf-8", "replace")
    require_no_key(header, weights.name)
    if cut_places(header).n_places:
        raise UserError(
            f"the header of {weights} names a folder of this machine; load the SAE and save it "
            "again with `sae.load(DIR).save(DIR)`"
        )


def _figures(report: Path) -> dict[str, float]:
    """The numbers of eval.json. Raises `UserError` for one of an unknown format."""
    if not report.exists():
        return {}
    values = parse_object(report.read_bytes(), str(report))
    if values.get("format") != FORMAT:
        raise UserError(f"{report} is not of format {FORMAT}; run `sae eval` again")
    numbers = {k: v for k, v in values.items() if type(v) in (int, float) and k != "format"}
    return {name: value for name, value in numbers.items() if math.isfinite(value)}


def _n_labels(labels: Path) -> int:
    with labels.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        return sum(
            bool(row.get("interpretation")) and row.get("verdict") != UNCLEAR for row in rows
        )


def _bytes(item: Item) -> bytes:
    return item.content if isinstance(item.content, bytes) else item.content.read_bytes()
