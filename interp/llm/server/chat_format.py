"""The chat-completions form on the wire: a question as JSON, and what a body really says."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from interp.llm.prompts import render
from interp.llm.replies.json_text import objects_in
from interp.llm.server.dialect import Dialect, Form, Unsupported
from interp.llm.server.errors import failure
from interp.llm.server.sheet import put_on_one_sheet
from interp.llm.types import Picture, Question, Reply, ReplyError, Usage
from sae.core.errors import UserError

_HOLE = '"url": "\\u0000"'
"""Where a picture's URL goes."""


def request_body(question: Question, model: str, dialect: Dialect) -> dict[str, Any]:
    """The fields that OpenAI-compatible servers know, as this one takes them; no bound is in it."""
    return {
        "model": model,
        "messages": _messages(question, dialect),
        **({"temperature": question.temperature} if dialect.temperature else {}),
        **_response_format(question, dialect.form),
    }


def encode_body(body: Mapping[str, Any]) -> bytes:
    """A request's JSON. Pictures are spliced in: `json.dumps` would read through each again."""
    urls: list[str] = []

    def hollow(part: dict[str, Any]) -> dict[str, Any]:
        if part["type"] != "image_url":
            return part
        urls.append(part["image_url"]["url"])
        return {"type": "image_url", "image_url": {**part["image_url"], "url": "\0"}}

    messages = [
        {**message, "content": [hollow(part) for part in message["content"]]}
        if isinstance(message["content"], list)
        else message
        for message in body["messages"]
    ]
    # Quotes inside of a text are escaped, so that a hole is never found in one.
    first, *rest = json.dumps({**body, "messages": messages}).split(_HOLE)
    filled = (f'"url": "{url}"{text}' for url, text in zip(urls, rest, strict=True))
    return "".join([first, *filled]).encode("ascii")


def read_body(
    text: str, headers: Mapping[str, str], model: str, key: str
) -> Reply | ReplyError | UserError | Unsupported:
    """What a response with status 200 really is: an answer, or a reason why there is none.

    Raises nothing. Whatever else is odd in a body with an answer, the answer is kept: it is paid.
    """
    text = text.lstrip(_BLANK)
    if text[:1] == "<":
        return ReplyError("html", "a page of HTML instead of an answer; does the URL end in /v1?")
    if re.match(r"(?:data|event|id|retry)?:", text):
        return ReplyError("broken_body", "a stream of events, though none was asked for")
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        return ReplyError("broken_body", "the body is no whole JSON")
    error, choice = _error_in(body), _first_choice(body)
    if error is None and choice is None:
        return ReplyError("broken_body", "the body is no chat completion")
    used = _usage(body.get("usage")) if isinstance(body, dict) else _usage(None)
    found = failure(0, error, headers, model) if error else _answer(choice or {})
    if isinstance(found, _Said):
        provider = _name(body.get("provider"))
        answered = _name(body.get("model")) or model
        n_thought = _thought_tokens(body.get("usage"))
        return Reply(found.text, answered, provider, used, found.end, key, n_thought=n_thought)
    if isinstance(found, ReplyError) and (used.prompt_tokens or used.usd > 0):
        found.usage = used  # no answer, and billed all the same
    return found


_BLANK = "\ufeff \t\r\n"
"""Around JSON; gateways also send blanks before it to keep a slow connection open."""


class _Said(NamedTuple):
    """A model's text, and why it ended there."""

    text: str
    end: str


def _error_in(body: Any) -> Any:
    """The error that stands where the answer should, or None."""
    if isinstance(body, list):
        body = next((part for part in body if isinstance(part, dict)), None)
    if not isinstance(body, dict):
        return None
    if body.get("error"):
        return body["error"] if isinstance(body["error"], dict) else body
    choice = _first_choice(body)
    if choice and (choice.get("error") or choice.get("finish_reason") == "error"):
        return choice.get("error") or "the model stopped with an error"
    told = any(body.get(name) for name in ("detail", "message", "errors"))
    return body if not choice and told else None


def _first_choice(body: Any) -> dict[str, Any] | None:
    """The first choice; {} when there is a place for one and nothing in it."""
    choices = body.get("choices", ()) if isinstance(body, dict) else ()
    if choices is None or choices in ([], [None]):
        return {}
    first = choices[0] if isinstance(choices, list) else None
    return first if isinstance(first, dict) else None


def _answer(choice: Mapping[str, Any]) -> _Said | ReplyError:
    if not choice:
        return ReplyError("empty", "no choice in the answer")
    message = choice.get("message")
    message = message if isinstance(message, dict) else {}
    refusal = message.get("refusal")
    if isinstance(refusal, str) and refusal.strip():
        return _Said(_whole(refusal), "refusal")
    text = _join_text(message.get("content")) or _join_text(choice.get("text"))
    reason = choice.get("finish_reason")
    end = reason[:40].lower() if isinstance(reason, str) and reason else "stop"
    end = _ENDS.get(end, end)
    if end != "length" and not _has_object(text):
        text = _object_elsewhere(message) or text
    if text.strip() or end in ("length", "content_filter"):
        return _Said(_whole(text), end)
    if _join_thoughts(message):
        return ReplyError("empty", "only thoughts and no answer; try --reasoning none")
    if message.get("tool_calls") or message.get("function_call"):
        return ReplyError("empty", "a call of a tool instead of an answer")
    return ReplyError("empty", "no text in the answer")


def _object_elsewhere(message: Mapping[str, Any]) -> str:
    """The JSON object that stands where a tool would be called, or at the end of the thoughts."""
    calls = message.get("tool_calls")
    calls = [message.get("function_call"), *(calls if isinstance(calls, list) else [])]
    for call in calls:
        function = call.get("function", call) if isinstance(call, dict) else {}
        arguments = function.get("arguments") if isinstance(function, dict) else None
        text = json.dumps(arguments) if isinstance(arguments, dict) else arguments
        if isinstance(text, str) and _has_object(text):
            return text
    thoughts = _join_thoughts(message)[-_END_OF_THOUGHTS:]
    # A thought of the form in their midst is no answer.
    ends_in_it = thoughts.rstrip("` \r\n").endswith("}") and not _join_text(message.get("content"))
    return thoughts if ends_in_it and _has_object(thoughts) else ""


_THOUGHTS = ("reasoning_content", "reasoning", "reasoning_details", "thinking")
_END_OF_THOUGHTS = 10_000
"""Characters: an answer is shorter."""


def _join_thoughts(message: Mapping[str, Any]) -> str:
    for name in _THOUGHTS:
        thoughts = message.get(name)
        parts = thoughts if isinstance(thoughts, list) else [thoughts]
        texts = [part.get("text") if isinstance(part, dict) else part for part in parts]
        said = "".join(text for text in texts if isinstance(text, str))
        if said.strip():
            return said
    return ""


def _has_object(text: str) -> bool:
    try:
        return bool(objects_in(text))
    except ReplyError:
        return False


_ENDS = {
    "max_tokens": "length",
    "max_output_tokens": "length",
    "safety": "content_filter",
    "content_filtered": "content_filter",
    "refusal": "content_filter",
}
"""Other names for how an answer ends, as gateways pass them through."""


def _join_text(content: Any) -> str:
    """A text, or the texts among a list of parts, or JSON that a server has read already."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(_join_text(part) for part in content if not isinstance(part, list))
    if isinstance(content, dict) and content.get("type", "text") in ("text", "output_text"):
        text = content.get("text", content)
        return text if isinstance(text, str) else json.dumps(text) if text is content else ""
    return ""


def _usage(usage: Any) -> Usage:
    usage = usage if isinstance(usage, dict) else {}
    n_prompt, n_completion, usd = (
        _number(usage.get(name), most)
        for name, most in (("prompt_tokens", 1e9), ("completion_tokens", 1e9), ("cost", 1e6))
    )
    return Usage(_count(n_prompt), _count(n_completion), usd)


def _thought_tokens(usage: Any) -> int:
    details = usage.get("completion_tokens_details") if isinstance(usage, dict) else None
    told = details.get("reasoning_tokens") if isinstance(details, dict) else None
    return _count(_number(told, 1e9))


def _number(value: Any, most: float) -> float:
    """A number as it may be: not negative and not absurd, also written as text; else NaN."""
    try:
        number = float(value) if isinstance(value, int | float | str) else math.nan
    except (ValueError, OverflowError):
        return math.nan
    possible = 0 <= number <= most and not isinstance(value, bool)
    return number if possible else math.nan


def _count(number: float) -> int:
    return 0 if math.isnan(number) else int(number)


def _name(value: Any) -> str | None:
    return _whole(value[:200]) if isinstance(value, str) and value else None


def _whole(text: str) -> str:
    """Half of a surrogate pair, which JSON can carry, could never be written to a file."""
    return text.encode("utf-8", "replace").decode("utf-8")


def shown_parts(question: Question, dialect: Dialect) -> tuple[str | Picture, ...]:
    """Texts and pictures of a question as this server takes them: perhaps all on one sheet."""
    return put_on_one_sheet(question.parts) if dialect.one_picture else tuple(question.parts)


def _messages(question: Question, dialect: Dialect) -> list[dict[str, Any]]:
    parts = [_part(part, detail=dialect.detail) for part in shown_parts(question, dialect)]
    if dialect.form in ("object", "plain") and question.schema is not None:
        parts.append(_part(render("schema", schema=json.dumps(question.schema))))
    if not dialect.system:
        return [{"role": "user", "content": [_part(question.system), *parts]}]
    system = {"role": "system", "content": question.system}
    return [system, {"role": "user", "content": parts}]


def _part(part: str | Picture, *, detail: bool = False) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    url = f"data:{part.media_type};base64,{part.base64}"
    return {
        "type": "image_url",
        "image_url": {"url": url, **({"detail": "auto"} if detail else {})},
    }


def _response_format(question: Question, form: Form) -> dict[str, Any]:
    if question.schema is None or form == "plain":
        return {}
    if form == "object":
        return {"response_format": {"type": "json_object"}}
    named = {"name": question.schema_name, "schema": question.schema}
    strict = {"strict": True} if form == "strict" else {}
    return {"response_format": {"type": "json_schema", "json_schema": {**named, **strict}}}
