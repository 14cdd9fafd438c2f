"""Explanations so far -> latents still to be explained; explanations made -> a summary."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from interp.llm.failures import Reason, commonest
from interp.llm.types import is_transient
from interp.records.types import TOO_FEW, UNREADABLE, AnsweredBy, Explanation
from sae.core.csv_cells import UNCLEAR


class ExplainSummary(NamedTuple):
    """What one command did."""

    n_labelled: int
    n_failed: int
    n_skipped: int
    """Latents that were explained before."""
    failures: dict[str, int]
    """Kind of failure -> latents."""
    usd: float
    """Billed for these explanations; NaN when a server did not say."""
    n_asked: int = 0
    """Latents that a model was asked about, by this and earlier commands."""
    n_unusable: int = 0
    """Those of them without a usable answer."""
    reasons: tuple[Reason, ...] = ()
    """The commonest of this command's failures."""
    remarks: Mapping[str, int] = MappingProxyType({})
    """Remark of the linter -> labels of this command that have it."""
    n_unclear: int = 0
    """Of the labels of this command: guesses, which are shown with a mark."""
    n_several: int = 0
    """Of the same: those with a second label."""


def pending_latents(
    known: Iterable[Explanation],
    by: AnsweredBy,
    latents: Sequence[int],
    *,
    retry_failed: bool = False,
) -> list[int]:
    """Those that this explainer has not done with this prompt, in the order of `latents`.

    What failed because images could not be read, or for a reason that waiting cures, is to be done;
    with `retry_failed` what failed for any other is too.
    """
    failures = _failures(known, by)
    done = {latent for latent, why in failures.items() if not _is_pending(why, retry_failed)}
    return [latent for latent in dict.fromkeys(latents) if latent not in done]


def summarise(
    known: Iterable[Explanation],
    by: AnsweredBy,
    latents: Iterable[int],
    made: Sequence[Explanation] = (),
    n_skipped: int = 0,
) -> ExplainSummary:
    """Of one command, which made the explanations `made`, and of all so far on `latents`."""
    kinds = Counter(e.failure for e in made if e.failure is not None)
    failures = _failures(known, by)
    asked = [failures[n] for n in set(latents) if n in failures and failures[n] != TOO_FEW]
    return ExplainSummary(
        n_labelled=len(made) - kinds.total(),
        n_failed=kinds.total(),
        n_skipped=n_skipped,
        failures=dict(kinds),
        usd=math.fsum(e.usd for e in made),
        n_asked=len(asked),
        n_unusable=sum(failure is not None for failure in asked),
        reasons=tuple(commonest((e.failure, e.reason) for e in made if e.failure is not None)),
        remarks=dict(Counter(code for e in made for code in e.lint)),
        n_unclear=sum(e.verdict == UNCLEAR for e in made),
        n_several=sum(e.second_label is not None for e in made),
    )


def _failures(known: Iterable[Explanation], by: AnsweredBy) -> dict[int, str | None]:
    """Latent -> why its last explanation by this explainer and prompt failed; None: it did not."""
    return {e.latent: e.failure for e in known if (e.model, e.prompt, e.server) == by}


def _is_pending(failure: str | None, retry_failed: bool) -> bool:
    if failure is None:
        return False
    return retry_failed or failure == UNREADABLE or is_transient(failure)
