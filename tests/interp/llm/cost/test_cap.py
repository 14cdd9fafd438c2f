"""The cap on spending holds whatever servers charge, lose and refuse."""

from __future__ import annotations

import asyncio
import dataclasses
import math
import random

import pytest

from interp.llm.cost.budget import Purse
from interp.llm.cost.price import Price
from interp.llm.cost.tariff import Tariff
from interp.llm.cost.tokens import most_tokens
from interp.llm.ledger.ledger import Ledger
from interp.llm.server.client import ChatModel, ClientConfig
from interp.llm.types import Question, Reply, ReplyError, Usage
from sae.core.errors import BUDGET, UserError


class Bank:
    """Stands in for a server: bills what it likes up to the most that a request can take."""

    def __init__(self, rng: random.Random, model: str, price: Price) -> None:
        self.rng, self.model, self.price = rng, model, price
        self.billed = 0.0
        """Also for answers that never arrive."""
        self.says_cost = rng.random() < 0.7
        self.loses = rng.choice([0.0, 0.0, 0.05, 0.2])
        self.refuses = rng.choice([0.0, 0.1, 0.3])
        self.generous = rng.random()

    async def send(self, question: Question, form: str, seconds: float, key: str) -> Reply:
        for _ in range(self.rng.randrange(4)):
            await asyncio.sleep(0)
        if self.rng.random() < self.refuses:
            raise ReplyError("rate_limit", "too many")
        n_prompt = 1 + int(self.rng.random() ** self.generous * most_tokens(question, self.model))
        n_prompt = min(n_prompt, most_tokens(question, self.model))
        n_answer = self.rng.randint(0, question.max_tokens)
        usd = self.price.of(n_prompt, n_answer, len(question.pictures))
        self.billed += usd
        if self.rng.random() < self.loses:
            raise ReplyError("timeout", "no answer")
        usage = Usage(n_prompt, n_answer, usd if self.says_cost else math.nan)
        return Reply('{"A": 1}', self.model, "Bank", usage, "stop", key)

    async def close(self) -> None:
        """Nothing is open."""


def spend(seed: int, folder) -> tuple[float, float, float, float]:
    """Ask until the cap is reached: the cap, what was billed, what the purse counts, the worst."""
    rng = random.Random(seed)
    price = Price(
        prompt=10 ** rng.uniform(-8, -4.5),
        completion=10 ** rng.uniform(-8, -4),
        request=rng.choice([0.0, 10 ** rng.uniform(-6, -3)]),
    )
    question = Question(
        "s" * 50, ("t" * rng.randint(1, 900),), None, "", 700, 0.0, "p", 0, "explain"
    )
    tariff = Tariff("m", price)
    worst = tariff.worst(question)
    cap = worst * rng.uniform(20, 60)
    config = ClientConfig(
        "m", "http://127.0.0.1:9/v1", concurrency=16, first_wait=1e-6, deadline=1e9
    )

    async def main() -> tuple[Bank, Purse]:
        with Ledger(folder / f"{seed}.sqlite") as ledger:
            purse = Purse(cap)
            model = ChatModel(config, ledger, "sk-test", tariff, purse)
            model.n_answered = 1  # a server that is known to work: timeouts do not end the run
            bank = Bank(rng, "m", price)
            model._server = bank  # type: ignore[assignment]
            with pytest.raises(UserError) as caught:
                await ask_for_ever(model, question)
            assert caught.value.exit_code == BUDGET
            return bank, purse

    bank, purse = asyncio.run(main())
    return cap, bank.billed, purse.used, worst


async def ask_for_ever(model: ChatModel, question: Question) -> None:
    """16 askers that go on until the cap ends them."""
    serial = iter(range(10**9))

    async def asker() -> None:
        while True:
            asked = dataclasses.replace(question, attempt=2 * next(serial))
            try:
                await model.ask(asked)
            except ReplyError:
                continue

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_stops_all(asker)) for _ in range(16)]
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
    for task in done:
        raise task.result()


async def _stops_all(asker) -> UserError:
    try:
        await asker()
    except UserError as error:
        return error
    raise AssertionError("an asker ended without a reason")


@pytest.mark.parametrize("n_sequences", [40, pytest.param(1000, marks=pytest.mark.slow)])
def test_spending_never_passes_the_cap_and_all_but_a_little_of_it_can_be_used(
    tmp_path, n_sequences
):
    for seed in range(n_sequences):
        cap, billed, used, worst = spend(seed, tmp_path)
        assert billed <= cap * (1 + 1e-12), seed
        assert used >= 0.95 * cap - 1e-12 or used + worst > cap, seed
        assert used >= 0.95 * cap or worst > 0.05 * cap, seed
        assert used >= billed * (1 - 1e-12), seed


def test_the_cap_is_counted_over_all_calls_of_the_stage(tmp_path):
    price = Price(1e-6, 1e-6)
    question = Question("s", ("t",), None, "", 100, 0.0, "p", 0, "explain 1")
    tariff = Tariff("m", price)

    async def ask(purse: Purse, ledger: Ledger, number: int) -> None:
        config = ClientConfig("m", "http://127.0.0.1:9/v1", concurrency=1)
        model = ChatModel(config, ledger, "sk-test", tariff, purse)
        bank = Bank(random.Random(0), "m", price)
        bank.loses = bank.refuses = 0.0
        bank.says_cost = True
        model._server = bank  # type: ignore[assignment]
        await model.ask(dataclasses.replace(question, attempt=2 * number))

    with Ledger(tmp_path / "calls.sqlite") as ledger:
        asyncio.run(ask(Purse(1.0), ledger, 0))
        asyncio.run(ask(Purse(1.0), ledger, 1))
        spent = ledger.spent("explain")
        assert spent.usd > 0
        assert spent.risked == 0
        cap = spent.usd + 0.5 * tariff.worst(question)
        with pytest.raises(UserError, match="is reached"):
            asyncio.run(ask(Purse(cap, *spent), ledger, 2))
