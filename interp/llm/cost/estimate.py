"""What a stage would cost: requests counted, tokens by formula or by what was billed before."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

from interp.llm.cost.price import Price
from interp.llm.cost.tokens import answer_tokens, prompt_tokens
from interp.llm.ledger.queries import Billed
from interp.llm.types import Question

N_SAMPLE = 48
"""Questions that are drawn and measured; the rest is taken to be like them."""
ENOUGH = 5
"""Answers from which what was billed before is trusted more than any formula."""


@dataclass(frozen=True)
class Estimate:
    """Figures of one stage. Money is NaN without a price."""

    stage: str
    model: str
    layout: str
    n_latents: int
    """That would be asked about."""
    n_requests: int
    """Exact, if no answer has to be mended and nothing is stored already."""
    prompt_tokens: float
    """A request."""
    completion_tokens: float
    """A request."""
    is_learned: bool
    """Tokens come from what this model used before, not from the formula of its family."""
    usd: float
    usd_at_most: float
    """Every request at the worst case that `--max-cost` sets aside for it, none repeated."""
    n_least: int
    """Requests where every adaptive test ends at its first look; else as many as `n_requests`."""
    usd_least: float
    """What those cost."""

    @property
    def usd_per_latent(self) -> float:
        return self.usd / self.n_latents if self.n_latents else 0.0

    def table(self) -> list[tuple[str, str]]:
        """Rows for a person."""
        least = self.usd_least / self.n_latents if self.n_latents else 0.0
        return [
            ("latents", f"{self.n_latents:,}"),
            ("requests", self._range(f"{self.n_least:,}", f"{self.n_requests:,}")),
            ("layout", self.layout),
            ("tokens in, a request", f"{self.prompt_tokens:,.0f}"),
            ("tokens out, a request", f"{self.completion_tokens:,.0f}"),
            ("tokens known by", "its bills" if self.is_learned else "its family"),
            ("cost", self._range(_dollars(self.usd_least), _dollars(self.usd))),
            ("cost of a latent", self._range(_dollars(least), _dollars(self.usd_per_latent))),
            ("at most", _dollars(self.usd_at_most)),
        ]

    def _range(self, least: str, most: str) -> str:
        """Of an adaptive stage, from the first looks to all images."""
        return most if self.n_least == self.n_requests or least == most else f"{least} to {most}"

    def remarks(self) -> list[str]:
        """What to know about these figures, and what to type next."""
        remarks = []
        if self.n_least < self.n_requests:
            remarks.append(
                "--adaptive: the lower figures are those of the first looks alone, the upper ones "
                "of all images; what it will be hangs on the labels"
            )
        if math.isnan(self.usd):
            remarks.append(
                "no price: `interp models` fetches the list, or give --price IN,OUT "
                "(USD per million tokens)"
            )
        if not self.is_learned:
            remarks.append(
                f"formulas are good to about 15%; after a pilot (--limit {ENOUGH}) an estimate "
                "goes by what was billed"
            )
        remarks.append(
            "answers that must be mended or asked again come on top; --max-cost USD is a cap"
        )
        return remarks


def estimate(
    stage: str,
    model: str,
    layout: str,
    counts: tuple[int, int, int],
    sample: Sequence[Question],
    price: Price | None,
    billed: Billed,
    worst: Sequence[float],
) -> Estimate:
    """`counts`: latents, requests, and requests at least; `sample`: some of the requests, `worst`
    their worst cases."""
    n_latents, n_requests, n_least = counts
    n = max(len(sample), 1)
    n_prompt = math.fsum(prompt_tokens(question, model).total for question in sample) / n
    n_answer = math.fsum(answer_tokens(question) for question in sample) / n
    n_pictures = sum(len(question.pictures) for question in sample) / n
    is_learned = billed.n >= ENOUGH
    if is_learned:
        n_prompt *= billed.prompt_tokens / billed.estimated
        n_answer = billed.completion_tokens / billed.n
    each = math.nan if price is None else price.of(n_prompt, n_answer, n_pictures)
    if is_learned and not math.isnan(billed.usd):
        each = billed.usd / billed.n
    return Estimate(
        stage=stage,
        model=model,
        layout=layout,
        n_latents=n_latents,
        n_requests=n_requests,
        prompt_tokens=n_prompt,
        completion_tokens=n_answer,
        is_learned=is_learned,
        usd=n_requests * each,
        usd_at_most=math.nan if price is None else n_requests * math.fsum(worst) / n,
        n_least=n_least,
        usd_least=n_least * each,
    )


def add_up(parts: Sequence[Estimate]) -> Estimate:
    """One estimate of several of one model: tokens are a request's mean."""
    n = sum(part.n_requests for part in parts)

    def mean(name: str) -> float:
        return sum(getattr(part, name) * part.n_requests for part in parts) / n if n else 0.0

    return dataclasses.replace(
        parts[0],
        n_latents=max(part.n_latents for part in parts),
        n_requests=n,
        n_least=sum(part.n_least for part in parts),
        prompt_tokens=mean("prompt_tokens"),
        completion_tokens=mean("completion_tokens"),
        usd=math.fsum(part.usd for part in parts),
        usd_least=math.fsum(part.usd_least for part in parts),
        usd_at_most=math.fsum(part.usd_at_most for part in parts),
    )


def further(alone: Estimate, beside: Estimate) -> Estimate:
    """What questions with foils cost more than the same ones without."""
    return dataclasses.replace(
        beside,
        prompt_tokens=beside.prompt_tokens - alone.prompt_tokens,
        completion_tokens=beside.completion_tokens - alone.completion_tokens,
        usd=beside.usd - alone.usd,
        usd_least=beside.usd_least - alone.usd_least,
        usd_at_most=beside.usd_at_most - alone.usd_at_most,
    )


def with_nulls(alone: Estimate, nulls: Estimate | None) -> Estimate:
    """All questions as without foils, and what those cost that have some."""
    if nulls is None:
        return alone
    share = nulls.n_requests / alone.n_requests if alone.n_requests else 0.0
    return dataclasses.replace(
        alone,
        prompt_tokens=alone.prompt_tokens + share * nulls.prompt_tokens,
        completion_tokens=alone.completion_tokens + share * nulls.completion_tokens,
        usd=alone.usd + nulls.usd,
        usd_least=alone.usd_least + nulls.usd_least,
        usd_at_most=alone.usd_at_most + nulls.usd_at_most,
    )


def _dollars(usd: float) -> str:
    if math.isnan(usd):
        return "price unknown"
    return f"${usd:,.4f}" if usd < 1 else f"${usd:,.2f}"
