"""A run and its gallery -> a server on 127.0.0.1 that shows the pages and takes verdicts.

Only who has the token of the printed address gets an answer: it works once, and the answer brings a
cookie that no script reads and no other site sends.
"""

from __future__ import annotations

import io
import json
import secrets
import socket
import threading
import time
from collections.abc import Mapping
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from interp.report.gallery.script import script_json
from interp.review.intake import Intake, Refused
from interp.review.pages import INDEX, read_page
from interp.run.run import Run
from sae.core.errors import UserError
from sae.core.files import parse_object

HOST = "127.0.0.1"
PLACE = "/verdicts"
"""Where the page sends a verdict, and reads those of other pages."""
MOST_BYTES = 64 << 10
"""Of a verdict as it is sent; ours have at most 20 kB."""
DEADLINE = 10.0
"""Seconds that a request has to arrive as a whole, however slowly it drips."""
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "frame-ancestors 'none'",
}


class ReviewServer(ThreadingHTTPServer):
    """Listens from the moment it is made; `serve_forever` answers, `close` ends it cleanly."""

    daemon_threads = True

    def __init__(self, run: Run, port: int = 0, deadline: float = DEADLINE) -> None:
        """`port` 0 takes any that is free. Raises `UserError` where the port is taken."""
        self.intake, self.gallery = Intake(run), run.gallery.parent
        self._spending = threading.Lock()
        self._token: str | None = secrets.token_urlsafe(32)
        self.secret, self.deadline = secrets.token_urlsafe(32), deadline
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise UserError(f"--port {port} cannot be used: {error.strerror}") from None
        self.origin = f"http://{HOST}:{self.server_port}"
        self.cookie = f"review-{self.server_port}"
        self.address = f"{self.origin}/?token={self._token}"
        """What is opened in a browser, once: others may see it in the list of processes."""

    def use_token(self, word: str) -> bool:
        """Whether it is the token of the address, which then is spent."""
        with self._spending:
            if self._token is None or not is_same(word, self._token):
                return False
            self._token = None
            return True

    def close(self) -> None:
        """Stop listening, and finish the verdict that is being written."""
        self.server_close()
        self.intake.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away while it is sent something is no fault of ours."""


class _Handler(BaseHTTPRequestHandler):
    """One connection, one request."""

    server: ReviewServer
    _is_first = False
    """Whether the token was spent on this request."""
    server_version, sys_version = "interp", ""

    def setup(self) -> None:
        super().setup()
        self.rfile.close()
        self.rfile = io.BufferedReader(_Timely(self.connection, self.server.deadline))

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the first address holds the token."""

    def do_GET(self) -> None:
        if not self._is_ours():
            return
        if self.path == PLACE:
            self._answer_json(HTTPStatus.OK, self.server.intake.current())
            return
        page = read_page(self.server.gallery, self.path)
        if page is None:
            self._answer(HTTPStatus.NOT_FOUND, b"no such file in the gallery\n")
            return
        data, more = page.data, {}
        if page.name == INDEX:
            now = {"kept": "run", "reviews": self.server.intake.current()}
            data = f"G.now({script_json(now)});\n".encode() + data
        if self._is_first:
            cookie = f"{self.server.cookie}={self.server.secret}; Path=/; HttpOnly; SameSite=Strict"
            more["Set-Cookie"] = cookie
        kept = page.name.startswith("thumbs/")  # by the hash of its content
        more["Cache-Control"] = "private, max-age=86400" if kept else "no-store"
        self._answer(HTTPStatus.OK, data, page.type, more)

    def do_POST(self) -> None:
        if not self._is_ours():
            return
        if self.headers.get("Origin") != self.server.origin:
            self._refuse(HTTPStatus.FORBIDDEN, "a verdict comes from this page alone")
        elif self.path != PLACE:
            self._refuse(HTTPStatus.NOT_FOUND, f"verdicts go to {PLACE}")
        elif self.headers.get_content_type() != "application/json":
            self._refuse(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "a verdict is application/json")
        elif (length := self._length()) is not None:
            self._take(length)

    def _take(self, length: int) -> None:
        try:
            body = self.rfile.read(length)
        except TimeoutError:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, "the verdict came too slowly")
            return
        if len(body) < length:
            self._refuse(HTTPStatus.BAD_REQUEST, "the verdict was cut off")
            return
        try:
            saved = self.server.intake.take(parse_object(body, "the verdict"))
        except Refused as error:
            self._refuse(HTTPStatus.CONFLICT, f"{error}; `interp cards` makes the pages anew")
        except UserError as error:
            self._refuse(HTTPStatus.BAD_REQUEST, str(error))
        else:
            self._answer_json(HTTPStatus.OK, {"saved": saved.id, "at": saved.at})

    def _length(self) -> int | None:
        """Bytes of the body; None where it was refused unread."""
        said = self.headers.get("Content-Length", "")
        if self.headers.get("Transfer-Encoding") or not (said.isascii() and said.isdigit()):
            self._refuse(HTTPStatus.LENGTH_REQUIRED, "a verdict says its length")
            return None
        if len(said) > 9 or int(said) > MOST_BYTES:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"more than {MOST_BYTES:,} bytes")
            return None
        return int(said)

    def _is_ours(self) -> bool:
        """Whether our own page asks, or who has the address; anyone else is refused here."""
        hosts = self.headers.get_all("Host") or []
        origin = self.headers.get("Origin", self.server.origin)
        site = self.headers.get("Sec-Fetch-Site", "none")
        if hosts != [f"{HOST}:{self.server.server_port}"]:
            self._refuse(HTTPStatus.MISDIRECTED_REQUEST, f"only {self.server.origin} is answered")
        elif origin != self.server.origin:
            self._refuse(HTTPStatus.FORBIDDEN, "another site may not ask")
        elif site in ("same-origin", "none") and is_same(self._cookie(), self.server.secret):
            return True
        elif self.command == "GET" and self.server.use_token(self._token()):
            self._is_first = True
            return True
        else:
            told = "open the address that `interp review` has printed; it works once"
            self._refuse(HTTPStatus.FORBIDDEN, told)
        return False

    def _token(self) -> str:
        return parse_qs(urlsplit(self.path).query).get("token", [""])[0]

    def _cookie(self) -> str:
        try:
            found = SimpleCookie(self.headers.get("Cookie", "")).get(self.server.cookie)
        except CookieError:
            return ""
        return found.value if found else ""

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        self._answer_json(status, {"refused": why})

    def _answer_json(self, status: HTTPStatus, values: Any) -> None:
        self._answer(status, json.dumps(values).encode() + b"\n", "application/json")

    def _answer(
        self,
        status: HTTPStatus,
        data: bytes,
        type_: str = "text/plain; charset=utf-8",
        more: Mapping[str, str] | None = None,
    ) -> None:
        self.connection.settimeout(self.server.deadline)
        self.send_response(status)
        length = {"Content-Type": type_, "Content-Length": str(len(data))}
        for name, value in (_HEADERS | length | dict(more or {})).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


def is_same(word: str, secret: str) -> bool:
    """Takes as long for any wrong word."""
    return secrets.compare_digest(word.encode(errors="replace"), secret.encode())


class _Timely(io.RawIOBase):
    """What a connection sends, all of it before a deadline: else `TimeoutError`."""

    def __init__(self, connection: socket.socket, seconds: float) -> None:
        self._connection, self._until = connection, time.monotonic() + seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)
        return self._connection.recv_into(buffer)
