"""Which models a server has, what they cost and whether they see images; kept for a day.

OpenRouter tells all of it, vLLM and SGLang an id and a length, others little or nothing: what a
server does not say is None, never a guess. The key goes into the request's header and nowhere else.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, NamedTuple

from interp.llm.cost.price import Price
from interp.llm.server.wire import get_json
from interp.llm.types import KEY_VARIABLE, public_url
from sae.core.errors import UserError
from sae.core.files import FORMAT, sha256_hex, write_json

DAY = timedelta(days=1)
"""How long a listing is taken as it is."""

Structured = Literal["schema", "object", "no"]
"""A JSON schema is enforced, any JSON object is, or neither."""

_DEAREST = 1e-3
"""USD per token: $1,000 a million. What is above is in another unit than OpenRouter's."""
_SECRET = 16
"""Characters from which on a key is one; "none" or "ollama" may well stand in a model's name."""
_VARIANTS = (":free", ":nitro", ":floor")
"""Ways in which OpenRouter serves a model under its own name."""


@dataclass(frozen=True)
class ModelInfo:
    """What a server says of one model."""

    id: str
    sees_images: bool | None = None
    """None: the server does not say."""
    price: Price | None = None
    """None: not said, or it varies (a router). Behind a gateway some providers may cost more."""
    context: int | None = None
    """Tokens, question and answer together."""
    structured: Structured | None = None
    name: str = ""
    """For people."""


class Listing(NamedTuple):
    """All models of one server."""

    models: tuple[ModelInfo, ...]
    fetched: datetime
    """UTC."""

    @property
    def is_fresh(self) -> bool:
        """Whether it is less than a day old."""
        return timedelta(0) <= datetime.now(UTC) - self.fetched < DAY


def list_models(base_url: str, api_key: str | None) -> Listing:
    """From the cache while it is fresh, else from the server. Raises `UserError`."""
    listing = read_cached_models(base_url)
    if listing is not None and listing.is_fresh:
        return listing
    return fetch_models(base_url, api_key)


def read_cached_models(base_url: str) -> Listing | None:
    """What was fetched last, however old (see `fetched`); opens no socket."""
    try:
        stored = json.loads(_cache_file(base_url).read_text(encoding="utf-8"))
        if stored["format"] != FORMAT:
            return None
        models = tuple(_restored(row) for row in stored["models"])
        return Listing(models, datetime.fromisoformat(stored["fetched"]).astimezone(UTC))
    except (OSError, ValueError, KeyError, TypeError):
        return None  # a cache that cannot be read is as good as none


def fetch_models(base_url: str, api_key: str | None, timeout: float = 20.0) -> Listing:
    """Ask the server, and remember what it says. `timeout` in seconds.

    Raises `UserError` when there is no list to be had; many servers have none and work all the
    same.
    """
    body = _fetched(base_url, (api_key or "").strip(), timeout)
    if isinstance(body, UserError):
        raise body
    listing = Listing(_read(body, base_url), datetime.now(UTC))
    stored = {
        "format": FORMAT,
        "base_url": _name(base_url),
        "fetched": listing.fetched.isoformat(),
        "models": [dataclasses.asdict(model) for model in listing.models],
    }
    with suppress(OSError):  # a home that cannot be written to costs a request a run, no more
        write_json(_cache_file(base_url), stored)
    return listing


def find_model(listing: Listing, model: str) -> ModelInfo | None:
    """By its exact id; a variant that is not listed is found as the model that it is one of."""
    base = next((model.removesuffix(v) for v in _VARIANTS if model.endswith(v)), model)
    by_id = {info.id: info for info in listing.models}
    # Ollama lists a bare name as name:latest.
    return by_id.get(model) or by_id.get(base) or by_id.get(f"{model}:latest")


def _fetched(base_url: str, key: str, timeout: float) -> Any:
    """The body of GET /models, or the `UserError` to raise: outside of the handlers, because the
    SDK's own error holds the request with its headers."""
    import openai

    url = public_url(base_url)
    if not (key.isascii() and key.isprintable() and " " not in key):
        return UserError(f"{KEY_VARIABLE} has characters that no key has; export it again")
    try:
        body = get_json(base_url, "/models", key, timeout)
    except UserError as error:
        return error
    except openai.AuthenticationError:
        return UserError(f"{url} refuses the key (401); check {KEY_VARIABLE}")
    except openai.APIStatusError as error:
        return UserError(f"{url} has no list of models (status {error.status_code})")
    except (TimeoutError, openai.APITimeoutError):
        return UserError(f"{url} did not list its models in {timeout:g} s; try again later")
    except openai.APIConnectionError:
        return UserError(f"{url} cannot be reached; check --base-url and the network")
    except (ValueError, RecursionError):
        return _no_list(base_url)
    # A server may echo the key, and what it says is written to a file.
    text = json.dumps(body).replace(json.dumps(key)[1:-1], "[key]") if len(key) >= _SECRET else ""
    return json.loads(text) if text else body


def _no_list(base_url: str) -> UserError:
    return UserError(
        f"{public_url(base_url)} answered, but not with a list of models; does the URL end in /v1?"
    )


def _read(body: Any, base_url: str) -> tuple[ModelInfo, ...]:
    """From {"data": [...]} or a bare list; entries without an id are left out."""
    if isinstance(body, Mapping) and "data" in body:
        body = body["data"] or []  # Ollama without a model says null
    if not isinstance(body, list):
        raise _no_list(base_url)
    entries = [entry for entry in body if isinstance(entry, Mapping)]
    return tuple(_info(e) for e in entries if isinstance(e.get("id"), str) and _answers(e))


def _answers(entry: Mapping[str, Any]) -> bool:
    """Whether it writes text at all; models that only draw are listed too."""
    outputs = _part(entry, "architecture").get("output_modalities")
    return not isinstance(outputs, list) or "text" in outputs


def _info(entry: Mapping[str, Any]) -> ModelInfo:
    return ModelInfo(
        id=entry["id"],
        sees_images=_sees_images(entry),
        price=_price(_part(entry, "pricing")),
        context=_context(entry),
        structured=_structured(entry.get("supported_parameters")),
        name=str(entry.get("name") or ""),
    )


def _part(entry: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = entry.get(name)
    return part if isinstance(part, Mapping) else {}


def _sees_images(entry: Mapping[str, Any]) -> bool | None:
    inputs = _part(entry, "architecture").get("input_modalities")
    if isinstance(inputs, list):
        return "image" in inputs
    vision = _part(entry, "capabilities").get("vision")  # Mistral
    return vision if isinstance(vision, bool) else None


def _price(pricing: Mapping[str, Any]) -> Price | None:
    """USD as text or number; -1 stands for a price that varies."""
    prompt, completion = (_usd(pricing.get(name)) for name in ("prompt", "completion"))
    if prompt is None or completion is None or max(prompt, completion) > _DEAREST:
        return None
    request, image = (_usd(pricing.get(name, 0)) for name in ("request", "image"))
    if request is None or image is None:
        return None
    # Where thinking is dearer than writing, a cap must reckon with thinking.
    reasoning = _usd(pricing.get("internal_reasoning", 0)) or 0.0
    dearer = max(completion, reasoning) if reasoning <= _DEAREST else completion
    return Price(prompt, dearer, request, image)


def _usd(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _context(entry: Mapping[str, Any]) -> int | None:
    """OpenRouter; vLLM and SGLang; Mistral; Groq."""
    names = ("context_length", "max_model_len", "max_context_length", "context_window")
    lengths = (entry.get(name) for name in names)
    return next((length for length in lengths if isinstance(length, int) and length > 0), None)


def _structured(parameters: Any) -> Structured | None:
    if not isinstance(parameters, list):
        return None
    if "structured_outputs" in parameters:
        return "schema"
    return "object" if "response_format" in parameters else "no"


def _name(base_url: str) -> str:
    return public_url(base_url).rstrip("/")


def _cache_file(base_url: str) -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "sae-interp" / f"models-{sha256_hex(_name(base_url).encode())[:16]}.json"


def _restored(row: Mapping[str, Any]) -> ModelInfo:
    price = None if row["price"] is None else Price(**row["price"])
    return ModelInfo(**{**row, "price": price})
