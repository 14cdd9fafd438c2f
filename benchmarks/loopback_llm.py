"""A vision server for measuring clients: its own process, asyncio, next to no work per request.

It speaks enough HTTP/1.1 for chat completions, waits a seeded lognormal time, and answers what the
question's name asks for ("Question detect 17.3" in the first text part). Bodies are hashed as they
come in and never parsed. Run it by hand with `python benchmarks/loopback_llm.py --port 8099`;
GET /stats?cap=64 gives the figures so far, GET /log all requests.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import math
import random
import re
import sys
from collections import Counter
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

from llm_figures import Seen, as_json, figures

PRICE_IN, PRICE_OUT = 0.25e-6, 1.5e-6
"""USD per token."""
LETTERS = "ABCDEFGHIJ"
RETRY_AFTER = 1
"""Seconds, of the 429s in the fault mix."""
MIX = (
    ("429", 0.20),
    ("500", 0.05),
    ("hang", 0.05),
    ("bad_json", 0.025),  # a completion whose text is cut JSON: it is paid for
    ("broken", 0.025),  # a body that is cut JSON
    ("error_200", 0.05),
    ("html", 0.02),
)
_THROTTLED_IN = 0.02
"""Seconds until a request is turned away."""
_HEAD = 8192
"""Bytes of a body in which the question's name stands."""
_NAME = re.compile(rb"Question (\w+ [\d.]+)")


@dataclass(frozen=True)
class Settings:
    """How the server behaves; everything drawn comes from `seed` and the question's name."""

    latency: float = 0.5
    """Median, seconds."""
    sigma: float = 0.3
    """Of the logarithm of the latency."""
    faults: str = "none"
    """"none", "mix" (a question has its fault the first time only) or "iid" (every time anew)."""
    rpm: float = 0.0
    """Requests a minute that are let in, by a bucket of one second's worth; 0 for all."""
    seed: int = 0


@dataclass
class Server:
    """Counts, and decides what each request gets."""

    settings: Settings
    rows: list[Seen] = field(default_factory=list)
    times: Counter[str] = field(default_factory=Counter)
    """How often each question came."""
    not_before: dict[str, float] = field(default_factory=dict)
    """Body digest -> moment before which it must not come again."""
    tokens: float = 1.0
    filled_at: float = 0.0

    def plan(self, name: str, digest: str, now: float) -> Plan:
        """What a request that has just arrived will get."""
        n = self.times[name]
        self.times[name] += 1
        draw = random.Random(f"{self.settings.seed} {name} {n}")
        latency = draw.lognormvariate(math.log(self.settings.latency), self.settings.sigma)
        wait = self._full_bucket(now)
        fault = "429" if wait else self._fault(name, n)
        early = now < self.not_before.get(digest, 0.0)
        if fault == "429":
            wait = wait or RETRY_AFTER
            self.not_before[digest] = now + wait
            return Plan(_THROTTLED_IN, fault, early, 0.0, wait)
        share = 0.3 + 0.7 * draw.random()
        return Plan(math.inf if fault == "hang" else latency, fault, early, share, None)

    def _fault(self, name: str, n: int) -> str:
        """The fault of a question's `n`-th time."""
        if self.settings.faults == "none" or (self.settings.faults == "mix" and n > 0):
            return ""
        drawn = random.Random(f"fault {self.settings.seed} {name} {n}").random()
        for kind, share in MIX:
            drawn -= share
            if drawn < 0:
                return kind
        return ""

    def _full_bucket(self, now: float) -> int | None:
        """Take a token; None when there was one, else whole seconds until there is."""
        rate = self.settings.rpm / 60
        if rate <= 0:
            return None
        self.tokens = min(max(1.0, rate), self.tokens + (now - self.filled_at) * rate)
        self.filled_at = now
        if self.tokens >= 1:
            self.tokens -= 1
            return None
        return max(1, math.ceil((1 - self.tokens) / rate))


@dataclass(frozen=True)
class Plan:
    """What one request gets."""

    seconds: float
    fault: str
    early: bool
    share: float
    """Of the longest answer's tokens, which decides what it costs."""
    retry_after: int | None


class Connection(asyncio.Protocol):
    """One keep-alive connection; one request at a time."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._head = bytearray()
        self._line = ""
        self._body = bytearray()
        self._missing = -1
        self._timer: asyncio.TimerHandle | None = None
        self._asked: tuple[str, str, float, Plan] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._missing < 0:
            self._head += data
            head, found, data = bytes(self._head).partition(b"\r\n\r\n")
            if not found:
                return
            self._begin(head)
        self._missing -= len(data)
        self._sha.update(data)
        if len(self._body) < _HEAD:
            self._body += data[:_HEAD]
        if self._missing <= 0:
            self._complete()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._note(0, completed=False, usable=False, usd=0.0)

    def _begin(self, head: bytes) -> None:
        self._line = head.split(b"\r\n", 1)[0].decode("latin-1")
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        self._missing = int(length.group(1)) if length else 0
        self._sha = hashlib.sha256()
        self._head.clear()
        self._body.clear()

    def _complete(self) -> None:
        self._missing = -1
        method, path, _ = self._line.split(" ", 2)
        if method == "GET":
            return self._write(200, _report(self._server, path))
        named = _NAME.search(self._body)
        name = named.group(1).decode() if named else "other 0"
        now, digest = self._loop.time(), self._sha.hexdigest()
        plan = self._server.plan(name, digest, now)
        self._asked = (name, digest, now, plan)
        if plan.seconds < math.inf:
            self._timer = self._loop.call_later(plan.seconds, self._answer)

    def _answer(self) -> None:
        assert self._asked is not None
        self._timer = None
        name, _, _, plan = self._asked
        status, body, usd = answer(name, plan)
        completed = usd > 0
        self._note(status, completed, completed and plan.fault != "bad_json", usd)
        self._write(status, body, plan.retry_after, html=plan.fault == "html")

    def _note(self, status: int, completed: bool, usable: bool, usd: float) -> None:
        if self._asked is None:
            return
        name, digest, arrived, plan = self._asked
        self._asked = None
        now = self._loop.time()
        row = Seen(name, digest, arrived, now, status, completed, usable, usd, plan.early)
        self._server.rows.append(row)

    def _write(self, status: int, body: bytes, wait: int | None = None, html: bool = False) -> None:
        head = (
            f"HTTP/1.1 {status} -\r\nContent-Type: {'text/html' if html else 'application/json'}"
            f"\r\nContent-Length: {len(body)}\r\n"
            + (f"Retry-After: {wait}\r\n" if wait is not None else "")
            + "\r\n"
        )
        self._transport.write(head.encode("latin-1") + body)


def answer(name: str, plan: Plan) -> tuple[int, bytes, float]:
    """Status, body and USD of one answer; USD is 0 when there is nothing to pay for."""
    if plan.fault == "429":
        return 429, _error(429, "Rate limited"), 0.0
    if plan.fault == "500":
        return 500, _error(500, "Internal error"), 0.0
    if plan.fault == "error_200":
        return 200, _error(502, "Provider returned error"), 0.0
    if plan.fault == "html":
        return 200, b"<html><body>Bad gateway</body></html>", 0.0
    is_explain = name.startswith("explain")
    text = _EXPLAINED if is_explain else _SCORED
    usd = PRICE_IN * 900 + PRICE_OUT * plan.share * (600 if is_explain else 120)
    if plan.fault == "bad_json":
        text = text[: len(text) // 2]
    body = _completion(text, usd)
    return (200, body[: len(body) // 2], 0.0) if plan.fault == "broken" else (200, body, usd)


_SCORED = json.dumps({letter: 10 * n for n, letter in enumerate(LETTERS)})
_EXPLAINED = json.dumps(
    {
        "seen": dict.fromkeys(LETTERS, "coarse coloured noise with no shape in it"),
        "candidates": [
            {"level": "style", "text": "colour noise", "fits": list(LETTERS)},
            {"level": "mark", "text": "single bright dots", "fits": ["A", "B"]},
        ],
        "verdict": "single",
        "label": "colour noise",
        "second_label": None,
        "level": "style",
        "description": "Every part is noise in all colours; there is no edge and no object.",
        "exceptions": [],
        "confidence": 90,
    }
)


def _completion(text: str, usd: float) -> bytes:
    message = {"role": "assistant", "content": text}
    body = {
        "id": "gen-1",
        "object": "chat.completion",
        "created": 1,
        "model": "loopback/vision",
        "provider": "Loopback",
        "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
        "usage": {
            "prompt_tokens": 900,
            "completion_tokens": 100,
            "total_tokens": 1000,
            "cost": usd,
        },
    }
    return json.dumps(body).encode()


def _error(code: int, message: str) -> bytes:
    return json.dumps({"error": {"code": code, "message": message}}).encode()


def _report(server: Server, path: str) -> bytes:
    url = urlsplit(path)
    if url.path == "/log":
        return json.dumps(server.rows).encode()
    if url.path == "/stats":
        cap = int(parse_qs(url.query).get("cap", ["64"])[0])
        return json.dumps(as_json(figures(server.rows, cap))).encode()
    return json.dumps({"data": [{"id": "loopback/vision"}]}).encode()


async def serve(settings: Settings, port: int, with_parent: bool) -> None:
    """Print the port, then serve until interrupted (or until standard input ends)."""
    server, loop = Server(settings), asyncio.get_running_loop()
    listening = await loop.create_server(
        lambda: Connection(server), "127.0.0.1", port, backlog=1024
    )
    print(listening.sockets[0].getsockname()[1], flush=True)
    ended = asyncio.Event()
    if with_parent:
        loop.add_reader(sys.stdin, ended.set)
    await ended.wait()


def main() -> None:
    """Read the options and serve."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    default = Settings()
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one and prints it")
    parser.add_argument("--latency", type=float, default=default.latency, help="median, seconds")
    parser.add_argument("--sigma", type=float, default=default.sigma)
    parser.add_argument("--faults", choices=("none", "mix", "iid"), default=default.faults)
    parser.add_argument("--rpm", type=float, default=default.rpm, help="requests a minute; 0: all")
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--with-parent", action="store_true", help="stop when stdin ends")
    given = parser.parse_args()
    settings = Settings(given.latency, given.sigma, given.faults, given.rpm, given.seed)
    asyncio.run(serve(settings, given.port, given.with_parent))


if __name__ == "__main__":
    main()
