"""A run folder -> results/<run>/gallery/: a page, a columnar index, shards of cards, thumbnails.

`fetch` is blocked on file://, so data files are scripts that call one global: `G.index(columns)`
and `G.shard(k, cards)`. The page loads the index first, and a shard when one of its cards is shown.
"""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.evidence.bad_images import report_bad_images
from interp.records.transfer import Transfer
from interp.records.types import Evidence, Example, Explanation, Score
from interp.records.wording import hash_label, interpretation
from interp.report.controls import supports_of
from interp.report.figures import number
from interp.report.gallery.cards import collect_images, frame_box, is_stale, make_card
from interp.report.gallery.reviews import review_columns
from interp.report.gallery.thumbs import Thumbs
from interp.report.task_words import test_words
from interp.run.results import Results
from interp.run.run import Run
from interp.run.transfer_file import read_transfer
from sae.core.csv_cells import UNCLEAR
from sae.core.errors import UserError, quote
from sae.core.files import replacing_folder, without_place
from sae.core.progress import Progress
from sae.data.classes.latents import read_info, read_table

if TYPE_CHECKING:
    from interp.evidence.reader import EvidenceReader

SHARD_CARDS = 64
PAGE = tuple(
    path
    for path in sorted(Path(__file__).with_name("page").rglob("*"))
    if path.suffix in (".html", ".css", ".js")
)
"""The page, the same for every run; in a gallery all of it lies in one folder."""


def build_gallery(run: Run, progress: Progress | None = None) -> Path:
    """Write the run's gallery anew and return its index.html; the folder is complete or absent.

    Thumbnails of an earlier gallery are reused. Equal inputs give equal bytes. Raises `UserError`
    with exit code 4, the gallery written, when over 1% of its images are not as they were embedded.
    """
    reader, results = run.evidence, run.results
    target = run.path / "gallery"
    classes = _classes(reader, run.path / "classes")
    # An interrupted build leaves whole thumbnails behind: they are used again.
    with replacing_folder(target, resume=True) as folder:
        shutil.rmtree(folder / "data", ignore_errors=True)
        (folder / "data").mkdir()
        thumbs = Thumbs(reader, folder, earlier=target)
        crossed = read_transfer(run.path)
        columns = _write_shards(reader, results, crossed, thumbs, folder / "data", progress)
        index = {"meta": _meta(reader, run.path), **columns, **classes, **review_columns(run)}
        if crossed:
            kinds = {latent: one.kind for latent, one in crossed.items()}
            index["transfer"] = [kinds.get(latent) for latent in range(len(reader.latents))]
        call = f"G.index({script_json(index)});\n"
        (folder / "data" / "index.js").write_text(call, encoding="ascii")
        thumbs.prune()
        for path in PAGE:
            shutil.copyfile(path, folder / path.name)
    done = f"they are marked as missing in {target / 'index.html'}"
    report_bad_images(reader, done, thumbs.there | thumbs.missing)
    return target / "index.html"


def script_json(value: Any) -> str:
    """JSON that is safe inside a script of any kind: ASCII only, without <, > and &."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _meta(reader: EvidenceReader, run_dir: Path) -> dict[str, Any]:
    info = reader.store.info
    domains = list(reader.store.domains)
    return {
        "run": run_dir.resolve().name,
        "clip": without_place(info.clip),
        "layer": info.layer,
        "tokens": info.tokens,
        "pool": reader.info.pool,
        "dense_by": reader.info.dense_by,
        "grid": list(info.grid),
        "n_images": info.n_images,
        "domains": domains,
        # As in LatentStats.sketch_share.
        "share_of": "sketch" if "sketch" in domains else domains[0],
        "shard_cards": SHARD_CARDS,
    }


def _classes(reader: EvidenceReader, folder: Path) -> dict[str, Any]:
    """The latents of each class in their order, where `sae classes` has written into the run.

    Raises `UserError` where it was for another SAE.
    """
    if not folder.exists():
        return {}
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
    reader: EvidenceReader,
    results: Results,
    crossed: Mapping[int, Transfer],
    thumbs: Thumbs,
    folder: Path,
    progress: Progress | None,
) -> dict[str, list[Any]]:
    """Write every shard; returns the index's columns by latent, of `shares` one for each domain."""
    domains, clip = list(reader.store.domains), without_place(reader.store.info.clip)
    n_latents, supports = len(reader.latents), supports_of(results)
    words = test_words(results)
    rows: list[dict[str, Any]] = []
    for start in range(0, n_latents, SHARD_CARDS):
        latents = range(start, min(start + SHARD_CARDS, n_latents))
        known = [
            (reader.of(latent), results.explanation(latent), results.score_with_verdicts(latent))
            for latent in latents
        ]
        more = [(results.effect(n), supports.get(n), crossed.get(n)) for n in latents]
        shown = [
            example
            for one, _, score in known
            for example in collect_images(one, score, domains).values()
        ]
        thumbs.ensure(shown)
        gone, boxes = frozenset(thumbs.missing), _boxes(reader, shown, thumbs)
        cards = [
            make_card(*one, domains, gone, clip, boxes, *other)
            | {"tasks": words.get(latent, []), "label_hash": hash_label(one[1])}
            for latent, one, other in zip(latents, known, more, strict=True)
        ]
        k = start // SHARD_CARDS
        text = f"G.shard({k},{script_json(cards)});\n"
        (folder / f"c{k:04d}.js").write_text(text, encoding="ascii")
        rows += [
            {
                **_row(*one, thumbs),
                "supported": supports[latent].state if latent in supports else None,
            }
            for latent, one in zip(latents, known, strict=True)
        ]
        if progress:
            progress(start + len(latents), n_latents)
    columns = {name: [row[name] for row in rows] for name in _COLUMNS}
    by_domain = zip(*columns["shares"], strict=True) if rows else [()] * len(domains)
    return {**columns, "shares": [list(column) for column in by_domain]}


def _boxes(
    reader: EvidenceReader, shown: Iterable[Example], thumbs: Thumbs
) -> dict[str, list[float]]:
    """By image id: where the patches lie in its frame, of images that are there and have a map."""
    return {
        example.image_id: frame_box(reader.size(example), heat)
        for example in shown
        if example.image_id in thumbs.there and (heat := reader.heat(example)) is not None
    }


_COLUMNS = (
    *("label", "state", "status", "score", "low", "high", "supported"),
    *("frequency", "token_frequency", "shares", "thumb"),
)


def _row(
    evidence: Evidence, said: Explanation | None, score: Score | None, thumbs: Thumbs
) -> dict[str, Any]:
    """What the list shows, sorts and searches by; None where there is nothing."""
    stats = evidence.stats
    if score and is_stale(score, said):
        score = None
    tops = [e for e in evidence.of("explain", "top") if e.image_id in thumbs.there]
    return {
        "label": interpretation(said) or None,
        "state": _state(said),
        "status": stats.status,
        "score": number(score.auroc) if score else None,
        "low": number(score.auroc_low) if score else None,
        "high": number(score.auroc_high) if score else None,
        "frequency": number(stats.frequency, 3),
        "token_frequency": number(stats.token_frequency, 3),
        "shares": [number(share, 3) for share in stats.domain_share.values()],
        # 43 signs instead of 64: the index is read as a whole.
        "thumb": _base64(tops[0].image_id) if tops else None,
    }


def _state(said: Explanation | None) -> str:
    if said is None:
        return "unlabelled"
    if said.failure:
        return "failed"
    return UNCLEAR if said.verdict == UNCLEAR else "labelled"


def _base64(image_id: str) -> str:
    return base64.b64encode(bytes.fromhex(image_id)).decode("ascii").rstrip("=")
