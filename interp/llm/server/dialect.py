"""A request's fields, as a model and its server take them: a refusal -> what to send instead."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import Any, Literal, get_args

from interp.llm.server.error_body import Fault
from interp.llm.types import Question, ReplyError

Form = Literal["strict", "schema", "object", "plain"]
"""How JSON is asked for, strongest first: a strict schema, a schema, any object, in words only."""
FORMS: tuple[Form, ...] = get_args(Form)

What = Literal[
    "form", "room", "most_tokens", "thoughts", "temperature", "system", "pictures", "detail",
    "reasoning", "routing",
]  # fmt: skip
"""What a server may refuse; "thoughts" took all the room of an answer."""

INSTEAD: dict[str, str] = {
    "form": "JSON asked for more plainly",
    "room": "another field for the room of an answer, or none",
    "most_tokens": "less room for an answer",
    "thoughts": "more room for thoughts",
    "temperature": "the server's own temperature",
    "system": "the system text before the user's",
    "pictures": "all pictures of a question on one sheet",
    "detail": "`detail` beside each picture",
    "reasoning": "`reasoning_effort` for --reasoning",
    "routing": "no `provider`",
}
"""What is done after each refusal."""

_NEXT_ROOM = {"max_tokens": "max_completion_tokens", "max_completion_tokens": ""}
THOUGHTS = (0, 1_000, 4_000, 16_000)
"""Tokens that models which think get beside their answer, one step after the other."""
_LEAST_ROOM = 64


@dataclass(frozen=True)
class Dialect:
    """What is sent; the default is what most servers take."""

    form: Form = "strict"
    room: str = "max_tokens"
    """The field that bounds an answer; "" sends none."""
    most_tokens: int = 0
    """The largest bound that is taken; 0: none is known."""
    thoughts: int = 0
    """Tokens for what the model thinks, on top of those for its answer."""
    temperature: bool = True
    system: bool = True
    """Whether there is a system message; else its text leads the user's."""
    one_picture: bool = False
    """Whether all pictures of a question are drawn on one sheet."""
    detail: bool = False
    """Whether each picture says `"detail": "auto"`."""
    effort: str = "reasoning"
    """The field for --reasoning: OpenRouter's object, or OpenAI's `reasoning_effort`."""
    routing: bool = True
    """Whether OpenRouter's `provider` is sent."""

    def most(self, question: Question, most: int | None = None) -> int:
        """Tokens to reckon with where money is set aside: without a bound models end some day."""
        tokens = self.tokens(question, most)
        return tokens if self.room else max(tokens, THOUGHTS[-1])

    def tokens(self, question: Question, most: int | None = None) -> int:
        """The bound that is sent for an answer. `most`: --max-tokens, which is taken as it is."""
        wanted = most or question.max_tokens + self.thoughts
        return min(wanted, self.most_tokens or wanted)

    def for_schema(self, question: Question) -> Dialect:
        """Without a schema there is no form of asking for one."""
        return self if question.schema is not None else dataclasses.replace(self, form=FORMS[-1])

    def thinking(self, n_tried: int) -> Dialect:
        """With more than `n_tried` tokens for thoughts, as far as there is more."""
        more = next((step for step in THOUGHTS if step > n_tried), 0)
        return dataclasses.replace(self, thoughts=max(self.thoughts, more))

    def without(self, refused: Unsupported, question: Question, tokens: int) -> Dialect | None:
        """What to send after a refusal of `question` with a bound of `tokens`; None: no idea."""
        changes = self._changes(refused, question, tokens)
        return dataclasses.replace(self, **changes) if changes else None

    def _changes(self, refused: Unsupported, question: Question, tokens: int) -> dict[str, Any]:
        match refused.what:
            case "form" if self.form != FORMS[-1] and question.schema is not None:
                return {"form": FORMS[FORMS.index(self.form) + 1]}
            case "room" if self.room:
                return {"room": _NEXT_ROOM[self.room]}
            case "most_tokens":
                asked = tokens // 2 if refused.most is None else refused.most
                least = _LEAST_ROOM if refused.most else question.max_tokens
                return {"most_tokens": asked} if least <= asked < tokens else {}
            case "thoughts":
                return {"thoughts": self.thinking(tokens - question.max_tokens).thoughts}
            case "temperature" if self.temperature:
                return {"temperature": False}
            case "system" if self.system:
                return {"system": False}
            case "pictures" if not self.one_picture and len(question.pictures) > 1:
                return {"one_picture": True}
            case "detail" if not self.detail:
                return {"detail": True}
            case "reasoning" if self.effort == "reasoning":
                return {"effort": "reasoning_effort"}
            case "routing" if self.routing:
                return {"routing": False}
        return {}


class Unsupported(Exception):
    """The server does not take a field of the request; another one, or none, may do."""

    def __init__(self, what: What, error: ReplyError, most: int | None = None) -> None:
        """`error`: what to raise where nothing else can be sent; `most`: tokens that it allows."""
        super().__init__(str(error))
        self.what: What = what
        self.error = error
        self.most = most


_NOT = r"(?:not|n't|un)[ -]?(?:be )?(?:support|allow|permit|accept|enabl|known|recogni|expect)"
_FIELDS: tuple[tuple[What, re.Pattern[str]], ...] = (
    (
        "most_tokens",
        re.compile(
            r"(?:max_\w*tokens|(?:completion|output) tokens).{0,120}"
            r"(?:too (?:large|high|big)|at most|maximum|exceed|less than|<=|up to|no more than)"
            r"|too many (?:completion|output) tokens"
        ),
    ),
    ("room", re.compile(r"max_?(?:completion_|output_|new_)?tokens")),
    ("temperature", re.compile(r"\btemperature\b|\btop_p\b")),
    (
        "system",
        re.compile(
            r"\b(?:system|developer)\b.{0,60}(?:" + _NOT + r"|\brole\b|invalid)"
            r"|\broles?\b.{0,80}\bsystem\b|roles? must alternate|only user and assistant"
            r"|messages(?:\[0\]|\.0\.?)\.?role|first message must"
        ),
    ),
    ("reasoning", re.compile(r"\breasoning(?:_effort|\.effort)?\b")),
    (
        "pictures",
        re.compile(
            r"at most [1-9]\d* image|too many images|(?:only|maximum of|limit of) (?:one|1) image"
            r"|(?:multiple|several|more than (?:one|1)) images?\b"
            r"|\b(?:one|1|single) image (?:per|at)"
            r"|(?:only|at most|maximum of|up to|limit of|exceeds?).{0,40}\b[1-9]\d* images?\b"
        ),
    ),
    ("detail", re.compile(r"image_url\W+detail|\bdetail\b.{0,40}(?:required|missing|must be)")),
    (
        "form",
        re.compile(
            r"response_format|json[ _]schema|json[ _]object|structured|\bschema\b|\bstrict\b"
            r"|grammar|additionalproperties|requested parameters|filter by parameters"
        ),
    ),
    (
        "routing",
        re.compile(r"\bprovider\b.{0,60}(?:" + _NOT + "|extra|unrecogni|unknown)|"
                   r"(?:" + _NOT + r"|extra|unrecogni|unknown).{0,60}\bprovider\b"),
    ),
)  # fmt: skip
"""Words by which servers refuse a field, in lower case; the first that fits counts."""
_BOUND = re.compile(
    r"(?:at most|maximum(?: value)?(?: of| is| allowed)?|<=|less than(?: or equal to)?|up to|"
    r"no more than|limit of|exceeds?(?: the)?(?: limit)?(?: of)?|>)\D{0,60}?(\d[\d,]{1,8})"
)
_STATUSES = frozenset({400, 404, 413, 415, 422, 500, 501})


def refused_field(fault: Fault, said: str) -> tuple[What, int | None] | None:
    """Which field a server refuses, and how many tokens it allows where it says so.

    `said`: all that was said.
    """
    if fault.status not in _STATUSES:
        return None
    text = f"{said} {' '.join(sorted(fault.names))}".lower()
    what = next((what for what, words in _FIELDS if words.search(text)), None)
    if what is None:
        return None
    bound = _BOUND.search(text) if what == "most_tokens" else None
    return what, int(bound[1].replace(",", "")) if bound else None


def is_of_pictures(said: str) -> bool:
    """Whether it is their number that a server refuses."""
    return any(what == "pictures" and words.search(said.lower()) for what, words in _FIELDS)
