"""What a question may cost at worst, and what an answer did cost."""

from __future__ import annotations

import math

from interp.llm.cost.price import Price
from interp.llm.cost.tokens import most_tokens
from interp.llm.types import Question, Usage

_MARGIN = 1.25
"""On top of the most that this model was seen to bill beyond the bound of its family."""


class Tariff:
    """One model's price, and what its servers turn out to count as tokens."""

    def __init__(self, model: str, price: Price | None = None, context: int | None = None) -> None:
        """`price`: None when nobody knows it; `context`: most tokens that the model can read."""
        self._model = model
        self.price = price
        self._context = context
        self._beyond = 1.0

    def worst(self, question: Question, room: int | None = None) -> float:
        """USD that no answer should pass; 0 without a price.

        `room`: completion tokens that it may have; default: what the question asks for.
        """
        if self.price is None:
            return 0.0
        n_prompt = most_tokens(question, self._model) * self._beyond
        if self._context is not None:
            n_prompt = min(n_prompt, self._context)
        return self.price.of(n_prompt, room or question.max_tokens, len(question.pictures))

    def billed(self, question: Question, usage: Usage) -> float:
        """USD: as the server says, else by the price list; NaN when neither tells."""
        self._learn(question, usage)
        if not math.isnan(usage.usd) or self.price is None:
            return usage.usd
        if usage.prompt_tokens + usage.completion_tokens == 0:
            return math.nan
        n_pictures = len(question.pictures)
        return self.price.of(usage.prompt_tokens, usage.completion_tokens, n_pictures)

    def _learn(self, question: Question, usage: Usage) -> None:
        seen = usage.prompt_tokens / most_tokens(question, self._model)
        if seen > 1.0:
            self._beyond = max(self._beyond, _MARGIN * seen)
