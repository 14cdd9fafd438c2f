"""Images that a command shows -> those no longer as they were embedded: named, counted, refused."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from interp.evidence.reader import EvidenceReader
from interp.records.types import Example
from sae.core.errors import FAILURES, Notice, UserError
from sae.core.progress import Progress
from sae.data.images import BadImage

MAX_BAD = 0.01
"""Share of a command's images above which it fails."""
_N_NAMED = 3


def check_images(
    reader: EvidenceReader, examples: Iterable[Example], progress: Progress | None = None
) -> None:
    """Read each of these images once, before a model is asked about any.

    Raises `UserError` as `report_bad_images` does.
    """
    distinct = {example.image_id: example for example in examples}

    def check(example: Example) -> None:
        with suppress(BadImage):  # the reader keeps it
            reader.check_image(example)

    with ThreadPoolExecutor(min(16, 2 * (os.cpu_count() or 1))) as pool:
        for n_done, _ in enumerate(pool.map(check, distinct.values()), 1):
            if progress:
                progress(n_done, len(distinct))
    if len(_bad(reader, distinct.keys())) > MAX_BAD * len(distinct):
        report_bad_images(reader, "nothing was asked", distinct.keys())


def report_bad_images(reader: EvidenceReader, done: str, image_ids: Set[str] | None = None) -> None:
    """Warn with a `Notice` of the images that the reader could not give out.

    `done`: what became of them; `image_ids`: of these, else of all that were read. Raises
    `UserError` with exit code 4 where they are more than `MAX_BAD`.
    """
    ids = reader.looked_at.keys() if image_ids is None else image_ids
    bad = _bad(reader, ids)
    if not bad:
        return
    more = f", and {len(bad) - _N_NAMED:,} more" if len(bad) > _N_NAMED else ""
    words = (
        f"{len(bad):,} of {len(ids):,} images ({len(bad) / len(ids):.1%}) are not as they were "
        f"embedded; {done}: {', '.join(bad[:_N_NAMED])}{more}"
    )
    if len(bad) > MAX_BAD * len(ids):
        remedy = "put the old files back, or run `sae embed` and `interp collect` again"
        raise UserError(f"{words}; more than {MAX_BAD:.0%}: {remedy}", FAILURES)
    warnings.warn(Notice(words), stacklevel=2)


def _bad(reader: EvidenceReader, image_ids: Set[str]) -> list[str]:
    looked_at = reader.looked_at
    return sorted(filter(None, (looked_at.get(image_id) for image_id in image_ids)))
