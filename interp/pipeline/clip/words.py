"""A run -> which latents each word of the vocabulary means, for the gallery's search."""

from __future__ import annotations

import warnings

from interp.local.ranking import SAYS_IT, STANDS_OUT
from interp.local.vocabulary import knows_world, load_vocabulary
from interp.pipeline.clip.search import LatentSearch
from interp.pipeline.clip.vectors import FOLDER
from interp.records.family import LOCAL
from interp.run.run import Run
from sae.core.errors import Notice, UserError
from sae.core.progress import Progress

N_LATENTS = 8
"""Latents kept of a word, best first."""


def find_words(
    run: Run, device: str = "auto", progress: Progress | None = None
) -> dict[str, list[int]]:
    """By word: the latents whose direction stands out for it, or whose label says it.

    Words without any are left out. {} where the run's CLIP is not at hand: it is, where it is
    built in, has named this run's latents, or `interp find` has asked it already.
    """
    if not _is_at_hand(run):
        return {}
    try:
        search = LatentSearch(run, device, progress)
        words = [term.name for term in load_vocabulary("auto", search.clip_name)]
        ranked = search.rank(words, N_LATENTS, keep=True)
    except UserError as error:
        told = f"the gallery's search finds labels alone, not meanings: {error}"
        warnings.warn(Notice(told), stacklevel=2)
        return {}
    kept = (
        [one.latent for one in few if one.deviation >= STANDS_OUT or one.wording >= SAYS_IT]
        for few in ranked
    )
    return {word: latents for word, latents in zip(words, kept, strict=True) if latents}


def _is_at_hand(run: Run) -> bool:
    if all(status == "dead" for status in run.evidence.status):
        return False
    asked = (
        run.info.clip_sha and (run.path / FOLDER / f"texts-{run.info.clip_sha}.parquet").exists()
    )
    named = run.info.settings.get("explain", {}).get("model") == LOCAL
    return knows_world(run.info.clip) or bool(asked) or named
