"""The two designs that are compared, over the same questions about the same pictures.

A latent is one question to explain it and several to score the explanation (detect), each with a
picture of its own. `ours` is the product's client, ledger and scheduler in two passes, as `interp
explain` and `interp score` make them. `serial_peer` is written from the description of delphi's
pipeline: the latent is the unit of concurrency.
"""

from __future__ import annotations

import asyncio
import io
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
from loopback_llm import LETTERS, PRICE_IN, PRICE_OUT
from PIL import Image

from interp.explain.answer import explain_schema, parse_explain
from interp.llm.cost.budget import Purse
from interp.llm.cost.price import Price
from interp.llm.cost.tariff import Tariff
from interp.llm.ledger.ledger import Ledger
from interp.llm.repair import ask_until_usable
from interp.llm.scheduler import append_run
from interp.llm.server.chat_format import request_body
from interp.llm.server.client import ChatModel, ClientConfig
from interp.llm.server.dialect import Dialect
from interp.llm.types import Picture, Question, ReplyError
from interp.score.answer import detect_schema, parse_scores
from sae.core.errors import BUDGET, UserError

MODEL = "loopback/vision"
_SYSTEM = "You look at pictures and answer with one JSON object. " * 20
_ASK = "Score each of the pictures A to J by the rule: <<<colour noise>>>. " * 8


@dataclass(frozen=True)
class Job:
    """What is asked, and within which bounds."""

    n_latents: int
    n_detect: int
    """Questions that score one latent."""
    concurrency: int
    """Requests in flight; 0 adapts (ours only)."""
    timeout: float
    """Seconds for one request."""
    max_cost: float | None
    """USD for all; only ours knows a cap."""
    pictures: tuple[bytes, ...]
    """JPEG files; the questions take turns."""


@dataclass(frozen=True)
class Asked:
    """One latent of one pass."""

    latent: int
    n_usable: int


def noise_jpegs(n: int, n_bytes: int, seed: int = 0) -> tuple[bytes, ...]:
    """`n` different JPEGs of noise, each within a few per cent of `n_bytes`."""
    draw = random.Random(seed)
    side = 300
    for _ in range(3):
        side = max(8, round(side * (n_bytes / len(_noise(draw, side))) ** 0.5))
    return tuple(_noise(draw, side) for _ in range(n))


def question(job: Job, latent: int, part: int) -> Question:
    """Part 0 explains, the others detect. The picture is new each time: nothing is cached."""
    n = latent * (1 + job.n_detect) + part
    name, schema = ("detect", detect_schema(tuple(LETTERS)))
    if part == 0:
        name, schema = ("explain", explain_schema(tuple(LETTERS)))
    return Question(
        system=_SYSTEM,
        parts=(
            f"Question {name} {latent}.{part}. {_ASK}",
            Picture(job.pictures[n % len(job.pictures)], "image/jpeg"),
        ),
        schema=schema,
        schema_name=name,
        max_tokens=600 if part == 0 else 120,
        temperature=0.0,
        prompt="benchmark",
        about=f"{'score' if part else 'explain'} {latent}",
    )


def load(job: Job, latent: int) -> None:
    """What loading a latent's examples costs at least: one picture is decoded."""
    with Image.open(io.BytesIO(job.pictures[latent % len(job.pictures)])) as image:
        image.convert("RGB")


def ours(job: Job, base_url: str, folder: Path) -> None:
    """Ask everything, or what `max_cost` allows. `folder` gets the ledger and the records."""
    with Ledger(folder / "calls.sqlite") as ledger:
        try:
            spent = _pass(job, base_url, ledger, 0.0, range(1))
            _pass(job, base_url, ledger, spent, range(1, 1 + job.n_detect))
        except UserError as error:
            if error.exit_code != BUDGET:
                raise


def serial_peer(job: Job, base_url: str, folder: Path) -> None:
    """As many latents at once as requests may be in flight; within one, strictly one by one.

    One attempt per call. An explanation that fails takes its latent along; a batch that fails is
    missing from the score. Loading is synchronous, on the event loop.
    """
    asyncio.run(_serial(job, base_url))


CLIENTS: dict[str, Callable[[Job, str, Path], None]] = {"ours": ours, "peer": serial_peer}


def _pass(job: Job, base_url: str, ledger: Ledger, spent: float, parts: range) -> float:
    """One command: these questions of all latents, the oldest latent first; USD spent so far."""
    config = ClientConfig(MODEL, base_url, job.concurrency or None, timeout=job.timeout)
    purse = Purse(job.max_cost, spent)
    tariff = Tariff(MODEL, Price(PRICE_IN, PRICE_OUT))
    model = ChatModel(config, ledger, "benchmark", tariff, purse)

    async def work(latent: int) -> Asked:
        await asyncio.to_thread(load, job, latent)
        asking = [_usable(model, question(job, latent, part)) for part in parts]
        return Asked(latent, sum(await asyncio.gather(*asking)))

    path = ledger.path.with_name(f"pass{parts.start}.jsonl")
    append_run(path, range(job.n_latents), work, concurrency=model.gate.room, opened=(model,))
    return purse.used


async def _usable(model: ChatModel, asked: Question) -> bool:
    try:
        await ask_until_usable(model, asked, _parser(asked))
    except ReplyError:
        return False
    return True


async def _serial(job: Job, base_url: str) -> None:
    server = openai.AsyncOpenAI(
        api_key="benchmark", base_url=base_url, max_retries=0, timeout=job.timeout
    )

    async def chain(latent: int) -> None:
        for part in range(1 + job.n_detect):
            usable = await _one_attempt(server, question(job, latent, part))
            if part == 0 and not usable:
                return

    async with server:
        await _latents_at_once(job, chain)


async def _latents_at_once(job: Job, chain: Callable[[int], Awaitable[None]]) -> None:
    running: set[asyncio.Future[None]] = set()
    for latent in range(job.n_latents):
        load(job, latent)
        running.add(asyncio.ensure_future(chain(latent)))
        await asyncio.sleep(0)
        if len(running) >= job.concurrency:
            _, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    await asyncio.gather(*running)


async def _one_attempt(server: openai.AsyncOpenAI, asked: Question) -> bool:
    body: dict[str, Any] = {**request_body(asked, MODEL, Dialect()), "max_tokens": asked.max_tokens}
    try:
        reply = await server.chat.completions.create(**body)
        _parser(asked)(reply.choices[0].message.content)
    except (openai.OpenAIError, ReplyError, ValueError, TypeError, AttributeError):
        return False
    return True


def _parser(asked: Question) -> Callable[[str], Any]:
    codes: Sequence[str] = tuple(LETTERS)
    if asked.schema_name == "explain":
        return lambda text: parse_explain(text, codes)
    return lambda text: parse_scores(text, codes)


def _noise(draw: random.Random, side: int) -> bytes:
    image = Image.frombytes("RGB", (side, side), draw.randbytes(3 * side * side))
    out = io.BytesIO()
    image.save(out, "JPEG", quality=90, subsampling=0)
    return out.getvalue()
