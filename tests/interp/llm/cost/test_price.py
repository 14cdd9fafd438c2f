"""Prices and what a call costs by them."""

from __future__ import annotations

import pytest

from interp.llm.cost.price import Price, parse_price
from sae.core.errors import USAGE, UserError


def test_call_costs_its_tokens_its_request_and_its_images() -> None:
    price = Price(prompt=2e-6, completion=1e-5, request=0.003, image=0.001)
    assert price.of(1000, 200, 2) == pytest.approx(0.002 + 0.002 + 0.003 + 0.002)


def test_price_of_the_command_line_is_per_million_tokens() -> None:
    assert parse_price("0.25,1.5") == Price(0.25e-6, 1.5e-6)
    assert parse_price(" 1 , 2, 0.004") == Price(1e-6, 2e-6, request=0.004)
    assert parse_price("0,0").of(1e9, 1e9, 9) == 0


@pytest.mark.parametrize(
    "text", ["", "1", "1,", "1,2,3,4", "-1,2", "1,nan", "inf,1", "cheap,dear", "$1,$2", "1;2"]
)
def test_what_is_no_price_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UserError, match=r"--price 0\.25,1\.50") as caught:
        parse_price(text)
    assert repr(text) in str(caught.value)
    assert caught.value.exit_code == USAGE
