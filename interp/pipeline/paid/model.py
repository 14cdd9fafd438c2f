"""Everything around paid questions: the model's price and abilities, the cap, the live view."""

from __future__ import annotations

import asyncio
import dataclasses
import math
import os
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

from interp.llm.cost.budget import Purse
from interp.llm.cost.model_list import (
    ModelInfo,
    fetch_models,
    find_model,
    list_models,
    read_cached_models,
)
from interp.llm.cost.price import Price, parse_price
from interp.llm.cost.tariff import Tariff
from interp.llm.cost.tokens import cheaper_layout
from interp.llm.ledger.ledger import Ledger
from interp.llm.server.client import ChatModel, ClientConfig
from interp.llm.server.preflight import STAGE as PREFLIGHT
from interp.llm.types import KEY_VARIABLE, is_own
from interp.pictures.grid import FIRST, SECOND
from interp.pictures.painter import Layout
from interp.pipeline.paid.live_view import Meter
from interp.pipeline.settings import AUTO, ModelSettings
from sae.core.errors import UserError
from sae.core.files import did_you_mean

_LOOK = 0.2
"""Seconds between two updates of the live view."""


def client_config(settings: ModelSettings) -> ClientConfig:
    """What the client needs of the settings."""
    return ClientConfig(
        model=settings.model,
        base_url=settings.base_url,
        concurrency=settings.in_flight,
        timeout=settings.timeout,
        deadline=settings.deadline,
        reasoning=settings.reasoning,
        max_tokens=settings.max_tokens,
        provider=settings.providers,
        quantization=settings.quantizations,
        zdr=settings.zdr,
    )


def paid_model(settings: ModelSettings, ledger: Ledger, stages: Iterable[str]) -> ChatModel:
    """The model to ask, under its price and the cap; what the stages have spent before counts.

    Raises `UserError` before anything is paid: no key, a text-only model, or a price that is needed
    and that nobody knows.
    """
    config = client_config(settings)
    info = model_info(settings)
    price = checked_price(settings, info)
    before = [*map(ledger.spent, (*stages, PREFLIGHT))]  # each stage may begin with a look
    purse = Purse(
        settings.max_cost,
        spent=sum(part.usd for part in before),
        n_unknown=sum(part.n_unknown for part in before),
        risked=sum(part.risked for part in before),
    )
    tariff = Tariff(settings.model, price, info.context if info else None)
    if settings.max_cost is not None and price is not None:
        most = (1e6 * price.prompt, 1e6 * price.completion)
        config = dataclasses.replace(config, max_price=most)
    return ChatModel(config, ledger, tariff=tariff, purse=purse)


def model_info(settings: ModelSettings) -> ModelInfo | None:
    """What the server's list says of the model; None when it has no list.

    Raises `UserError` for a model that takes no images, that OpenRouter does not have, or whose
    name is nearly that of one on the list. Other names are tried: llama.cpp answers to any.
    """
    key = os.environ.get(KEY_VARIABLE)
    try:
        # A server of one's own may serve another model an hour later.
        ask = fetch_models if is_own(settings.base_url) else list_models
        listing = ask(settings.base_url, key)
    except UserError:
        return None
    info = find_model(listing, settings.model)
    near = did_you_mean(settings.model, [model.id for model in listing.models])
    if info is None and (near or client_config(settings).needs_key):
        raise UserError(
            f"--model {settings.model!r} is not among the server's models{near}; nothing was sent "
            "(`interp models` lists them)"
        )
    if info is not None and info.sees_images is False:
        raise UserError(
            f"--model {settings.model!r} reads no images; `interp models` lists those that do"
        )
    return info


def listed_model(settings: ModelSettings) -> ModelInfo | None:
    """The same from the list that was fetched last, however old: opens no socket."""
    listing = read_cached_models(settings.base_url)
    return find_model(listing, settings.model) if listing else None


def checked_price(settings: ModelSettings, info: ModelInfo | None) -> Price | None:
    """`--price`, or else the server's; None where it does not matter.

    Raises `UserError` when it does: with a cap, or on somebody else's server without `--no-cap`.
    """
    price = known_price(settings, info)
    if price is not None:
        return price
    if settings.max_cost is not None:
        raise UserError(
            f"--max-cost needs the price of {settings.model!r}, which the server does not say; "
            "give it with --price IN,OUT (USD per million tokens)"
        )
    if not settings.no_cap and not is_own(settings.base_url):
        raise UserError(
            f"the server does not say what {settings.model!r} costs; give --price IN,OUT "
            "(USD per million tokens), or --no-cap to go without"
        )
    return None


def known_price(settings: ModelSettings, info: ModelInfo | None) -> Price | None:
    """`--price`, or else what the server's list says."""
    if settings.price:
        return parse_price(settings.price)
    return info.price if info else None


class Shape(NamedTuple):
    """The pictures of one question in both layouts, each (width, height) in pixels."""

    grids: Sequence[tuple[int, int]]
    singles: Sequence[tuple[int, int]]


EXPLAIN_SHAPE = Shape([(896, 672)] * 2, [(224, 224)] * (len(FIRST) + len(SECOND)))
JUDGE_SHAPE = Shape([(1120, 448)], [(224, 224)] * 10)


def layout_of(settings: ModelSettings, shape: Shape) -> Layout:
    """As it was asked for, or what the model bills less for."""
    if settings.layout == AUTO:
        return cheaper_layout(settings.model, shape.grids, shape.singles)
    return "grid" if settings.layout == "grid" else "separate"


@asynccontextmanager
async def watch(model: ChatModel, meter: Meter) -> AsyncIterator[None]:
    """Copy the engine's counters to the live view's meter while the block runs."""

    async def go_on() -> None:
        while True:
            _copy(model, meter)
            await asyncio.sleep(_LOOK)

    looking = asyncio.ensure_future(go_on())
    try:
        yield
    finally:
        looking.cancel()
        _copy(model, meter)


def _copy(model: ChatModel, meter: Meter) -> None:
    meter.n_answers, meter.n_sent = model.n_answered, model.n_sent
    meter.in_flight, meter.limit = model.gate.in_flight, model.gate.limit
    purse = model.purse
    nobody_says = purse.n_unknown > 0 and not purse.used
    meter.spent = math.nan if nobody_says else purse.used
    meter.reserved, meter.cap = purse.reserved, purse.cap
