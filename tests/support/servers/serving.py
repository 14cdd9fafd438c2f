"""What the fake servers have in common: a thread that serves while a `with` block lasts."""

from __future__ import annotations

import threading
from http.server import HTTPServer
from types import TracebackType
from typing import Self


class Served:
    """A fake on 127.0.0.1, at a free port."""

    _server: HTTPServer
    _thread: threading.Thread

    def make_server(self) -> HTTPServer:
        raise NotImplementedError

    def stop(self) -> None:
        """Let go of requests that wait for something."""

    def __enter__(self) -> Self:
        self._server = self.make_server()
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def origin(self) -> str:
        """Where it is found, without a path."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"
