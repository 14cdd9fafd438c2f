"""A fake OpenAI-compatible vision server on 127.0.0.1, for tests: it really looks at the pixels.

It finds the pictures that it is sent, one by one or in the cells of a grid, says which colour (or
dark strokes) most of them share, and scores each by the share of a named colour. Faults can be
queued: each request takes one.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.support.servers.loopback_answers import (
    Fault,
    Request,
    error,
    form_of,
    model_entry,
    respond,
)
from tests.support.servers.serving import Served


@dataclass
class Loopback(Served):
    """Use as a context manager; `base_url` is what the client wants."""

    latency: float = 0.0
    """Seconds before an answer."""
    forms: frozenset[str] = frozenset({"strict", "schema", "object", "plain"})
    """Forms of asking for JSON that are taken; others get a 400."""
    always: Fault | None = None
    """What goes wrong with every request once `faults` is empty."""
    models: tuple[str, ...] = ("fake/vision",)
    listing: Any = None
    """Body of GET /models in place of one made of `models`; bytes are sent as they are, as HTML."""
    models_status: int = 200
    faults: deque[Fault | None] = field(default_factory=deque)
    """One is taken per chat request; None answers."""
    choose: Callable[[Request], Fault | None] | None = None
    """Decides what goes wrong with a request, in place of `faults` and `always`."""
    refuse: Callable[[Request], tuple[int, Any] | None] | None = None
    """Status and body of what is sent in place of an answer; None answers."""
    moved: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Path -> status and target of a redirect; such requests are not counted."""
    usage: Callable[[Request], dict[str, Any]] | None = None
    """What an answer says that it used, in place of 100 and 20 tokens for `COST`."""
    requests: list[Request] = field(default_factory=list)
    most_at_once: int = 0
    _running: int = 0
    _stopping: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def make_server(self) -> ThreadingHTTPServer:
        return _Server(self)

    def stop(self) -> None:
        self._stopping.set()

    @property
    def base_url(self) -> str:
        return f"{self.origin}/v1"

    @property
    def chats(self) -> list[Request]:
        """The questions that came, in order."""
        return [r for r in list(self.requests) if r.path.endswith("/chat/completions")]

    @property
    def answered(self) -> Counter[str]:
        """How often each question got an answer that a client must pay for."""
        return Counter(request.digest for request in self.chats if request.answered)

    def queue(self, *kinds: str | None, retry_after: float | None = None) -> None:
        """Queue faults by kind; None lets one request through."""
        self.faults.extend(None if kind is None else Fault(kind, retry_after) for kind in kinds)

    def arrive(self, request: Request) -> None:
        with self._lock:
            self.requests.append(request)
            self._running += 1
            self.most_at_once = max(self.most_at_once, self._running)
            if request.path.endswith("/chat/completions"):
                request.fault = self._fault_of(request)
                request.usage = self.usage(request) if self.usage else request.usage

    def _fault_of(self, request: Request) -> Fault | None:
        if self.choose is not None:
            return self.choose(request)
        return self.faults.popleft() if self.faults else self.always

    def leave(self) -> None:
        with self._lock:
            self._running -= 1

    def wait(self, seconds: float) -> None:
        """Wait, but not longer than the server lives."""
        self._stopping.wait(seconds)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, loopback: Loopback) -> None:
        self.loopback = loopback
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self) -> None:
        self.server.loopback.requests.append(
            Request(self.path, dict(self.headers), {}, time.monotonic())
        )
        loopback = self.server.loopback
        listing = loopback.listing
        if listing is None:
            listing = {"data": [model_entry(name) for name in loopback.models]}
        if isinstance(listing, bytes):
            return self._send(loopback.models_status, listing, "text/html")
        self._send(loopback.models_status, json.dumps(listing).encode(), "application/json")

    def do_POST(self) -> None:
        loopback = self.server.loopback
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path in loopback.moved:
            status, target = loopback.moved[self.path]
            self.send_response(status)
            self.send_header("Location", target)
            self.send_header("Content-Length", "0")
            return self.end_headers()
        request = Request(self.path, dict(self.headers), body, time.monotonic())
        loopback.arrive(request)
        try:
            self._answer(loopback, request)
        finally:
            loopback.leave()

    def _answer(self, loopback: Loopback, request: Request) -> None:
        kind = request.fault.kind if request.fault else ""
        if kind == "hang":
            loopback.wait(30)
        if kind in ("hang", "drop"):
            self.close_connection = True
            return
        loopback.wait(loopback.latency)
        form = form_of(request.body)
        if form not in loopback.forms:
            refused = error(400, f"response_format of the form {form} is not supported")
            return self._send(400, json.dumps(refused).encode(), "application/json")
        refused = loopback.refuse(request) if loopback.refuse else None
        if refused is not None:
            return self._send(refused[0], json.dumps(refused[1]).encode(), "application/json")
        status, data, content_type = respond(request)
        wait = request.fault.retry_after if request.fault else None
        # Marked before it is written: whatever the client may have read counts as paid.
        request.answered = status == 200 and b'"message": {"role"' in data
        self._send(status, data, content_type, wait)

    def _send(
        self, status: int, data: bytes, content_type: str, retry_after: float | None = None
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(data)))
        if retry_after is not None:
            self.send_header("Retry-After", f"{retry_after:g}")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Silent."""
