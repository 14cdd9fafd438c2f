"""`interp doctor`: what is here, what is missing, and what to type about it."""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

from interp.llm.ledger.ledger import Ledger
from interp.llm.server.client import ChatModel, ClientConfig
from interp.llm.server.preflight import check_sight
from interp.llm.server.wire import get_json
from interp.llm.types import KEY_VARIABLE, public_url
from sae.core.errors import UserError

PACKAGES = ("sae-interp", "torch", "torchvision", "open_clip_torch", "pillow", "openai", "pandas")
LITTLE_DISK = 5e9
"""Bytes under which the disk is worth a word."""
TIMEOUT = 20.0
"""Seconds for each question to a server."""


class Finding(NamedTuple):
    """One line of the report."""

    what: str
    state: str
    ok: bool = True


def examine(base_url: str, model: str | None) -> Iterator[Finding]:
    """Look at this machine, the key and (when one is named) a model, cheapest first.

    Only the questions to `base_url` use the network; the one to `model` may cost a fraction of a
    cent.
    """
    yield Finding("python", f"{platform.python_version()} on {platform.system()}")
    yield from _packages()
    yield _device()
    yield _disk()
    key = os.environ.get(KEY_VARIABLE, "")
    yield _key(key)
    yield _server(base_url, key)
    if model is not None and model != "local":
        yield _looks_at_images(base_url, model)


def mask_key(key: str) -> str:
    """Enough of a key to tell two apart: its length and last two characters."""
    return f"set, {len(key)} characters ending in ...{key[-2:]}" if len(key) >= 12 else "set"


def _packages() -> Iterator[Finding]:
    for name in PACKAGES:
        try:
            yield Finding(name, version(name))
        except PackageNotFoundError:
            yield Finding(name, "missing; run `pip install -e .`", ok=False)


def _device() -> Finding:
    import torch

    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        return Finding("device", f"cuda: {properties.name}, {properties.total_memory / 1e9:.0f} GB")
    return Finding("device", f"cpu, {os.cpu_count()} cores; no CUDA GPU (fine for the demo)")


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free
    return Finding("disk", f"{free / 1e9:.0f} GB free here", ok=free > LITTLE_DISK)


def _key(key: str) -> Finding:
    if not key:
        return Finding(
            KEY_VARIABLE, "not set; `--model local` needs none, OpenRouter does", ok=False
        )
    return Finding(KEY_VARIABLE, mask_key(key))


def _server(base_url: str, key: str) -> Finding:
    """Whether the server answers, and takes the key."""
    import openai

    url = public_url(base_url)
    try:
        # OpenRouter lists models to anyone; only its account page says whether the key works.
        if key and ClientConfig("any", base_url).is_openrouter:
            get_json(base_url, "/key", key, TIMEOUT)
            return Finding("server", f"{url} takes the key")
        listing = get_json(base_url, "/models", key, TIMEOUT)
        models = listing["data"] if isinstance(listing, dict) else listing
        return Finding("server", f"{url} answers and lists {len(models or [])} models")
    except UserError as error:
        return Finding("server", str(error), False)
    except openai.AuthenticationError:
        return Finding("server", f"{url} refuses the key (401); check {KEY_VARIABLE}", False)
    except openai.APIStatusError as error:
        return Finding("server", f"{url} answers with status {error.status_code}", False)
    except (TimeoutError, openai.APIConnectionError):
        return Finding("server", f"{url} cannot be reached; only `--model local` works", False)
    except (ValueError, KeyError, TypeError, RecursionError):
        return Finding("server", f"{url} does not speak the OpenAI protocol", False)


def _looks_at_images(base_url: str, model: str) -> Finding:
    """The questions that every paid run begins with."""
    try:
        asyncio.run(_ask_colours(base_url, model))
    except UserError as error:
        return Finding(model, str(error), ok=False)
    return Finding(model, "looks at images (named the colours of two squares)")


async def _ask_colours(base_url: str, model: str) -> None:
    config = ClientConfig(model=model, base_url=base_url, timeout=60, deadline=90)
    with tempfile.TemporaryDirectory() as folder, Ledger(Path(folder) / "calls.sqlite") as ledger:
        async with ChatModel(config, ledger) as client:
            await check_sight(client)
