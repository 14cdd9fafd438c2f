"""A server on 127.0.0.1 that sends each caller whatever bytes a test wants, also without an end."""

import gzip
import json
import socketserver
import threading
import time
import zlib
from contextlib import contextmanager
from functools import cache

ANSWER = json.dumps(
    {"choices": [{"message": {"content": "fine"}, "finish_reason": "stop"}]}
).encode()


class Raw(socketserver.ThreadingTCPServer):
    """Sends each caller what `send` writes, after it has read the request's head."""

    daemon_threads, allow_reuse_address = True, True

    def __init__(self, send, context=None):
        self.send, self.context, self.heads = send, context, []
        super().__init__(("127.0.0.1", 0), None)

    def finish_request(self, request, client_address):
        head = b""
        try:
            if self.context is not None:
                request = self.context.wrap_socket(request, server_side=True)
            while b"\r\n\r\n" not in head:
                got = request.recv(65536)
                if not got:
                    return
                head += got
            self.heads.append(head.split(b"\r\n")[0].decode())
            self.send(request)
        except OSError:
            pass

    def handle_error(self, request, client_address):
        """A client that went away is part of the tests."""


@contextmanager
def raw(send, context=None):
    with Raw(send, context) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        server.base_url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        yield server
        server.shutdown()


def head(status=200, *more):
    lines = [f"HTTP/1.1 {status} X", "Content-Type: application/json", *more, "", ""]
    return "\r\n".join(lines).encode()


def for_ever(request):
    request.sendall(head(200, "Connection: close"))
    while True:
        request.sendall(b" " * 65536)


def drop_by_drop(request):
    request.sendall(head(200, "Connection: close"))
    for _ in range(600):
        request.sendall(b" ")
        time.sleep(0.05)


@cache
def _bomb(times):
    body = gzip.compress(b" " * 200_000_000, 1)
    return body if times == 1 else gzip.compress(body)


def gzip_bomb(request):
    send_packed(request, "gzip", _bomb(1))


def packed_twice(request):
    send_packed(request, "gzip, gzip", _bomb(2))


def send_packed(request, how, body):
    request.sendall(head(200, f"Content-Encoding: {how}", f"Content-Length: {len(body)}") + body)


def gzip_answer(request):
    send_packed(request, "gzip", gzip.compress(ANSWER))


def gzip_for_ever(request):
    """As long as the client reads; a megabyte of it is a thousand."""
    request.sendall(head(200, "Content-Encoding: gzip", "Connection: close"))
    packer = zlib.compressobj(9, wbits=31)
    while True:
        request.sendall(packer.compress(b" " * 10_000_000))


def chunks_for_ever(request):
    request.sendall(head(200, "Transfer-Encoding: chunked"))
    while True:
        request.sendall(b"10000\r\n" + b" " * 65536 + b"\r\n")


def one_endless_chunk(request):
    request.sendall(head(200, "Transfer-Encoding: chunked") + b"fffffffffffff\r\n")
    while True:
        request.sendall(b" " * 65536)


def chunk_size_for_ever(request):
    request.sendall(head(200, "Transfer-Encoding: chunked"))
    while True:
        request.sendall(b"0" * 65536)


def header_for_ever(request):
    request.sendall(b"HTTP/1.1 200 OK\r\nX: ")
    while True:
        request.sendall(b"x" * 65536)


def headers_for_ever(request):
    request.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        request.sendall(b"X: y\r\n" * 10_000)


def hints_for_ever(request):
    """Interim answers, of which a server may send any number."""
    while True:
        request.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n" * 1000)


def error_for_ever(request):
    request.sendall(head(400, "Connection: close"))
    while True:
        request.sendall(b"x" * 65536)


ENDLESS = (
    for_ever, gzip_bomb, gzip_for_ever, packed_twice, chunks_for_ever, one_endless_chunk,
    chunk_size_for_ever, header_for_ever, headers_for_ever, hints_for_ever, error_for_ever,
)  # fmt: skip
