"""Texts, and images of a run -> CLIP's unit rows of them, each embedded once, kept in the run."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from interp.run.run import Run
from sae.core.errors import Notice, UserError
from sae.core.lock import LOCK, hold
from sae.core.progress import Progress

if TYPE_CHECKING:
    from interp.local.clip_encoder import ClipEncoder, ClipModel
    from interp.records.types import Example

FOLDER = "find"
"""In a run: what finding latents by words keeps."""
WAIT = 600.0
"""Seconds that another process gets which is just embedding for the same run."""
TEXTS_AT_ONCE = 256

Rows = NDArray[np.float32]


class KeptRows:
    """`find/<kind>-<clip_sha>.parquet`: CLIP's row of each key, with half the digits."""

    def __init__(self, run: Run, kind: str, clip_sha: str) -> None:
        """Raises `UserError` where the file is damaged."""
        self.path = run.path / FOLDER / f"{kind}-{clip_sha}.parquet"
        self._rows: dict[str, NDArray[np.float16]] = self._read()

    def __contains__(self, key: str) -> bool:
        return key in self._rows

    def of(self, keys: Sequence[str]) -> Rows:
        """(n, d) unit rows. Raises `KeyError` for a key that is not kept."""
        rows = np.stack([self._rows[key] for key in keys]).astype(np.float32)
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))

    def add(self, found: dict[str, Rows]) -> None:
        """Keep these too, for later calls where the run can be written."""
        import pyarrow as pa

        from interp.evidence.tables import write_table

        try:
            with closing(hold(self.path.with_name(LOCK), str(self.path.parent), WAIT)):
                self._rows = self._read() | {k: row.astype("<f2") for k, row in found.items()}
                rows = [row.tobytes() for row in self._rows.values()]
                table = pa.table({"key": list(self._rows), "row": rows}, schema=_schema())
                write_table(self.path, table)
        except UserError as error:
            self._rows |= {k: row.astype("<f2") for k, row in found.items()}
            warnings.warn(Notice(f"nothing is kept for the next time: {error}"), stacklevel=2)

    def _read(self) -> dict[str, NDArray[np.float16]]:
        from sae.data.table import read_table

        if not self.path.exists():
            return {}
        remedy = "remove it: the next call makes it again"
        table = read_table(self.path, {"key": "text", "row": "bytes"}, remedy)
        rows = [np.frombuffer(row, "<f2") for row in table["row"].to_pylist()]
        finite = all(np.isfinite(row).all() and row.any() for row in rows)
        if len({len(row) for row in rows}) > 1 or not finite:
            raise UserError(f"{self.path} is damaged (rows of several kinds); {remedy}")
        return dict(zip(table["key"].to_pylist(), rows, strict=True))


def text_rows(
    kept: KeptRows, load: Callable[[], ClipModel], texts: Sequence[str], progress: Progress | None
) -> Rows:
    """(n, d) unit rows of texts; what is not kept yet is embedded by the CLIP that `load` gives."""
    new = [text for text in dict.fromkeys(texts) if text not in kept]
    if new:
        from interp.local.clip_encoder import embed_terms

        clip = load()
        found: dict[str, Rows] = {}
        for start in range(0, len(new), TEXTS_AT_ONCE):
            part = new[start : start + TEXTS_AT_ONCE]
            rows = embed_terms(clip, [readings(text, clip.name) for text in part]).numpy()
            found |= dict(zip(part, rows, strict=True))
            if progress is not None:
                progress(start + len(part), len(new))
        kept.add(found)
    return kept.of(texts)


def readings(text: str, clip: str) -> tuple[str, ...]:
    """What CLIP reads for words: one sentence; for a built-in CLIP the wordings it was taught."""
    from interp.local.vocabulary import knows_world, texts_of

    return texts_of(text, clip) if knows_world(clip) else (f"a photo of {text}",)


def image_rows(
    run: Run,
    kept: KeptRows,
    load: Callable[[], ClipEncoder],
    examples: Sequence[Example],
    progress: Progress | None,
) -> dict[str, Rows]:
    """By image id: unit rows of images; those that cannot be read are left out.

    Raises `UserError` where none can.
    """
    from interp.local.clip_encoder import BATCH, SeenOnce

    asked = {example.image_id: example for example in examples}
    new = [example for image_id, example in asked.items() if image_id not in kept]
    if new:
        encoder = load()
        seen = SeenOnce(run.evidence, encoder)
        for start in range(0, len(new), 64 * BATCH):
            seen.look_at(new[start : start + 64 * BATCH])
            if progress is not None:
                progress(min(start + 64 * BATCH, len(new)), len(new))
        read = [example.image_id for example in new if example.image_id in encoder]
        if read:
            rows = encoder.known(read).numpy()
            kept.add(dict(zip(read, rows, strict=True)))
    there = [image_id for image_id in asked if image_id in kept]
    if not there:
        raise UserError(
            f"none of the images of {run.evidence.store.path} can be read: there is nothing to "
            "compare words with; put them back, or name them with `interp collect --images`"
        )
    return dict(zip(there, kept.of(there), strict=True))


def _schema() -> object:
    import pyarrow as pa

    return pa.schema([("key", pa.string()), ("row", pa.binary())])
