"""Outgoing HTTP of the web hooks: signed by Standard Webhooks, and never to an address that is none of the public's.

A client chooses where we connect to, so every connection looks its host up itself, refuses addresses of private and
local networks, and connects to the very address that it looked at: a name that changes meanwhile helps nobody.
"""

import asyncio
import contextlib
import ipaddress
import socket
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import httpcore
import msgspec

SECONDS = 10.0
"""An attempt may take so long, from looking up the host to the head of the answer."""

KEPT_BYTES = 1024
_DRAINED_BYTES = 16 * 1024
_DRAIN_S = 1.0
_LONGEST_URL = 1000
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Addresses of a host, best first. Raises OSError when it has none."""


class BadUrl(Exception):
    """No URL that could be a hook's; the message says why."""


class TargetRefused(httpcore.ConnectError):
    """The host has an address that we do not connect to."""


class Answer(msgspec.Struct, frozen=True):
    """What came back. No `status`: `error` says why there is none. `body`: the beginning, as text."""

    duration_ms: int
    status: int | None = None
    body: str | None = None
    error: str | None = None
    retry_after_s: int | None = None


def check_url(url: str, *, to_loopback: bool) -> tuple[str, int]:
    """Host and port of a URL that may be a hook's. Raises BadUrl."""
    if len(url) > _LONGEST_URL or not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        raise BadUrl(f"at most {_LONGEST_URL} printable ASCII characters without spaces")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise BadUrl(str(error)) from None
    if not host:
        raise BadUrl("it names no host")
    if parts.username is not None or parts.password is not None:
        raise BadUrl("leave out user name and password; the signature proves who is calling")
    if parts.fragment:
        raise BadUrl("leave out the fragment")
    if parts.scheme != "https" and not (parts.scheme == "http" and to_loopback and _names_loopback(host)):
        raise BadUrl("https is required")
    return host, port or (443 if parts.scheme == "https" else 80)


def _names_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def refused(addresses: Iterable[str], *, to_loopback: bool) -> str | None:
    """The first of the addresses that we do not connect to; None: all are well."""
    for text in addresses:
        address = _innermost(ipaddress.ip_address(text.partition("%")[0]))
        if address.is_loopback and to_loopback:
            continue
        if not address.is_global or address.is_multicast or address.is_reserved or address.is_unspecified:
            return text
        if isinstance(address, ipaddress.IPv6Address) and address.is_site_local:
            return text
    return None


def _innermost(address: Address) -> Address:
    """The IPv4 address that an IPv6 address stands for, where it stands for one."""
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if address.teredo is not None:
            return address.teredo[1]
        return address.ipv4_mapped or address.sixtofour or address
    return address


async def look_up(host: str, port: int) -> Sequence[str]:
    """Addresses of a host, by the system's resolver."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class _Guard(httpcore.AsyncNetworkBackend):
    """Connects to permitted addresses only."""

    def __init__(self, resolve: Resolve, to_loopback: bool) -> None:
        self._resolve, self._to_loopback = resolve, to_loopback
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            addresses = await self._resolve(host, port)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"cannot look up {host}: {error}") from error
        if (bad := refused(addresses, to_loopback=self._to_loopback)) is not None:
            raise TargetRefused(f"{host} is {bad}, where web hooks may not go")
        failure: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in addresses[:4]:
            try:
                return await self._inner.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.AsyncNetworkStream:
        raise TargetRefused("web hooks go to no socket files")

    async def sleep(self, seconds: float) -> None:
        await self._inner.sleep(seconds)


class Sender:
    """Posts to hooks. Follows no redirects, asks no proxy. `to_loopback`: this machine itself is a permitted target,
    by http too (tests, local stacks)."""

    def __init__(self, *, to_loopback: bool, resolve: Resolve = look_up, seconds: float = SECONDS) -> None:
        self.to_loopback, self.resolve, self._seconds = to_loopback, resolve, seconds
        self._pool = httpcore.AsyncConnectionPool(
            max_connections=128,
            max_keepalive_connections=32,
            keepalive_expiry=30,
            network_backend=_Guard(resolve, to_loopback),
        )

    async def check(self, url: str) -> None:
        """Whether a URL may be a hook's, and where it leads today. Raises BadUrl, TargetRefused, OSError (no such
        host, or the name service does not answer)."""
        host, port = check_url(url, to_loopback=self.to_loopback)
        try:
            async with asyncio.timeout(self._seconds / 2):
                addresses = await self.resolve(host, port)
        except UnicodeError as error:
            raise BadUrl(str(error)) from None
        if refused(addresses, to_loopback=self.to_loopback) is not None:
            raise TargetRefused(f"{host} is an address where web hooks may not go")

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """One attempt. Whatever goes wrong is in the answer."""
        began = time.monotonic()

        def took() -> int:
            return round((time.monotonic() - began) * 1000)

        sent = {"Content-Type": "application/json", "User-Agent": "Lostwax-Webhooks/1"} | dict(headers)
        stream = self._pool.stream("POST", url, headers=list(sent.items()), content=body)
        try:
            check_url(url, to_loopback=self.to_loopback)
            async with contextlib.AsyncExitStack() as held:
                async with asyncio.timeout(self._seconds):
                    response = await held.enter_async_context(stream)
                # The head decides; a body that does not come must not make a delivery fail that was acknowledged.
                return Answer(
                    status=response.status,
                    body=await _beginning(response),
                    retry_after_s=_retry_after(response.headers),
                    duration_ms=took(),
                )
        except TimeoutError:
            return Answer(duration_ms=took(), error=f"no answer within {self._seconds:g} s")
        except BadUrl as error:
            return Answer(duration_ms=took(), error=f"this URL is not allowed (any more): {error}")
        except (
            OSError,
            httpcore.NetworkError,
            httpcore.ProtocolError,
            httpcore.TimeoutException,
            httpcore.UnsupportedProtocol,
        ) as error:
            return Answer(duration_ms=took(), error=(str(error) or type(error).__name__)[:300])

    async def close(self) -> None:
        await self._pool.aclose()


async def _beginning(response: httpcore.Response) -> str | None:
    """The first KEPT_BYTES of the body. A little more is read, so that the connection can be used again."""
    got = b""
    with contextlib.suppress(TimeoutError, httpcore.NetworkError, httpcore.ProtocolError):
        async with asyncio.timeout(_DRAIN_S):
            async for chunk in response.aiter_stream():
                got += chunk
                if len(got) > _DRAINED_BYTES:
                    break
    # A character may be cut through, and PostgreSQL has no place for NUL.
    return got[:KEPT_BYTES].decode(errors="replace").replace("\0", "\ufffd")[:KEPT_BYTES] or None


def _retry_after(headers: Sequence[tuple[bytes, bytes]]) -> int | None:
    for name, value in headers:
        if name.lower() == b"retry-after" and value.isdigit():
            return int(value[:6])
    return None
