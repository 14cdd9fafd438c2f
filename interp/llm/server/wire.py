"""A base URL and the environment -> a client that reads bodies under a cap and follows no stranger.

Variables of the environment that are wrong are a `UserError` which names them. The SDK's own
connection would follow redirects to anywhere, read bodies without an end, and end in tracebacks.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import re
import ssl
import warnings
import zlib
from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qs, urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx2

from interp.llm.types import is_own, public_url
from sae.core.errors import Notice, UserError

if TYPE_CHECKING:
    import openai

MOST_BYTES = 8_000_000
"""Of a body, as it comes and as it is unpacked: real answers have a thousandth of it."""
_MOST_OF_ERROR = 1_000_000
_UNPACKED = ("gzip", "x-gzip", "deflate")
_PACKED = (*_UNPACKED, "br", "zstd", "compress", "x-compress")
"""Names of the ways to pack a body."""
_MOST_REDIRECTS = 5
UNSENT = ("ConnectError", "ConnectTimeout", "ProxyError")
"""Names of the errors after which the server cannot have seen the request."""
_PROBE = 5.0
"""Seconds to see whether a port speaks TLS."""


class Proxy(NamedTuple):
    """Where requests go through, and who said so."""

    url: str
    variable: str

    def __str__(self) -> str:
        return f"the proxy {public_url(self.url)} that {self.variable} names"


def connect(
    base_url: str, key: str, timeout: float, *, has_key: bool, most: int = MOST_BYTES
) -> openai.AsyncOpenAI:
    """A client for one server that never retries. Raises `UserError` for a wrong environment."""
    import openai

    url = urlsplit(base_url)
    host = url.hostname or ""
    if has_key and url.scheme == "http" and not is_own(base_url):
        said = (
            f"the key and all pictures go to {host} over plain http: anybody between can read them"
        )
        warnings.warn(Notice(f"{said}; write https:// in --base-url"), stacklevel=2)
    proxy = find_proxy(base_url)
    inner = httpx2.AsyncHTTPTransport(
        verify=_tls_context(url.scheme == "https"),
        proxy=None if proxy is None else proxy.url,
        limits=openai.DEFAULT_CONNECTION_LIMITS,
    )
    query = parse_qs(url.query, keep_blank_values=True).items()
    # What the SDK would read from OPENAI_ORG_ID and the like is of another server.
    foreign: Any = dict.fromkeys(("OpenAI-Organization", "OpenAI-Project"), openai.omit)
    return openai.AsyncOpenAI(
        api_key=key,
        base_url=url._replace(query="", fragment="").geturl(),
        default_query={name: value[0] if len(value) == 1 else value for name, value in query},
        default_headers=foreign,
        max_retries=0,
        timeout=timeout,
        http_client=httpx2.AsyncClient(
            transport=_Guarded(inner, most),
            headers={"Accept-Encoding": "gzip, deflate"},
            trust_env=False,
            timeout=timeout,
        ),
    )


def get_json(base_url: str, path: str, key: str, seconds: float) -> Any:
    """The JSON body of one GET, for use outside of an event loop.

    Raises `UserError` for what a user can mend, `openai.APIError` and `TimeoutError` for what the
    server did, and `ValueError` or `RecursionError` for a body that is no JSON.
    """
    return asyncio.run(_get_json(base_url, path, key, seconds))


async def _get_json(base_url: str, path: str, key: str, seconds: float) -> Any:
    import openai

    headers: Any = {} if key else {"Authorization": openai.omit}
    async with connect(base_url, key or "none", seconds, has_key=bool(key)) as client:
        try:
            async with asyncio.timeout(seconds):
                return await client.get(path, cast_to=object, options={"headers": headers})
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            by_proxy = of_proxy(type(cause).__name__, str(cause), base_url)
            wrong = of_tls(cause, base_url) or by_proxy
            if wrong is None:
                raise
        except BadBody as error:
            wrong = UserError(f"{public_url(base_url)}: {error}; check --base-url")
        except UserError as error:
            wrong = UserError(str(error), error.exit_code)  # without the frames that hold the key
    raise wrong


def find_proxy(base_url: str) -> Proxy | None:
    """By the environment, as curl and browsers do; never for this machine and network."""
    url = urlsplit(base_url)
    host = url.hostname or ""
    if is_own(base_url) or proxy_bypass(host) or _in_no_proxy(host):
        return None
    proxies = getproxies()
    scheme = next((name for name in (url.scheme, "all") if proxies.get(name)), None)
    if scheme is None:
        return None
    named = proxies[scheme] if "://" in proxies[scheme] else f"http://{proxies[scheme]}"
    names = (f"{scheme}_proxy", f"{scheme.upper()}_PROXY")
    variable = next((name for name in names if os.environ.get(name)), names[1])
    proxy = Proxy(named, variable)
    wrong = _wrong_with(named)
    if wrong:
        raise UserError(
            f"{variable} is set to {public_url(named)!r}: {wrong}; mend or unset it, or name "
            f"{host} in NO_PROXY"
        )
    return proxy


def _wrong_with(proxy: str) -> str:
    """ "" for a proxy that can be used."""
    try:
        url = urlsplit(proxy)
        has_host = bool(url.hostname) and (url.port is None or url.port > 0)
        httpx2.URL(proxy)
    except (ValueError, httpx2.InvalidURL):
        return "that is no URL"
    if url.scheme not in ("http", "https", "socks5", "socks5h"):
        return f"{url.scheme}:// is no kind of proxy that is known (http, https, socks5, socks5h)"
    if not has_host:
        return "it has no host"
    if url.scheme.startswith("socks") and find_spec("socksio") is None:
        return "SOCKS needs one more package: pip install socksio"
    return ""


def _in_no_proxy(host: str) -> bool:
    """Whether NO_PROXY has "*" or a network with this address: what `proxy_bypass` overlooks."""
    entries = [entry.strip() for entry in getproxies().get("no", "").split(",")]
    if "*" in entries:
        return True
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(host)
        for entry in entries:
            with contextlib.suppress(ValueError):
                if address in ipaddress.ip_network(entry, strict=False):
                    return True
    return False


_TRUST = ("SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE")
_read_context = lru_cache(maxsize=4)(
    lambda _trust, trust_env: httpx2.create_ssl_context(trust_env=trust_env)
)
"""Reading all authorities takes tens of milliseconds: once for each setting of `_TRUST`."""


def _tls_context(needed: bool) -> ssl.SSLContext:
    """Whom to trust, by SSL_CERT_FILE and SSL_CERT_DIR; `needed` for an https URL."""
    names = [name for name in _TRUST if _set(name)]
    trust = tuple(map(_set, _TRUST))
    try:
        folder = _set("SSL_CERT_DIR")
        if folder and not os.path.isdir(folder):
            raise NotADirectoryError(f"{folder} is no folder")
        return _read_context(trust, True)
    except (OSError, ValueError) as error:
        if needed:
            named = " and ".join(f"{name}={_set(name)}" for name in names) or "the system's store"
            raise UserError(
                f"no certificates can be read by {named} ({error}); mend or unset it"
            ) from None
    return _read_context((), False)


def _set(name: str) -> str:
    return os.environ.get(name, "")


class BadBody(Exception):
    """A body without an end, or packed in a way that was not asked for."""


class _Guarded(httpx2.AsyncBaseTransport):
    """Reads whole bodies under a cap, and follows redirects on the same host only."""

    def __init__(self, inner: httpx2.AsyncBaseTransport, most: int) -> None:
        self._inner = inner
        self._most = most

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        for _ in range(_MOST_REDIRECTS):
            response = await self._inner.handle_async_request(request)
            try:
                if response.status_code not in (301, 302, 303, 307, 308):
                    return await self._read(request, response)
                target = _checked_target(request, response)
            finally:
                await response.aclose()
            content = await request.aread()
            headers = [(k, v) for k, v in request.headers.raw if k.lower() != b"host"]
            request = httpx2.Request(
                request.method, target, headers=headers, content=content,
                extensions=request.extensions,
            )  # fmt: skip
        raise UserError(f"{request.url.host} redirects in a circle; check --base-url")

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def _read(self, request: httpx2.Request, response: httpx2.Response) -> httpx2.Response:
        is_error = response.status_code >= 400
        most = min(self._most, _MOST_OF_ERROR) if is_error else self._most
        unpack = _unpacker(response.headers.get("content-encoding", ""))
        body, n_raw = bytearray(), 0
        async for chunk in response.stream:  # type: ignore[union-attr]
            n_raw += len(chunk)
            body += chunk if unpack is None else _unpacked(unpack, chunk, most + 1 - len(body))
            if max(len(body), n_raw) > most:
                if is_error:
                    break
                raise BadBody(f"the body has no end within {most / 1e6:g} MB")
            await asyncio.sleep(0)  # a deadline must also end what never waits
        told = (b"content-encoding", b"content-length", b"transfer-encoding")
        kept = [pair for pair in response.headers.raw if pair[0].lower() not in told]
        return httpx2.Response(
            response.status_code, headers=kept, content=bytes(body[:most]), request=request
        )


def _unpacker(told: str) -> Any:
    """By the Content-Encoding of a body; None for a plain one, also where it is no known name."""
    packed = [name for name in map(str.strip, told.lower().split(",")) if name in _PACKED]
    if len(packed) > 1 or not {*packed} <= {*_UNPACKED}:
        # The library would unpack it whole: a body packed twice gets a million times as large.
        raise BadBody(f"the body is packed as {told[:40]!r}, which was not asked for")
    return zlib.decompressobj(47) if packed else None


def _unpacked(unpack: Any, chunk: bytes, most: int) -> bytes:
    try:
        found: bytes = unpack.decompress(chunk, max(most, 1))
    except zlib.error as error:
        raise httpx2.DecodingError(f"the body is no whole gzip ({error})") from None
    return found


def _checked_target(request: httpx2.Request, response: httpx2.Response) -> httpx2.URL:
    """Where a redirect leads, if it is the same server; else nothing is sent there."""
    location = response.headers.get("location", "")
    try:
        target = request.url.join(location)
    except httpx2.InvalidURL:
        raise UserError(f"{request.url.host} redirects to no URL; check --base-url") from None
    here, there = request.url, target
    upgraded = (here.scheme, there.scheme) == ("http", "https") and here.port == there.port
    same = here.host == there.host and (
        (here.scheme, here.port) == (there.scheme, there.port) or upgraded
    )
    keeps = response.status_code != 303 and (response.status_code != 302 or request.method == "GET")
    if same and (keeps or request.method == "GET"):
        return target
    place = public_url(str(target)).removesuffix("/chat/completions").removesuffix("/models")
    raise UserError(
        f"{here.host} redirects ({response.status_code}) to {there.host}: nothing was sent there; "
        f"if that is the right server, give --base-url {place}"
    )


def of_tls(error: BaseException, base_url: str) -> UserError | None:
    """What a failed handshake tells, where waiting does not help."""
    said = f"{error!s} {error.__cause__!s}"
    url, host = public_url(base_url), urlsplit(base_url).hostname
    if "CERTIFICATE_VERIFY_FAILED" in said:
        why = re.sub(r".*CERTIFICATE_VERIFY_FAILED\]?\s*|\s*\(_ssl.*", "", str(error))[:120]
        return UserError(
            f"the certificate of {host} is not trusted ({why}); put the file of its authority "
            "into SSL_CERT_FILE"
        )
    if re.search(r"WRONG_VERSION_NUMBER|HTTP_REQUEST|RECORD_LAYER_FAILURE|UNKNOWN_PROTOCOL", said):
        plain = url.replace("https://", "http://", 1)
        return UserError(f"{host} does not speak https there; try --base-url {plain}")
    return None


def of_proxy(kind: str, said: str, base_url: str) -> UserError | None:
    """Of a request that was never sent, where it goes through a proxy."""
    proxy = find_proxy(base_url) if kind in UNSENT else None
    if proxy is None:
        return None
    return UserError(f"{proxy} does not let us through ({said or kind}); mend or unset it")


async def speaks_tls(base_url: str) -> bool:
    """Whether an https server listens where a plain http URL points."""
    url = urlsplit(base_url)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        async with asyncio.timeout(_PROBE):
            _, writer = await asyncio.open_connection(url.hostname, url.port or 80, ssl=context)
    except (OSError, TimeoutError, ValueError):
        return False
    writer.close()
    return True
