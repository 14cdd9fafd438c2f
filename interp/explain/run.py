"""The run of explaining: which latents are still to be explained, and what came out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from interp.explain.explainer import TOO_FEW, Explainer
from interp.llm.scheduler import append_run
from interp.llm.types import CONCURRENCY, Width, is_transient
from interp.pictures.cache import EvidenceSource
from interp.records.types import Explanation
from sae.core.files import read_jsonl

__all__ = ["ExplainSummary", "explain_run"]


def pending_latents(
    path: Path, name: str, prompt: str, latents: Sequence[int], *, retry_failed: bool = False
) -> list[int]:
    """Those that this explainer has not done with this prompt, in the order of `latents`.

    What failed for a reason that waiting cures is to be done; with `retry_failed` what failed for
    any other is too, unless there are too few images.
    """
    failures = _failures(path, name, prompt)
    done = {latent for latent, why in failures.items() if not _to_do_again(why, retry_failed)}
    return [latent for latent in dict.fromkeys(latents) if latent not in done]


def _failures(path: Path, name: str, prompt: str) -> dict[int, str | None]:
    """Latent -> why its last explanation by this explainer and prompt failed; None: it did not."""
    rows = [row for row in read_jsonl(path) if (row["model"], row["prompt"]) == (name, prompt)]
    return {row["latent"]: row["failure"] for row in rows}


def _to_do_again(failure: str | None, retry_failed: bool) -> bool:
    if failure is None or failure == TOO_FEW:
        return False
    return retry_failed or is_transient(failure)


class ExplainSummary(NamedTuple):
    """What one `explain_run` did."""

    n_labelled: int
    n_failed: int
    n_skipped: int
    """Latents that were already in the file."""
    failures: dict[str, int]
    """Kind of failure -> latents."""
    usd: float
    """Billed for these explanations; NaN when a server did not say."""
    n_asked: int = 0
    """Latents that a model was asked about, by this and earlier calls."""
    n_unusable: int = 0
    """Those of them without a usable answer."""


def explain_run(
    path: Path,
    source: EvidenceSource,
    explainer: Explainer,
    latents: Sequence[int],
    *,
    concurrency: Width = CONCURRENCY,
    on_record: Callable[[Explanation], None] | None = None,
    limit: int | None = None,
    retry_failed: bool = False,
    opened: Iterable[object] = (),
) -> ExplainSummary:
    """Explain latents and append to `path` (explanations.jsonl) in the order of `latents`.

    What is done is skipped (`pending_latents`), so the same command goes on with a run that was
    stopped; of the rest at most `limit` are done. `on_record`, `opened`: see `append_run`.
    """
    todo = pending_latents(
        path, explainer.name, explainer.prompt, latents, retry_failed=retry_failed
    )
    made: list[Explanation] = []

    async def work(latent: int) -> Explanation:
        return await explainer.explain(source.of(latent), source.image)

    def note(explanation: Explanation) -> None:
        made.append(explanation)
        if on_record is not None:
            on_record(explanation)

    append_run(
        path,
        todo[:limit],
        work,
        concurrency=concurrency,
        on_record=note,
        opened=(explainer, *opened),
    )
    n_skipped = len(set(latents)) - len(todo)
    return summarise(path, explainer.name, explainer.prompt, latents, made, n_skipped)


def summarise(
    path: Path,
    name: str,
    prompt: str,
    latents: Iterable[int],
    made: Sequence[Explanation] = (),
    n_skipped: int = 0,
) -> ExplainSummary:
    """Of one call, which made the explanations `made`, and of all calls before it on `latents`."""
    kinds = Counter(e.failure for e in made if e.failure is not None)
    known = _failures(path, name, prompt)
    asked = [known[n] for n in set(latents) if n in known and known[n] != TOO_FEW]
    return ExplainSummary(
        n_labelled=len(made) - kinds.total(),
        n_failed=kinds.total(),
        n_skipped=n_skipped,
        failures=dict(kinds),
        usd=math.fsum(e.usd for e in made),
        n_asked=len(asked),
        n_unusable=sum(failure is not None for failure in asked),
    )
