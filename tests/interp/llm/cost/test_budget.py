import asyncio
import math

import pytest

from interp.llm.cost.budget import Purse
from interp.llm.cost.price import Price
from interp.llm.cost.tariff import Tariff
from interp.llm.cost.tokens import most_tokens
from interp.llm.types import Picture, Question, Usage
from sae.core.errors import BUDGET, UserError


def question(text="what is it", max_tokens=100):
    return Question("system", (text,), None, "", max_tokens, 0.0, "prompt")


def test_a_request_waits_until_its_worst_case_fits():
    async def main():
        purse, order = Purse(1.0), []
        first = await purse.reserve(0.6)

        async def second():
            ticket = await purse.reserve(0.6)
            order.append("second")
            purse.settle(ticket, 0.1)

        waiting = asyncio.create_task(second())
        await asyncio.sleep(0.01)
        assert order == []
        purse.settle(first, 0.2)
        await waiting
        assert (order, purse.spent, purse.reserved) == (["second"], pytest.approx(0.3), 0)

    asyncio.run(main())


def test_what_can_never_fit_ends_with_the_budget_exit_code_and_the_remedy():
    async def main():
        purse = Purse(1.0, spent=0.7)
        with pytest.raises(UserError, match="--max-cost 1 is reached") as caught:
            await purse.reserve(0.4)
        assert caught.value.exit_code == BUDGET

    asyncio.run(main())


def test_what_may_have_been_billed_counts_against_the_cap():
    async def main():
        purse = Purse(1.0)
        purse.lose(await purse.reserve(0.7))
        assert (purse.spent, purse.risked) == (0.0, 0.7)
        with pytest.raises(UserError, match="perhaps billed"):
            await purse.reserve(0.4)

    asyncio.run(main())


def test_where_more_is_billed_than_the_worst_case_as_much_is_set_aside_from_then_on():
    async def main():
        purse = Purse(1.0)
        tickets = [await purse.reserve(0.1) for _ in range(6)]
        purse.settle(tickets[0], 0.15)
        assert (purse.spent, purse.reserved) == (0.15, pytest.approx(0.75))
        waiting = asyncio.create_task(purse.reserve(0.1))  # would fit at .1, and costs .15
        await asyncio.sleep(0.01)
        assert not waiting.done()
        for ticket in tickets[1:]:
            purse.settle(ticket, 0.15)
        with pytest.raises(UserError, match=r"the next request may cost \$0.1500"):
            await waiting
        assert purse.spent == pytest.approx(0.9)

    asyncio.run(main())


def test_an_answer_of_unknown_cost_counts_as_its_worst_case():
    async def main():
        purse = Purse(1.0)
        purse.settle(await purse.reserve(0.7), math.nan)
        assert (purse.used, purse.n_unknown) == (0.7, 1)

    asyncio.run(main())


def test_without_a_cap_nothing_waits():
    async def main():
        purse = Purse()
        for _ in range(3):
            await asyncio.wait_for(purse.reserve(1e9), 1)
        assert purse.reserved == 3e9

    asyncio.run(main())


def test_the_worst_case_is_every_token_that_fits_and_the_context_bounds_it():
    price = Price(prompt=1e-6, completion=1e-5, request=0.5, image=0.25)
    picture = Picture(_png(), "image/png")
    asked = Question("s", ("text", picture), None, "", 100, 0.0, "p")
    n_prompt = most_tokens(asked, "unknown/model")
    worst = n_prompt * 1e-6 + 100 * 1e-5 + 0.5 + 0.25
    assert Tariff("unknown/model", price).worst(asked) == pytest.approx(worst)
    short = Tariff("unknown/model", price, context=10).worst(asked)
    assert short == pytest.approx(10e-6 + 100e-5 + 0.75)
    assert Tariff("unknown/model").worst(asked) == 0.0


def test_the_server_says_what_it_bills_and_else_the_price_list_does():
    tariff = Tariff("m", Price(1e-6, 1e-5))
    assert tariff.billed(question(), Usage(100, 20, 0.5)) == 0.5
    assert tariff.billed(question(), Usage(10, 20, math.nan)) == pytest.approx(10e-6 + 20e-5)
    assert math.isnan(tariff.billed(question(), Usage(0, 0, math.nan)))
    assert math.isnan(Tariff("m").billed(question(), Usage(10, 20, math.nan)))


def test_a_model_that_bills_beyond_its_bound_raises_the_bound():
    tariff, asked = Tariff("m", Price(1e-6, 0.0)), question()
    before = tariff.worst(asked)
    tariff.billed(asked, Usage(4 * most_tokens(asked, "m"), 0, math.nan))
    assert tariff.worst(asked) == pytest.approx(5 * before)


def _png():
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (224, 224)).save(file, "PNG")
    return file.getvalue()
