"""A run -> data/index.js and data/text.js: what the list shows, sorts, filters and searches by.

Columns are kept small, since the index is read as a whole: one of few words is a digit a latent,
AUROCs are whole ten-thousandths, an image's id stands once however many latents show it.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any

from interp.records.types import Explanation, LatentStats, Score
from interp.records.wording import interpretation
from interp.report.figures import number
from interp.report.gallery.cards import is_stale
from sae.core.clip_name import without_place
from sae.core.csv_cells import UNCLEAR

if TYPE_CHECKING:
    from interp.evidence.reader import EvidenceReader

SHARD_CARDS = 64
N_CLASSES = 3
"""Classes kept of each latent, most frequent first."""
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
Json = Any
Row = dict[str, Json]


def make_meta(reader: EvidenceReader, name: str) -> dict[str, Json]:
    """What the page says of the run as a whole; `name`: the run's."""
    info = reader.store.info
    domains = list(reader.store.domains)
    counts = reader.store.images["domain"].value_counts()
    return {
        "run": name,
        "clip": without_place(info.clip),
        "layer": info.layer,
        "tokens": info.tokens,
        "pool": reader.info.pool,
        "dense_by": reader.info.dense_by,
        "grid": list(info.grid),
        "n_images": info.n_images,
        "domains": domains,
        "domain_images": [int(counts.get(domain, 0)) for domain in domains],
        # As in LatentStats.sketch_share.
        "share_of": "sketch" if "sketch" in domains else domains[0],
        "shard_cards": SHARD_CARDS,
    }


def make_row(
    stats: LatentStats,
    said: Explanation | None,
    score: Score | None,
    strongest: Iterable[str],
    there: Set[str],
) -> Row:
    """What is listed of one latent; `strongest` are the ids of its images, `there` those that can
    be shown."""
    if score and is_stale(score, said):
        score = None
    failure = said.failure if said and said.failure else score.failure if score else None
    return {
        "label": interpretation(said) or None,
        "description": said.description if said else "",
        "state": _state(said),
        "status": stats.status,
        "failure": failure or "",
        "score": _ten_thousandths(score.auroc) if score else None,
        "low": _ten_thousandths(score.auroc_low) if score else None,
        "high": _ten_thousandths(score.auroc_high) if score else None,
        "frequency": number(stats.frequency, 3),
        "token_frequency": number(stats.token_frequency, 3),
        "shares": [number(share, 3) for share in stats.domain_share.values()],
        "classes": [name for name, _ in stats.top_classes[:N_CLASSES]],
        "thumb": next(filter(there.__contains__, strongest), None),
    }


def make_index(rows: Sequence[Row], has_tokens: bool) -> dict[str, Json]:
    """The columns, each of a value a latent; `shares` is a list of a column for each domain."""
    plain = ("label", "score", "low", "high", "frequency")
    columns: dict[str, Json] = {name: [row[name] for row in rows] for name in plain}
    if has_tokens:
        columns["token_frequency"] = [row["token_frequency"] for row in rows]
    columns["shares"] = [list(column) for column in zip(*(r["shares"] for r in rows), strict=True)]
    for name in ("state", "status", "failure", "supported"):
        columns[name] = one_of_few([row[name] for row in rows])
    images, thumbs = _places(row["thumb"] for row in rows)
    columns["images"], columns["thumb"] = [_base64(image_id) for image_id in images], thumbs
    names = sorted({name for row in rows for name in row["classes"]})
    place = {name: at for at, name in enumerate(names)}
    tops = [[place[name] for name in row["classes"]] for row in rows]
    return columns | {"top_classes": {"names": names, "of": tops}}


def one_of_few(values: Sequence[str | None]) -> dict[str, Json]:
    """A column of few words: their list, and a digit a latent; None is a word too. Beyond 36 words
    the last of them stands for the rest."""
    names = list(dict.fromkeys(values))
    digits = {name: _DIGITS[min(at, len(_DIGITS) - 1)] for at, name in enumerate(names)}
    kept = [*names[: len(_DIGITS) - 1], "other"] if len(names) > len(_DIGITS) else names
    return {"names": kept, "codes": "".join(digits[value] for value in values)}


def _places(ids: Iterable[str | None]) -> tuple[list[str], list[int | None]]:
    """The distinct ids in the order of first use, and of each its place among them."""
    place: dict[str, int] = {}
    found = [None if one is None else place.setdefault(one, len(place)) for one in ids]
    return list(place), found


def transfer_column(kinds: Mapping[int, str], n: int) -> dict[str, Json]:
    """`Transfer.kind` of each latent, None where it was not looked at."""
    return one_of_few([kinds.get(latent) for latent in range(n)])


def _state(said: Explanation | None) -> str:
    if said is None:
        return "unlabelled"
    if said.failure:
        return "failed"
    return UNCLEAR if said.verdict == UNCLEAR else "labelled"


def _ten_thousandths(value: float) -> int | None:
    kept = number(value)
    return None if kept is None else round(10_000 * kept)


def _base64(image_id: str) -> str:
    """43 signs instead of 64."""
    return base64.b64encode(bytes.fromhex(image_id)).decode("ascii").rstrip("=")
