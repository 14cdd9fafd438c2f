"""What the fake vision server says: it looks at the pictures of a request."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

CELLS = (224, 336, 448)


COLOURS = {"red": 0, "yellow": 60, "green": 120, "cyan": 180, "blue": 240, "magenta": 300}


STROKES = "dark strokes"


COST = 0.001


Said = TypeVar("Said")


class Fault(NamedTuple):
    """What goes wrong with one request: a key of `ERRORS` or `TEXTS`, "hang", "drop", ..."""

    kind: str
    retry_after: float | None = None


@dataclass
class Request:
    """One request as it came."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    at: float
    """Monotonic seconds of arrival."""
    fault: Fault | None = None
    usage: dict[str, Any] = field(
        default_factory=lambda: {
            "prompt_tokens": 100,
            "completion_tokens": 20,
            "total_tokens": 120,
            "cost": COST,
        }
    )
    """What an answer to it says that it used."""
    answered: bool = False
    """Whether a chat completion (also an unusable one) was written back in full."""

    @property
    def digest(self) -> str:
        """Equal for equal bodies."""
        return hashlib.sha256(json.dumps(self.body, sort_keys=True).encode()).hexdigest()

    @property
    def texts(self) -> list[str]:
        """The text parts of the user's message."""
        return [p["text"] for p in self.body["messages"][-1]["content"] if p["type"] == "text"]

    @property
    def pictures(self) -> list[Image.Image]:
        """The image parts, decoded."""
        parts = self.body["messages"][-1]["content"]
        urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
        return [decoded(url) for url in urls]


@lru_cache(maxsize=64)
def decoded(url: str) -> Image.Image:
    """The picture of a data URL; tests ask about the same ones again and again."""
    data = base64.b64decode(url.partition("base64,")[2])
    return Image.open(io.BytesIO(data)).convert("RGB")


def once_for_each_area(
    read: Callable[[NDArray[np.int16]], Said],
) -> Callable[[NDArray[np.int16]], Said]:
    """What `read` says of an area, kept by the area's pixels."""
    kept: dict[tuple[tuple[int, ...], bytes], Said] = {}

    def look_up(area: NDArray[np.int16]) -> Said:
        key = area.shape, hashlib.sha256(area.tobytes()).digest()
        if key not in kept:
            kept[key] = read(area)
        return kept[key]

    return look_up


def seen(request: Request, codes: list[str]) -> list[NDArray[np.int16]]:
    """The picture areas of `codes`, which come one by one under their letters, or as one grid."""
    alone: dict[str, Image.Image] = {}
    pictures, title = iter(request.pictures), ""
    for part in request.body["messages"][-1]["content"]:
        if part["type"] == "text":
            title = part["text"]
            continue
        picture = next(pictures)
        if letter := re.search(r"Picture ([A-Z]):$", title):
            alone[letter.group(1)] = picture
    if not alone:
        return look(request.pictures[0], len(codes))
    return [np.asarray(alone[code]).astype(np.int16) for code in codes]


def look(picture: Image.Image, n: int) -> list[NDArray[np.int16]]:
    """The picture areas of the first `n` cells of a grid, without strip and frame: (h, w, 3)."""
    width, height = picture.size
    cell = next(c for c in CELLS if width % c == 0 and (width // c) * (height // c) >= n)
    strip, pixels = cell // 8, np.asarray(picture).astype(np.int16)
    areas = []
    for slot in range(n):
        row, column = divmod(slot, width // cell)
        top, left = row * cell + strip + 2, column * cell + strip // 2 + 2
        areas.append(pixels[top : (row + 1) * cell - 2, left : left + cell - strip - 4])
    return areas


@once_for_each_area
def shares(area: NDArray[np.int16]) -> dict[str, float]:
    """Share of an area's pixels that has each colour, or is dark."""
    most, least = area.max(axis=2), area.min(axis=2)
    vivid = most - least > 80
    found = {STROKES: float(np.mean(most < 110))}
    hue = np.asarray(Image.fromarray(area.astype(np.uint8)).convert("HSV"))[..., 0] * (360 / 256)
    for name, angle in COLOURS.items():
        near = np.abs((hue - angle + 180) % 360 - 180) <= 30
        found[name] = float(np.mean(vivid & near))
    return found


def explain_answer(request: Request) -> dict[str, Any]:
    """What the positives' cells share most: a colour, or dark strokes."""
    text = request.texts[0]
    codes = letters_in(re.search(r"pictures ((?:[A-Z](?:, | and )?)+)", text))
    neg_codes = letters_in(re.search(r"second set, ((?:[A-Z](?:, | and )?)+)", text))
    best = [max(shares(a).items(), key=lambda s: s[1]) for a in seen(request, codes)]
    found = [name if share > 0.005 else "blank paper" for name, share in best]
    (name, count), *_ = Counter(found).most_common()
    label = name if name in (STROKES, "blank paper") else f"a {name} area"
    fits = [code for code, seen in zip(codes, found, strict=True) if seen == name]
    return {
        "seen": dict(zip(codes, found, strict=True)),
        **({"second_set": "something else"} if neg_codes else {}),
        **({"region": "inside"} if "magenta outline" in text else {}),
        "candidates": [{"level": "mark", "text": label, "fits": fits}],
        "verdict": "single" if 2 * count > len(codes) else "unclear",
        "label": label,
        "second_label": None,
        "level": "mark",
        "description": f"A large part is {name}; other colours do not count.",
        "exceptions": [code for code in codes if code not in fits],
        "confidence": round(100 * count / len(codes)),
    }


def detect_answer(request: Request) -> dict[str, int]:
    """Each cell's share of what the rule names, 100 from a quarter of the cell on."""
    text = " ".join(request.texts)
    codes = letters_in(re.search(r"pictures ((?:[A-Z](?:, | and )?)+)", text))
    rule = re.search(r"<<<(.*?)>>>", text)
    named = [name for name in (*COLOURS, STROKES) if rule and name in rule.group(1)]
    areas = seen(request, codes)
    scores = [max((shares(area)[name] for name in named), default=0.0) for area in areas]
    return {code: min(100, round(400 * s)) for code, s in zip(codes, scores, strict=True)}


def simulate_answer(request: Request) -> dict[str, int]:
    """A tenth of what `detect` gets."""
    return {code: round(grade / 10) for code, grade in detect_answer(request).items()}


def intruder_answer(request: Request) -> dict[str, int]:
    """100 for the picture whose mean colour is farthest from the others'."""
    codes = letters_in(re.search(r"pictures ((?:[A-Z](?:, | and )?)+)", request.texts[-1]))
    means = np.array([area.mean((0, 1)) for area in seen(request, codes)])  # (n, 3)
    far = np.linalg.norm(means - np.median(means, axis=0), axis=1)
    return {code: int(100 * (place == far.argmax())) for place, code in enumerate(codes)}


def match_answer(request: Request) -> dict[str, int]:
    """The pictures' mean share of what each description names."""
    text = request.texts[-1]
    codes = letters_in(re.search(r"pictures ((?:[A-Z](?:, | and )?)+)", text))
    found = [shares(area) for area in seen(request, codes)]
    return {
        letter: round(
            100 * max((np.mean([f[n] for f in found]) for n in found[0] if n in label), default=0)
        )
        for letter, label in re.findall(r"^([A-Z]): <<<(.*?)>>>$", text, re.MULTILINE)
    }


def letters_in(found: re.Match[str] | None) -> list[str]:
    return re.findall(r"\b[A-Z]\b", found.group(1)) if found else []


def form_of(body: dict[str, Any]) -> str:
    asked = body.get("response_format") or {}
    if asked.get("type") == "json_schema":
        return "strict" if asked["json_schema"].get("strict") else "schema"
    return "object" if asked else "plain"


def text_of_answer(request: Request) -> str:
    if "second_label" in " ".join(request.texts):
        return json.dumps(explain_answer(request))
    if "Predict the detector" in " ".join(request.texts):
        return json.dumps(simulate_answer(request))
    if "does not belong" in " ".join(request.texts):
        return json.dumps(intruder_answer(request))
    if "Candidate descriptions" in " ".join(request.texts):
        return json.dumps(match_answer(request))
    if "Score each" in " ".join(request.texts):
        return json.dumps(detect_answer(request))
    if "Which colour" in " ".join(request.texts):
        whole = np.asarray(request.pictures[0]).astype(np.int16)
        return json.dumps({"colour": max(shares(whole).items(), key=lambda share: share[1])[0]})
    return "I see a picture."


def chat_body(request: Request, text: Any, reason: str = "stop") -> dict[str, Any]:
    return {
        "id": "gen-1",
        "object": "chat.completion",
        "created": 1,
        "model": request.body["model"],
        "provider": "Loopback",
        "choices": [
            {
                "index": 0,
                "finish_reason": reason,
                "message": {"role": "assistant", "content": text},
            }
        ],
        "usage": request.usage,
    }


def error(code: int | str, message: str, **metadata: Any) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "metadata": metadata}}


def respond(request: Request) -> tuple[int, bytes, str]:
    """Status, body and content type of one chat request, with its fault."""
    kind = request.fault.kind if request.fault else ""
    json_type = "application/json"
    if kind == "html":
        return 200, b"<html><body>Welcome</body></html>", "text/html"
    if kind == "broken":
        return 200, b'{"id": "gen-1", "choices": [{"mess', json_type
    if kind == "text_500":
        return 500, b"Internal Server Error", "text/plain"
    status, body = json_response(request, kind)
    return status, json.dumps(body).encode(), json_type


def json_response(request: Request, kind: str) -> tuple[int, dict[str, Any]]:
    if kind in ERRORS:
        return ERRORS[kind]
    if kind == "echo":
        return 400, error(400, f"bad request with headers {request.headers}")
    if kind == "echo_answer":
        return 200, chat_body(request, f"you sent {request.headers}")
    if kind == "choices_null":
        return 200, {**chat_body(request, ""), "choices": None}
    if kind == "choices_empty":
        return 200, {**chat_body(request, ""), "choices": []}
    if kind == "finish_error":
        return 200, chat_body(request, "half", "error")
    if kind == "blind":
        return 200, chat_body(request, '{"colour": "purple"}')
    if kind in TEXTS:
        text, reason = TEXTS[kind]
        return 200, chat_body(request, text, reason)
    if kind == "refusal":
        body = chat_body(request, None)
        body["choices"][0]["message"]["refusal"] = "I will not look at this."
        return 200, body
    said = text_of_answer(request)
    if kind == "truncated":
        return 200, chat_body(request, said[: len(said) // 2], "length")
    if kind == "wrong_letters":
        return 200, chat_body(request, re.sub(r'"A":', '"Q":', said))
    if kind == "fenced":
        return 200, chat_body(request, f"Here it is:\n```json\n{said[:-1]},}}\n```")
    assert not kind, f"unknown fault {kind}"
    return 200, chat_body(request, said)


ERRORS: dict[str, tuple[int, dict[str, Any]]] = {
    "400": (400, error(400, "the picture is broken", error_type="invalid_image")),
    "401": (401, error(401, "No auth credentials found")),
    "402": (402, error(402, "Insufficient credits", limit_source="openrouter_credits")),
    "402_in_flight": (
        402,
        error(402, "Too much in flight", limit_source="openrouter_in_flight_budget"),
    ),
    "403": (403, error(403, "Input flagged", reasons=["violence"], flagged_input="...")),
    "404": (404, error(404, "No endpoints found for fake/vision")),
    "408": (408, error(408, "Request timed out")),
    "429": (429, error(429, "Rate limited")),
    "500": (500, error(500, "Oops")),
    "503": (503, error(503, "No provider is up")),
    "error_200": (200, error(502, "Provider returned error", raw="upstream broke")),
    "error_200_odd": (200, {"error": "something"}),
    "error_200_429": (200, error(429, "Upstream is busy")),
}


TEXTS: dict[str, tuple[str | None, str]] = {
    "content_null": (None, "stop"),
    "prose": ("I think these are all lovely pictures.", "stop"),
    "content_filter": ("", "content_filter"),
}


def model_entry(name: str) -> dict[str, Any]:
    return {
        "id": name,
        "context_length": 32768,
        "architecture": {"input_modalities": ["text", "image"], "output_modalities": ["text"]},
        "pricing": {"prompt": "0.0000001", "completion": "0.0000005", "request": "0", "image": "0"},
        "supported_parameters": ["max_tokens", "temperature", "response_format"],
    }
