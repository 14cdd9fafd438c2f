"""A run folder -> results/<run>/gallery/: a page, a columnar index, shards of cards, thumbnails.

`fetch` is blocked on file://, so data files are scripts that call one global: `G.index(columns)`
and `G.shard(k, cards)`. The page loads the index first, and the rest when it is asked for.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from interp.evidence.bad_images import report_bad_images
from interp.records.effect import CausalEffect
from interp.records.support import Support
from interp.records.transfer import Transfer
from interp.records.types import Evidence, Example, Explanation, Score
from interp.report.changes.files import read_changes
from interp.report.gallery.cards import More, find_shown, frame_box, image_row, make_facts
from interp.report.gallery.index import (
    SHARD_CARDS,
    Row,
    make_index,
    make_meta,
    make_row,
    transfer_column,
)
from interp.report.gallery.map import FILE, find_places, page_map, write_map
from interp.report.gallery.nulls import RunNulls
from interp.report.gallery.overview import make_overview
from interp.report.gallery.provenance import ReadCalls, make_provenance
from interp.report.gallery.related import Related, find_related
from interp.report.gallery.reviews import review_columns
from interp.report.gallery.thumbs import Thumbs
from interp.report.nulls.controls import supports_of
from interp.report.task_words import test_words
from interp.run.decoder import read_decoder
from interp.run.run import Run
from interp.run.transfer_file import read_transfer
from sae.core.clip_name import without_place
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


class Known(NamedTuple):
    """What the run's files say of all its latents, read before the first card is made."""

    supports: Mapping[int, Support]
    crossed: Mapping[int, Transfer]
    words: Mapping[int, list[str]]
    nulls: RunNulls
    related: Related


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
        rows = _write_shards(run, known, thumbs, folder / "data", progress, read_calls)
        meta = make_meta(reader, run.path.resolve().name)
        meta["has_calls"] = any((folder / "data").glob("p*.js"))
        meta["has_originals"] = _write_originals(reader, folder, target)
        has_tokens = meta["tokens"] != "cls" and meta["pool"] != "cls"
        columns = make_index(rows, has_tokens) | classes | review_columns(run)
        columns |= {"overview": make_overview(run, known.nulls), "has_map": places is not None}
        columns |= {"has_words": True} if words else {}
        columns |= _changes(run)
        if known.crossed:
            kinds = {latent: one.kind for latent, one in known.crossed.items()}
            columns["transfer"] = transfer_column(kinds, len(rows))
        _write_call(folder / "data" / "index.js", "index", {"meta": meta, **columns})
        _write_call(folder / "data" / "text.js", "texts", [row["description"] for row in rows])
        if words:
            meant = {"words": list(words), "of": [list(latents) for latents in words.values()]}
            _write_call(folder / "data" / "words.js", "words", meant)
        if places is not None:
            _write_call(folder / "data" / "map.js", "map", page_map(places))
            write_map(folder, places, rows, reader.info.sae_identity)
        thumbs.prune()
        for path in PAGE:
            shutil.copyfile(path, folder / path.name)
    done = f"they are marked as missing in {target / 'index.html'}"
    report_bad_images(reader, done, thumbs.there | thumbs.missing)
    return target / "index.html"


def script_json(value: Any) -> str:
    """JSON that is safe inside a script of any kind: ASCII only, without <, > and &."""
    return _escape(_to_text(value))


_to_text = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


def _escape(text: str) -> str:
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _write_call(path: Path, function: str, *values: Any) -> None:
    _write_text(path, f"G.{function}({','.join(map(script_json, values))});")


def _write_text(path: Path, text: str) -> None:
    path.write_text(text + "\n", encoding="ascii")


def _read_known(run: Run, related: Related) -> Known:
    results = run.results
    crossed = read_transfer(run.path)
    return Known(supports_of(results), crossed, test_words(results), RunNulls(run), related)


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


def _write_shards(
    run: Run,
    known: Known,
    thumbs: Thumbs,
    folder: Path,
    progress: Progress | None,
    read_calls: ReadCalls | None,
) -> list[Row]:
    """Write every shard of cards and of the calls behind them; returns the rows of the index."""
    reader, results = run.evidence, run.results
    domains, n_latents = list(reader.store.domains), reader.info.n_latents
    clip = without_place(reader.store.info.clip)
    rows: list[Row] = []
    images = _ImageTexts(domains, thumbs.missing)
    for start in range(0, n_latents, SHARD_CARDS):
        latents = range(start, min(start + SHARD_CARDS, n_latents))
        found = [
            (reader.of(n), results.explanation(n), results.score_with_verdicts(n)) for n in latents
        ]
        shown = [find_shown(one, score, domains) for one, _, score in found]
        examples = [example for of in shown for example in of.images.values()]
        thumbs.ensure(examples)
        boxes = _boxes(reader, examples, thumbs)
        cards = [
            images.add(
                make_facts(*one, domains, of, clip, _more(known, results.effect(n), n, one)),
                of.images,
                boxes,
            )
            for n, one, of in zip(latents, found, shown, strict=True)
        ]
        k = start // SHARD_CARDS
        _write_text(folder / f"c{k:04d}.js", f"G.shard({k},[{_escape(','.join(cards))}]);")
        calls = read_calls and make_provenance(
            [(said, score) for _, said, score in found], read_calls
        )
        if calls:
            _write_call(folder / f"p{k:04d}.js", "calls", k, calls)
        for n, (evidence, said, score) in zip(latents, found, strict=True):
            support = known.supports.get(n)
            row = make_row(evidence, said, score, thumbs.there)
            rows.append(row | {"supported": support.state if support else None})
        if progress:
            progress(start + len(latents), n_latents)
    return rows


class _ImageTexts:
    """Cards as text, each with the list of its images, which are most of it: of each image it is
    made once."""

    def __init__(self, domains: Sequence[str], missing: Set[str]) -> None:
        self._domains, self._missing = domains, missing
        self._known: dict[tuple[str, str, str, str, bool], str] = {}

    def add(
        self,
        facts: Mapping[str, Any],
        images: Mapping[str, Example],
        boxes: Mapping[str, Sequence[float]],
    ) -> str:
        """The JSON of a card."""
        texts = ",".join(self._of(one, boxes.get(one.image_id)) for one in images.values())
        return f'{_to_text(facts)[:-1]},"images":[{texts}]}}'

    def _of(self, one: Example, box: Sequence[float] | None) -> str:
        key = (one.image_id, one.domain, one.label, one.path, box is None)
        text = self._known.get(key)
        if text is None:
            row = image_row(one, self._domains, one.image_id not in self._missing, box)
            text = self._known[key] = _to_text(row)
        return text


def _more(
    known: Known,
    effect: CausalEffect | None,
    latent: int,
    found: tuple[Evidence, Explanation | None, Score | None],
) -> More:
    return {
        "effect": effect,
        "support": known.supports.get(latent),
        "crossed": known.crossed.get(latent),
        "tasks": known.words.get(latent, []),
        "nulls": known.nulls.of(found[2]),
        "related": known.related.of(latent),
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
        _write_call(folder / "local.js", "local", roots)
    return bool(roots)


def _boxes(
    reader: EvidenceReader, shown: Iterable[Example], thumbs: Thumbs
) -> dict[str, list[float]]:
    """By image id: where the patches lie in its frame, of images that are there and have a map."""
    if not reader.info.grid:
        return {}
    return {
        example.image_id: frame_box(reader.size(example), heat)
        for example in shown
        if example.image_id in thumbs.there and (heat := reader.heat(example)) is not None
    }
