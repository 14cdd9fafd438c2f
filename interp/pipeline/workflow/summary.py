"""A finished run -> what it came to, in words that a person can read aloud, and as figures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import NamedTuple

from interp.llm.ledger.report import Total, overall, sum_unanswered
from interp.pipeline.judging.reviews import ReviewSummary, summarise_reviews
from interp.records.circular import CIRCULAR, is_circular
from interp.records.support import count_states
from interp.records.wording import interpretation
from interp.report.nulls.controls import supports_of
from interp.run.run import Run


class Scored(NamedTuple):
    """A latent with its label and the score of that."""

    latent: int
    label: str
    auroc: float


@dataclass(frozen=True)
class RunSummary:
    """Of a run, from its files alone."""

    name: str
    n_images: int
    domains: tuple[str, ...]
    n_latents: int
    n_live: int
    n_dead: int
    n_dense: int
    explainer: str
    """"" where no latent has a label."""
    n_labelled: int
    n_unclear: int
    """Labels that are a guess."""
    scorer: str
    """"" where no label was scored."""
    n_scored: int
    auroc: float
    """Mean over the labels; NaN without any."""
    is_circular: bool
    n_supported: int
    n_undecided: int
    n_unsupported: int
    bound: Mapping[str, int]
    """By domain, live latents that have nearly all of their rates in it; {} with one domain."""
    best: Scored | None
    worst: Scored | None
    reviews: ReviewSummary
    """What people said of the labels."""
    usd: float
    """Billed in all, as far as it is known."""
    n_calls: int
    n_unknown: int
    """Answers for which nobody said what they cost."""
    risked: float
    """USD that answers that were lost may have cost."""

    def lines(self, max_cost: float | None = None) -> list[str]:
        """Whole sentences."""
        lines = [self._latents(), self._labels(), self._support(), self._bound()]
        if self.best and self.worst and self.best.latent != self.worst.latent:
            lines.append(f"The best is {_said(self.best)}, the worst {_said(self.worst)}.")
        return [line for line in [*lines, self._reviews(), self._cost(max_cost)] if line]

    def flat(self) -> dict[str, float | int | str | None]:
        """One flat object for --json."""
        values = asdict(self)
        values |= {"domains": ", ".join(self.domains)}
        del values["reviews"]
        values |= {f"reviews/{name}": value for name, value in self.reviews.flat().items()}
        for name in ("best", "worst"):
            one: Scored | None = getattr(self, name)
            del values[name]
            if one is not None:
                values |= {f"{name}/{field}": value for field, value in one._asdict().items()}
        del values["bound"]
        return {**values, **{f"bound/{domain}": n for domain, n in self.bound.items()}}

    def _latents(self) -> str:
        others = ", ".join(
            f"{n:,} {what}"
            for n, what in (
                (self.n_dead, "never active"),
                (self.n_dense, "active on too many to be named"),
            )
            if n
        )
        return (
            f"{self.n_latents:,} latents were looked at on {self.n_images:,} images of "
            f"{_listed(self.domains)}: {self.n_live:,} can be named"
            + (f", {others}." if others else ".")
        )

    def _labels(self) -> str:
        if not self.n_labelled:
            return "None of them has a label."
        guesses = f", {self.n_unclear:,} of these as a guess" if self.n_unclear else ""
        return f"{self.n_labelled:,} have a label by {self.explainer}{guesses}."

    def _support(self) -> str:
        if not self.n_scored:
            return ""
        line = (
            f"{self.scorer} tested {self.n_scored:,} labels on images that the explainer had not "
            f"seen: mean AUROC {self.auroc:.2f}."
        )
        n = self.n_supported + self.n_undecided + self.n_unsupported
        if n:
            line += (
                f" {self.n_supported:,} are supported ({self.n_supported / n:.0%} of {n:,} that "
                f"were held against labels that say nothing), {self.n_undecided:,} are undecided, "
                f"{self.n_unsupported:,} are not."
            )
        return line + (f" But {CIRCULAR}." if self.is_circular else "")

    def _bound(self) -> str:
        if not self.bound:
            return ""
        each = ", ".join(f"{name} {n:,}" for name, n in self.bound.items() if n)
        n = sum(self.bound.values())
        return f"{n:,} latents answer to one domain alone" + (f" ({each})." if n else ".")

    def _reviews(self) -> str:
        if not self.reviews.n_reviewed:
            return ""
        counts = ", ".join(f"{n:,} {word}" for word, n in self.reviews.counts.items() if n)
        line = f"People have reviewed {self.reviews.n_reviewed:,} labels ({counts})."
        agreement = self.reviews.agreement_line()
        return f"{line} {agreement[0].upper()}{agreement[1:]}." if agreement else line

    def _cost(self, max_cost: float | None) -> str:
        if not self.n_calls:
            return "It cost nothing: no model elsewhere was asked."
        cap = f" of the ${max_cost:g} that it may" if max_cost is not None else ""
        line = f"{self.n_calls:,} answers cost ${self.usd:.2f}{cap}."
        if self.n_unknown:
            line += f" Of {self.n_unknown:,} nobody said what they cost."
        if self.risked:
            line += f" Answers that were lost may have cost ${self.risked:.2f} more."
        return line


def summarise_run(run: Run) -> RunSummary:
    """What is known of the run now. Raises `UserError` where nothing was collected."""
    info, results = run.evidence.info, run.results
    newest = results.newest_explanations()
    labelled = {latent: one for latent, one in newest.items() if one.label is not None}
    lines = {n: line for n in labelled if (line := results.score_line(n)) is not None}
    scores = [line.score for line in lines.values() if line.score.failure is None]
    ranked = sorted(
        (Scored(s.latent, interpretation(newest[s.latent]), s.auroc) for s in scores),
        key=lambda one: (-one.auroc, one.latent),
    )
    states = count_states(supports_of(results).values())
    paid = overall(run.ledger) if run.ledger.exists() else _NOTHING
    lost = sum_unanswered(run.ledger) if run.ledger.exists() else []
    explainers = [one.model for one in labelled.values()]
    return RunSummary(
        name=run.path.resolve().name,
        n_images=info.n_images,
        domains=tuple(info.domains),
        n_latents=info.n_latents,
        n_live=info.n_live,
        n_dead=info.n_dead,
        n_dense=info.n_dense,
        explainer=max(set(explainers), key=explainers.count) if explainers else "",
        n_labelled=len(labelled),
        n_unclear=sum(one.verdict == "unclear" for one in labelled.values()),
        scorer=scores[-1].model if scores else "",
        n_scored=len(scores),
        auroc=math.fsum(s.auroc for s in scores) / len(scores) if scores else math.nan,
        is_circular=bool(scores) and is_circular(scores[-1].model, run.info.clip),
        n_supported=states["supported"],
        n_undecided=states["undecided"],
        n_unsupported=states["unsupported"],
        bound=_count_bound(run),
        best=ranked[0] if ranked else None,
        worst=ranked[-1] if ranked else None,
        reviews=summarise_reviews(run),
        usd=paid.usd + math.fsum(one.usd for one in lost),
        n_calls=paid.n_calls,
        n_unknown=paid.n_unknown,
        risked=math.fsum(one.risked for one in lost),
    )


_NOTHING = Total("", "", "", 0, 0, 0, 0, 0, 0.0, "", "")


def _count_bound(run: Run) -> dict[str, int]:
    domains = run.evidence.info.domains
    if len(domains) < 2:
        return {}
    bound = [run.evidence.stats(latent).bound_domain for latent in run.evidence.live()]
    return {domain: bound.count(domain) for domain in domains}


def _said(one: Scored) -> str:
    return f'"{one.label}" (latent {one.latent}, AUROC {one.auroc:.2f})'


def _listed(words: tuple[str, ...]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
