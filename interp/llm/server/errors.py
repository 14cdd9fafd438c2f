"""From what a server sent instead of an answer to the one reason for it.

Three ends: a `ReplyError` (this question failed), `Unsupported` (ask in another dialect),
and a `UserError` for what no waiting and no other question can cure: it ends the run. Names come
from OpenRouter's documentation of its errors; words from what servers were seen to say.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from interp.llm.server.dialect import Unsupported, is_of_pictures, refused_field
from interp.llm.server.error_body import Fault, read_fault
from interp.llm.types import KEY_VARIABLE, Kind, ReplyError
from sae.core.errors import BUDGET, UserError

_AGAIN = "then run the same command: what was answered is not paid again"


Failure = ReplyError | UserError | Unsupported


def failure(status: int, body: Any, headers: Mapping[str, str], model: str) -> Failure:
    """The reason behind an error body; `status` is the HTTP status, 0 to take the error's own code.

    `body` is parsed JSON (the outer object or the inner error) or text. Nothing here is secret,
    except what a server echoes: clean the message before it is shown.
    """
    fault = read_fault(status, body, headers)
    return (
        _of_routing(fault, model)
        or _of_question(fault)
        or _of_account(fault)
        or _of_address(fault, model)
        or _of_server(fault)
    )


# A model without eyes, as OpenRouter, llama.cpp, vLLM, DeepSeek, Ollama and others put it; but not
# "images in webp format are not supported", which is about one picture.
_BLIND = re.compile(
    r"no endpoints found that support image|filter by image support"
    r"|(?:not|n't) support (?:vision|multi-?modal|images?)\b"
    r"(?!(?: inputs?| content)? (?:url|format|type|file|larger|in |of |with|over|size|detail))"
    r"|\bimages?(?: inputs?| content)? (?:is|are) not (?:supported|enabled|allowed)"
    r"|\bnot a (?:multi-?modal|vision) model|\btext-only model"
    r"|unknown variant .?image_url|only .?text.? content|required for image input"
    r"|at most 0 image",
    re.IGNORECASE,
)
_ROUTES = (
    ("--provider", re.compile(r"no allowed providers|filter by allowed providers", re.IGNORECASE)),
    ("--quantization", re.compile(r"quantization", re.IGNORECASE)),
    (
        "--zdr and https://openrouter.ai/settings/privacy",
        re.compile(r"data policy|guardrail|zero.data.retention|\bzdr\b", re.IGNORECASE),
    ),
)
_NO_ENDPOINT = re.compile(r"endpoint|allowed providers|routing", re.IGNORECASE)


def _of_routing(fault: Fault, model: str) -> UserError | None:
    """Nobody who serves this model takes what we send."""
    said = _with_step(fault)
    blind = _BLIND.search(said) and not is_of_pictures(said)
    if fault.status in (400, 404, 415, 422, 500, 501, 503) and blind:
        start = "start the server with --mmproj, or " if "mmproj" in said else ""
        return UserError(
            f"model {model!r} does not take images ({_shown(fault)}); {start}choose another "
            "--model: `interp models` lists those that do"
        )
    if fault.status in (400, 403, 404, 503) and _NO_ENDPOINT.search(said):
        for options, words in _ROUTES:
            if words.search(said):
                return UserError(
                    f"no provider of model {model!r} is left ({_shown(fault)}); check {options}"
                )
    return None


def _with_step(fault: Fault) -> str:
    """OpenRouter names the filter that left no endpoint."""
    return f"{fault.text} {fault.metadata.get('failed_routing_step', '')}"


_TOO_LONG = {
    "context_length_exceeded",
    "token_limit_exceeded",
    "string_too_long",
    "exceed_context_size_error",
}
_LONG = re.compile(
    r"exceed_context_size|\bcontext[ _](?:size|length|window)|maximum (?:context|model) length"
    r"|\bn_ctx\b|prompt is too long",
    re.IGNORECASE,
)
_TOO_LARGE = {"payload_too_large", "request_too_large", "image_too_large"}
_BAD_PICTURE = {
    "invalid_image",
    "image_too_small",
    "unsupported_image_format",
    "image_not_found",
    "image_download_failed",
    "image_parse_error",
}
TOO_LONG = "the request does not fit into the model's context"
_CUT = re.compile(r"max_tokens or model output limit was reached", re.IGNORECASE)
_MODERATED = {"content_policy_violation", "content_filter", "refusal"}


def _of_question(fault: Fault) -> ReplyError | Unsupported | None:
    """This question cannot be answered in this dialect; another one may be."""
    if fault.names & _MODERATED:
        return ReplyError("moderated", fault.message)
    if fault.status not in (400, 404, 413, 415, 422, 500, 501):
        return None
    if fault.status == 413 or fault.names & _TOO_LARGE:
        return _bad(fault, "the request is too large; ask with fewer or smaller pictures")
    if fault.names & _TOO_LONG or _LONG.search(fault.text):
        return _bad(
            fault, f"{TOO_LONG}; start the server with a longer one, or ask with fewer pictures"
        )
    if fault.names & _BAD_PICTURE:
        return _bad(fault, "the server cannot read a picture")
    if _CUT.search(fault.text):
        return Unsupported("thoughts", ReplyError("truncated", fault.message))
    if "max_tokens_exceeded" in fault.names:
        return ReplyError("truncated", fault.message)
    refused = refused_field(fault, _with_step(fault))
    if refused is None:
        return None
    what, most = refused
    error = _bad(fault, _REMEDIES[what]) if what in _REMEDIES else _plain(fault)
    return Unsupported(what, error, most)


_REMEDIES = {
    "pictures": "the server takes fewer pictures in one request; raise its limit (vLLM: "
    "--limit-mm-per-prompt)",
    "reasoning": "the server does not take --reasoning so; choose another effort or none of it",
    "most_tokens": "the server does not take so much room for an answer; lower --max-tokens",
}


def _plain(fault: Fault) -> ReplyError:
    return ReplyError("server" if fault.status >= 500 else "bad_request", _shown(fault), fault.wait)


_BUDGETS = {
    "openrouter_credits",
    "openrouter_key_limit",
    "openrouter_guardrail_budget",
    "openrouter_workspace_budget",
}
_FLAGGED = re.compile(r"moderat|flagged|content policy|safety|prompt injection", re.IGNORECASE)
_NO_CREDIT = re.compile(r"key limit|credit|quota|billing|budget", re.IGNORECASE)
_DAILY = re.compile(r"free-models-per-day", re.IGNORECASE)


def _of_account(fault: Fault) -> ReplyError | UserError | None:
    """The key, its money, and what it may do."""
    upstream = fault.metadata.get("provider_name") and not fault.metadata.get("limit_source")
    if fault.status in (401, 402) and upstream:
        # The gateway's own account with one provider: another one may answer the next time.
        return ReplyError("server", _shown(fault), fault.wait)
    if fault.status == 401:
        return UserError(f"the server refused the key ({_shown(fault)}); check {KEY_VARIABLE}")
    if fault.status == 402:
        return _unpaid(fault)
    if fault.status == 403:
        return _forbidden(fault)
    if fault.status == 429 and ("insufficient_quota" in fault.names or _DAILY.search(fault.text)):
        return _no_credit(fault)
    return None


def _unpaid(fault: Fault) -> ReplyError | UserError:
    if "weight_exceeds_budget" in fault.names:
        return _bad(
            fault,
            "this one request may cost more than the credit allows; add credit, or lower "
            "max_tokens",
        )
    if fault.names & _BUDGETS:
        return _no_credit(fault)
    # Credit reserved by our own requests in flight comes back when they end.
    waits = fault.wait is not None or re.search(r"in[-_ ]flight", fault.text, re.IGNORECASE)
    if waits or any("in_flight" in name for name in fault.names):
        return ReplyError("in_flight", fault.message, fault.wait)
    return _no_credit(fault)


def _forbidden(fault: Fault) -> ReplyError | UserError:
    if any(key in fault.metadata for key in ("reasons", "flagged_input", "patterns")):
        return ReplyError("moderated", fault.message)
    if fault.names & _BUDGETS:
        return _no_credit(fault)
    if fault.is_page:  # a gateway says its own in JSON: this is a wall in front of it
        return ReplyError("html", _shown(fault), fault.wait)
    if _FLAGGED.search(fault.text):
        return ReplyError("moderated", fault.message)
    if _NO_CREDIT.search(fault.text):
        return _no_credit(fault)
    return ReplyError("forbidden", fault.message)


def _no_credit(fault: Fault) -> UserError:
    what, remedy = "no credit left", "add credit"
    if fault.status == 429:
        what, remedy = "the day's or plan's allowance is used up", "wait for it or add credit"
    elif fault.names & (_BUDGETS - {"openrouter_credits"}) or "key limit" in fault.text.lower():
        what, remedy = "no credit left on this key", "raise the limit of the key or its budget"
    return UserError(f"{what} ({_shown(fault)}); {remedy}, {_AGAIN}", BUDGET)


_NO_MODEL = re.compile(
    r"not a valid model|unknown model|no such model|\bmodel\b.{0,200}\b(?:not found|not exist)",
    re.IGNORECASE,
)


_PLAIN = re.compile(r"plain http request|http request to an https server", re.IGNORECASE)


def _of_address(fault: Fault, model: str) -> ReplyError | UserError | None:
    """Nothing answers under this URL and model."""
    if fault.status == 400 and _PLAIN.search(fault.text):
        return UserError(f"the server speaks https ({_shown(fault)}); write it in --base-url")
    if fault.status in (405, 410) or (fault.status == 404 and fault.is_page):
        return UserError(
            f"nothing answers for model {model!r} ({_shown(fault)}); check --base-url (does it "
            "end in /v1?) and --model"
        )
    if fault.status == 404 and fault.metadata.get("provider_name"):
        return ReplyError("server", _shown(fault), fault.wait)  # one provider of several
    if fault.status == 404 or (fault.status == 400 and _NO_MODEL.search(fault.text)):
        return UserError(
            f"nothing answers for model {model!r} ({_shown(fault)}); check --model and --base-url: "
            "`interp models` lists what there is"
        )
    return None


def _of_server(fault: Fault) -> ReplyError:
    """Mostly cured by waiting."""
    status = fault.status
    if status == 429:
        return ReplyError("rate_limit", fault.message, fault.wait)
    if status == 524 or (status == 504 and fault.is_page):
        # A proxy gave up on a server that goes on, and may bill what nobody gets.
        return ReplyError("timeout", _shown(fault), fault.wait)
    if status in (503, 529):
        return ReplyError("overloaded", _shown(fault), fault.wait)
    if status in (408, 409, 425) or status >= 500:
        return ReplyError("server", _shown(fault), fault.wait)
    kind: Kind = "bad_request" if 400 <= status < 500 else "error_body"
    return ReplyError(kind, _shown(fault), fault.wait)


def _bad(fault: Fault, what: str) -> ReplyError:
    return ReplyError("bad_request", f"{what} ({_shown(fault)})")


def _shown(fault: Fault) -> str:
    return f"{fault.status}: {fault.message}" if fault.status else fault.message
