"""The chat-completions form on the wire: a question as JSON, and what a body really says."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Literal, get_args

import pydantic

from interp.failures import FormUnsupported, failure_in_body
from interp.prompts import render
from interp.questions import Picture, Question, Reply, ReplyError, Usage
from sae.errors import UserError

Form = Literal["strict", "schema", "object", "plain"]
"""How JSON is asked for, strongest first: a strict schema, a schema, any object, in words only."""
FORMS: tuple[Form, ...] = get_args(Form)


def request_body(question: Question, model: str, form: Form) -> dict[str, Any]:
    """The fields that every OpenAI-compatible server knows."""
    return {
        "model": model,
        "messages": _messages(question, in_words=form in ("object", "plain")),
        "max_tokens": question.max_tokens,
        "temperature": question.temperature,
        **_response_format(question, form),
    }


def read_body(
    text: str, headers: Mapping[str, str], model: str, key: str
) -> Reply | ReplyError | UserError | FormUnsupported:
    """What a response with status 200 really is: an answer, or a reason why there is none."""
    if text.lstrip()[:1] == "<":
        return ReplyError("html", "a page of HTML instead of an answer; does the URL end in /v1?")
    try:
        body = _Body.model_validate(json.loads(text))
    except (ValueError, RecursionError):
        return ReplyError("broken_body", "the body is no chat completion")
    if body.error:
        return failure_in_body(body.error, headers, model)
    if not body.choices:
        return ReplyError("empty", "no choice in the answer")
    choice = body.choices[0]
    if choice.error or choice.finish_reason == "error":
        return failure_in_body(choice.error or "the model stopped with an error", headers, model)
    reason = "refusal" if choice.message.refusal else choice.finish_reason or "stop"
    said = choice.message.refusal or choice.message.content or ""
    if not said.strip() and reason not in ("length", "content_filter"):
        return ReplyError("empty", "no text in the answer")
    usage = body.usage or _Usage()
    cost = math.nan if usage.cost is None else usage.cost
    used = Usage(usage.prompt_tokens or 0, usage.completion_tokens or 0, cost)
    provider = None if body.provider is None else _whole(body.provider)
    return Reply(_whole(said), _whole(body.model or model), provider, used, reason, key)


def _whole(text: str) -> str:
    """Half of a surrogate pair, which JSON can carry, could never be written to a file."""
    return text.encode("utf-8", "replace").decode("utf-8")


class _Usage(pydantic.BaseModel):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost: float | None = None


class _Message(pydantic.BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(pydantic.BaseModel):
    message: _Message
    finish_reason: str | None = None
    error: Any = None


class _Body(pydantic.BaseModel):
    choices: list[_Choice] | None = None
    error: Any = None
    usage: _Usage | None = None
    model: str | None = None
    provider: str | None = None


def _messages(question: Question, *, in_words: bool) -> list[dict[str, Any]]:
    parts = [_part(part) for part in question.parts]
    if in_words and question.schema is not None:
        parts.append(_part(render("schema", schema=json.dumps(question.schema))))
    system = {"role": "system", "content": question.system}
    return [system, {"role": "user", "content": parts}]


def _part(part: str | Picture) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    url = f"data:{part.media_type};base64,{part.base64}"
    return {"type": "image_url", "image_url": {"url": url}}


def _response_format(question: Question, form: Form) -> dict[str, Any]:
    if question.schema is None or form == "plain":
        return {}
    if form == "object":
        return {"response_format": {"type": "json_object"}}
    named = {"name": question.schema_name, "schema": question.schema}
    strict = {"strict": True} if form == "strict" else {}
    return {"response_format": {"type": "json_schema", "json_schema": {**named, **strict}}}
