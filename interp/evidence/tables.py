"""What a pass kept -> the two tables that `collect` leaves: latents.parquet, examples.parquet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from interp.evidence.stream.counts import Tally
from interp.evidence.stream.examples import Picks
from interp.evidence.stream.first_pass import ImageIndex
from interp.evidence.stream.top_k import Ints, Kept
from interp.records.types import KINDS, N_BINS, Status
from sae.core.files import replacing
from sae.data.store import EmbeddingStore

AT_ONCE = 1 << 18
"""Examples that are in memory as a table at a time."""
_N_TOP_CLASSES = 5
_TEXT = pa.dictionary(pa.int32(), pa.string())

_HELD_OUT = pa.struct([("domain", pa.string()), ("active", pa.int64()), ("silent", pa.int64())])

EXAMPLE_SCHEMA = pa.schema(
    [
        ("latent", pa.int32()),
        ("side", _TEXT),
        ("kind", _TEXT),
        ("rank", pa.int16()),
        ("stratum", pa.int8()),
        ("row", pa.int64()),
        ("image_id", _TEXT),
        ("domain", _TEXT),
        ("label", _TEXT),
        ("path", _TEXT),
        ("act", pa.float32()),
        ("heat", pa.binary()),
        ("peak", pa.int32()),
        ("group", _TEXT),
    ]
)


def latent_schema(domains: Sequence[str]) -> pa.Schema:
    """Columns as in `records.LatentStats`; `domain_rate` is a struct with a field per domain."""
    return pa.schema(
        [
            ("latent", pa.int32()),
            ("status", pa.string()),
            ("n_active", pa.int64()),
            ("frequency", pa.float64()),
            ("token_frequency", pa.float64()),
            ("mean_act", pa.float64()),
            ("max_act", pa.float64()),
            ("hist", pa.list_(pa.int64(), N_BINS)),
            ("domain_rate", pa.struct([(domain, pa.float64()) for domain in domains])),
            ("sketch_share", pa.float64()),
            ("class_entropy", pa.float64()),
            ("top_classes", pa.list_(pa.struct([("label", pa.string()), ("n", pa.int64())]))),
            ("held_out", pa.list_(_HELD_OUT)),
        ]
    )


def latent_table(
    tally: Tally, index: ImageIndex, sample: Kept, n_tokens: int, dense_above: float
) -> pa.Table:
    """One row per latent. Classes are counted in `sample` when the tally holds none.

    `n_tokens` of each image were counted.
    """
    n_active = tally.n_active.sum((1, 2))  # (n_latents,)
    frequency = n_active / len(index.digits)
    token_frequency = tally.n_tokens / (len(index.digits) * n_tokens)
    counts = index.domain_counts()
    rates = tally.n_active.sum(1) / np.maximum(counts, 1)  # (n_latents, n_domains)
    sketch = index.domain_names.index("sketch") if "sketch" in index.domain_names else 0
    entropy, top_classes = _classes(tally, index, sample)
    columns = {
        "latent": np.arange(len(n_active), dtype=np.int32),
        "status": [_status(f, dense_above) for f in token_frequency],
        "n_active": n_active,
        "frequency": frequency,
        "token_frequency": token_frequency,
        "mean_act": _ratio(tally.sum_acts, n_active),
        "max_act": tally.max_acts.astype(np.float64),
        "hist": list(tally.histogram()),
        "domain_rate": [dict(zip(index.domain_names, row, strict=True)) for row in rates.tolist()],
        "sketch_share": _ratio(rates[:, sketch], rates.sum(1)),
        "class_entropy": entropy,
        "top_classes": top_classes,
        "held_out": _held_out(tally, index),
    }
    return pa.table(columns, schema=latent_schema(index.domain_names))


def write_examples(
    path: Path,
    picks: Picks,
    maps: NDArray[np.uint8],
    peaks: Ints,
    store: EmbeddingStore,
    index: ImageIndex,
) -> None:
    """Write one row per example, in the order of `picks`, some at a time; complete or not at all.

    `maps` (n, patches) are the heat maps, `peaks` (n,) their most active patches.
    """
    with (
        replacing(path) as part,
        pq.ParquetWriter(part, EXAMPLE_SCHEMA, compression="zstd") as file,
    ):
        for start in range(0, max(1, len(picks.rows)), AT_ONCE):
            some = picks.take(slice(start, start + AT_ONCE))
            file.write_table(_example_table(some, maps, peaks, store, index))


def _example_table(
    picks: Picks, maps: NDArray[np.uint8], peaks: Ints, store: EmbeddingStore, index: ImageIndex
) -> pa.Table:
    rows, where = np.unique(picks.rows, return_inverse=True)
    shown = store.take_images(rows)
    columns = {
        "latent": picks.latents.astype(np.int32),
        "side": pa.DictionaryArray.from_arrays(
            picks.sides.astype(np.int32), list(index.side_names)
        ),
        "kind": pa.DictionaryArray.from_arrays(picks.kinds.astype(np.int32), list(KINDS)),
        "rank": picks.ranks.astype(np.int16),
        "stratum": picks.strata.astype(np.int8),
        "row": picks.rows.astype(np.int64),
        **{n: _texts(shown[n], where) for n in ("image_id", "domain", "label", "path")},
        "act": picks.acts,
        "heat": [maps[place].tobytes() if place >= 0 else None for place in picks.maps],
        "peak": [peaks[place] if place >= 0 else -1 for place in picks.maps],
        "group": _texts(pd.Series([index.groups.name(row) for row in rows], dtype=object), where),
    }
    return pa.table(columns, schema=EXAMPLE_SCHEMA)


def write_table(path: Path, table: pa.Table) -> None:
    """Write parquet, complete or not at all; the same table gives the same bytes."""
    with replacing(path) as part:
        pq.write_table(table, part, compression="zstd")


def _held_out(tally: Tally, index: ImageIndex) -> list[list[dict[str, object]]]:
    """Active and silent images of each latent on the score side, by domain."""
    side = index.side_names.index("score")
    of_domain = index.domain_counts(side).tolist()
    names = index.domain_names
    return [
        [
            {"domain": name, "active": n, "silent": n_all - n}
            for name, n, n_all in zip(names, active, of_domain, strict=True)
        ]
        for active in tally.n_active[:, side].tolist()
    ]


def _status(token_frequency: float, dense_above: float) -> Status:
    if token_frequency == 0:
        return "dead"
    return "dense" if token_frequency > dense_above else "live"


def _ratio(part: NDArray[np.float64], whole: NDArray[np.float64] | Ints) -> NDArray[np.float64]:
    """part / whole, NaN where the whole is 0."""
    result = np.full(len(part), np.nan)
    np.divide(part, whole, out=result, where=whole > 0)
    return result


def _classes(
    tally: Tally, index: ImageIndex, sample: Kept
) -> tuple[NDArray[np.float64], list[list[dict[str, object]]]]:
    """Entropy (n_latents,) in bits, and the most frequent classes of each latent."""
    entropy = np.full(len(tally.n_active), np.nan)
    top: list[list[dict[str, object]]] = []
    for latent in range(len(entropy)):
        counts = _class_counts(latent, tally, index, sample)
        first = np.argsort(-counts, kind="stable")[:_N_TOP_CLASSES]
        top.append([{"label": index.class_names[c], "n": counts[c]} for c in first if counts[c]])
        if counts.any():
            share = counts[counts > 0] / counts.sum()
            entropy[latent] = abs(float((share * np.log2(share)).sum()))
    return entropy, top


def _class_counts(latent: int, tally: Tally, index: ImageIndex, sample: Kept) -> Ints:
    """(n_classes,) active images of one latent."""
    if tally.classes is not None:
        return np.asarray(tally.classes[latent], np.int64)
    n_sides = len(index.side_names)
    rows = sample.rows[n_sides * latent : n_sides * (latent + 1)]
    classes = index.classes[rows[rows >= 0]]
    counts: Ints = np.bincount(classes[classes >= 0], minlength=len(index.class_names))
    return counts


def _texts(values: pd.Series[str], where: Ints) -> pa.DictionaryArray:
    """The values at `where`, each distinct text once in the dictionary."""
    codes, distinct = pd.factorize(values, sort=True)
    return pa.DictionaryArray.from_arrays(
        codes[where].astype(np.int32), pa.array(list(distinct), pa.string())
    )
