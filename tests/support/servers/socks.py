"""A SOCKS5 proxy on 127.0.0.1 (RFC 1928: CONNECT, no login) that leads every name to one port."""

from __future__ import annotations

import socket
import threading
from dataclasses import dataclass, field
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import Any

from tests.support.servers.serving import Served

_NAME, _IPV4, _IPV6 = 3, 1, 4


@dataclass
class Socks(Served):
    """Use as a context manager; `url` is what ALL_PROXY wants."""

    port: int = 0
    """Of this machine, in place of what is asked for."""
    refusal: int = 0
    """The code of every answer: 0 lets through, 5 is "connection refused"."""
    asked: list[str] = field(default_factory=list)
    """host:port of each CONNECT."""

    def make_server(self) -> Any:
        server = ThreadingTCPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"socks": self}))
        server.daemon_threads = True
        return server

    @property
    def url(self) -> str:
        return self.origin.replace("http", "socks5")


class _Handler(BaseRequestHandler):
    socks: Socks

    def handle(self) -> None:
        version, n_methods = self._read(2)
        assert version == 5
        self._read(n_methods)
        self.request.sendall(bytes([5, 0]))
        version, command, _, kind = self._read(4)
        assert (version, command) == (5, 1), "CONNECT alone"
        size = {_IPV4: 4, _IPV6: 16}[kind] if kind != _NAME else self._read(1)[0]
        host = self._read(size)
        port = int.from_bytes(self._read(2), "big")
        name = (
            host.decode()
            if kind == _NAME
            else socket.inet_ntop(socket.AF_INET if kind == _IPV4 else socket.AF_INET6, host)
        )
        self.socks.asked.append(f"{name}:{port}")
        self.request.sendall(bytes([5, self.socks.refusal, 0, _IPV4, 127, 0, 0, 1, 0, 0]))
        if self.socks.refusal == 0:
            with socket.create_connection(("127.0.0.1", self.socks.port)) as target:
                back = threading.Thread(target=_copy, args=(target, self.request), daemon=True)
                back.start()
                _copy(self.request, target)
                back.join()

    def _read(self, n: int) -> bytes:
        data = b""
        while len(data) < n:
            got = self.request.recv(n - len(data))
            if not got:
                raise ConnectionError("the client has gone")
            data += got
        return data


def _copy(source: socket.socket, target: socket.socket) -> None:
    """Until one side is done."""
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def closed_port() -> int:
    """Of this machine: nobody listens there."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
