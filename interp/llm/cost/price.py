"""What a call costs: a model's price in USD, from its server's list or from `--price`."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sae.core.errors import UserError

MILLION = 1e6


@dataclass(frozen=True)
class Price:
    """USD; finite and never negative."""

    prompt: float
    """Per token."""
    completion: float
    """Per token, reasoning included."""
    request: float = 0.0
    """Per request."""
    image: float = 0.0
    """Per image, on top of its tokens."""

    def of(self, n_prompt: float, n_completion: float, n_images: float) -> float:
        """USD of one request."""
        tokens = self.prompt * n_prompt + self.completion * n_completion
        return tokens + self.request + self.image * n_images


def parse_price(text: str) -> Price:
    """`--price IN,OUT` or `IN,OUT,REQUEST`: USD per million tokens, and per request.

    Raises `UserError` for what is no such price.
    """
    numbers = [_amount(part) for part in text.split(",")]
    amounts = [number for number in numbers if number is not None]
    if len(amounts) != len(numbers) or len(amounts) not in (2, 3):
        raise UserError(
            f"--price {text!r} is no price; give USD per million tokens in and out, as "
            "--price 0.25,1.50, and USD per request as a third number where there is one"
        )
    prompt, completion, *request = amounts
    return Price(prompt / MILLION, completion / MILLION, *request)


def _amount(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None
