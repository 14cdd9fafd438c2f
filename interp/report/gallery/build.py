"""A run folder -> results/<run>/gallery/: a page, a columnar index, shards of cards, thumbnails.

`fetch` is blocked on file://, so data files are scripts that call one global: `G.index(columns)`
and `G.shard(k, cards)`. The page loads the index first, and the rest when it is asked for.
"""

from __future__ import annotations

import dataclasses
import gc
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.evidence.bad_images import report_bad_images
from interp.report.changes.files import read_changes
from interp.report.gallery.index import make_index, make_meta, transfer_column
from interp.report.gallery.map import FILE, find_places, page_map, write_map
from interp.report.gallery.overview import make_overview
from interp.report.gallery.provenance import ReadCalls
from interp.report.gallery.related import Related, find_related
from interp.report.gallery.reviews import review_columns
from interp.report.gallery.script import write_call
from interp.report.gallery.shards import Known, write_shards
from interp.report.gallery.thumbs import Thumbs
from interp.report.nulls.controls import supports_of
from interp.report.nulls.run_nulls import RunNulls
from interp.report.task_words import test_words
from interp.run.decoder import read_decoder
from interp.run.run import Run
from interp.run.transfer_file import read_transfer
from sae.core.errors import UserError, quote
from sae.core.files import replacing_folder
from sae.core.progress import Progress

if TYPE_CHECKING:
    from interp.evidence.reader import EvidenceReader

PAGE = tuple(
    path
    for path in sorted(Path(__file__).with_name("page").rglob("*"))
    if path.suffix in (".html", ".css", ".js")
)
"""The page, the same for every run; in a gallery all of it lies in one folder."""

CHANGED = (
    "before",
    "after",
    "n_before",
    "n_after",
    "n_tested",
    "n_rise",
    "n_fall",
    "least",
    "in_classes",
)
"""Of compare.json, what the overview tells."""


def build_gallery(
    run: Run,
    progress: Progress | None = None,
    read_calls: ReadCalls | None = None,
    words: Mapping[str, Sequence[int]] | None = None,
) -> Path:
    """Write the run's gallery anew and return its index.html; the folder is complete or absent.

    Thumbnails and map of an earlier gallery are reused. Equal inputs give equal bytes. `read_calls`
    gives the prompts and replies behind labels and scores; without it cards leave them out. `words`
    are the latents that each word means, best first, for the search. Raises `UserError` with exit
    code 4, the gallery written, when over 1% of its images are not as they were embedded.
    """
    with _without_collection():
        return _build(run, progress, read_calls, words)


@contextmanager
def _without_collection() -> Iterator[None]:
    """While records are made Python looks for cycles among all of them again and again, an eighth
    of the time of a large run; ours have none, and are let go without it."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _build(
    run: Run,
    progress: Progress | None,
    read_calls: ReadCalls | None,
    words: Mapping[str, Sequence[int]] | None,
) -> Path:
    reader = run.evidence
    target = run.path / "gallery"
    classes = _classes(reader, run.path / "classes")
    alive = np.array([status != "dead" for status in reader.status], bool)
    decoder = read_decoder(run)
    places = find_places(decoder, alive, target / FILE, reader.info.sae_identity)
    known = _read_known(run, find_related(reader, decoder, _labels(run)))
    del decoder
    # An interrupted build leaves whole thumbnails behind: they are used again.
    with replacing_folder(target, resume=True) as folder:
        shutil.rmtree(folder / "data", ignore_errors=True)
        (folder / "data").mkdir()
        thumbs = Thumbs(reader, folder, earlier=target)
        rows = write_shards(run, known, thumbs, folder / "data", progress, read_calls)
        meta = make_meta(reader, run.path.resolve().name)
        meta["has_calls"] = any((folder / "data").glob("p*.js"))
        meta["has_originals"] = _write_originals(reader, folder, target)
        has_tokens = meta["tokens"] != "cls" and meta["pool"] != "cls"
        columns = make_index(rows, has_tokens) | classes | review_columns(run, known.supports)
        columns |= {"overview": make_overview(run, known.nulls), "has_map": places is not None}
        columns |= {"has_words": True} if words else {}
        columns |= _changes(run)
        if known.crossed:
            kinds = {latent: one.kind for latent, one in known.crossed.items()}
            columns["transfer"] = transfer_column(kinds, len(rows))
        write_call(folder / "data" / "index.js", "index", {"meta": meta, **columns})
        write_call(folder / "data" / "text.js", "texts", [row["description"] for row in rows])
        if words:
            meant = {"words": list(words), "of": [list(latents) for latents in words.values()]}
            write_call(folder / "data" / "words.js", "words", meant)
        if places is not None:
            write_call(folder / "data" / "map.js", "map", page_map(places))
            write_map(folder, places, rows, reader.info.sae_identity)
        thumbs.prune()
        for path in PAGE:
            shutil.copyfile(path, folder / path.name)
    done = f"they are marked as missing in {target / 'index.html'}"
    report_bad_images(reader, done, thumbs.there | thumbs.missing)
    return target / "index.html"


def _read_known(run: Run, related: Related) -> Known:
    results = run.results
    crossed = read_transfer(run.path)
    verdicts = results.read_verdicts()  # first: what else is told of scores comes of this reading
    words = test_words(results)
    return Known(verdicts, supports_of(results), crossed, words, RunNulls(run), related)


def _labels(run: Run) -> dict[int, str | None]:
    return {latent: said.label for latent, said in run.results.newest_explanations().items()}


def _changes(run: Run) -> dict[str, Any]:
    """What was compared with the run, and what rises and falls most clearly."""
    found = read_changes(run.path)
    if found is None:
        return {}
    values = dataclasses.asdict(found)
    shown = [list(one) for one in found.shown if 0 <= one.latent < run.evidence.info.n_latents]
    return {"changes": {name: values[name] for name in CHANGED} | {"shown": shown}}


def _classes(reader: EvidenceReader, folder: Path) -> dict[str, Any]:
    """The latents of each class in their order, where `sae classes` has written into the run.

    Raises `UserError` where it was for another SAE.
    """
    if not folder.exists():
        return {}
    from sae.data.classes.latents import read_info, read_table

    info = read_info(folder)
    if info.sae_identity != reader.info.sae_identity:
        sae = f"{quote(folder.parent / 'sae')} {quote(reader.store.path)}"
        raise UserError(
            f"{folder} is of another SAE than the run; run "
            f"`sae classes {sae} --out {quote(folder)}`, or move it away"
        )
    listed = read_table(folder, info).sort_values("rank").groupby("class")["latent"].agg(list)
    return {
        "classes": {"names": info.names, "latents": [listed.get(name, []) for name in info.names]}
    }


def _write_originals(reader: EvidenceReader, folder: Path, target: Path) -> bool:
    """local.js: where the originals lie, seen from the gallery; whether it was written. It is true
    on this machine alone, so it is a file of its own, which is not handed over with the rest."""
    store = reader.store
    roots = {}
    for domain, root in store.info.roots.items():
        place = os.path.normpath(store.path.resolve() / root)
        if root and os.path.isdir(place):
            roots[domain] = Path(os.path.relpath(place, target.resolve())).as_posix()
    if roots:
        write_call(folder / "local.js", "local", roots)
    return bool(roots)
