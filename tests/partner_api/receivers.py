"""A partner's program that hears web hooks."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec


class Heard(msgspec.Struct, frozen=True):
    """A request that a receiver got, and what it answered."""

    headers: dict[str, str]
    body: bytes
    status: int | None

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def message(self) -> Any:
        return msgspec.json.decode(self.body)

    @property
    def order_id(self) -> str:
        return str(self.message["data"]["order_id"])

    @property
    def version(self) -> int:
        return int(self.message["data"]["version"])


Say = Callable[[Heard], int | None]
"""What a receiver answers; None: nothing, it hangs."""


class Receiver:
    """A partner's program that listens for web hooks, by plain HTTP on loopback."""

    def __init__(self) -> None:
        self.heard: list[Heard] = []
        self.say: Say = lambda _: 204
        self.tail = b""
        self.extra = ""
        self.port = 0
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.StreamWriter] = set()
        self._closing = asyncio.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/told?by=lostwax"

    async def up(self) -> None:
        self._closing.clear()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def down(self) -> None:
        if self._server is not None:
            self._server.close()
            self._closing.set()
            for writer in self._connections:
                writer.close()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(writer)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                assert head[0] == "POST /told?by=lostwax HTTP/1.1"
                headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:] if line)}
                body = await reader.readexactly(int(headers["content-length"]))
                status = self.say(Heard(headers, body, None))
                self.heard.append(Heard(headers, body, status))
                if status is None:
                    await self._closing.wait()
                    return
                tail = b"" if status == 204 else self.tail
                writer.write(f"HTTP/1.1 {status} So\r\ncontent-length: {len(tail)}\r\n{self.extra}\r\n".encode() + tail)
                await writer.drain()
        self._connections.discard(writer)
        writer.close()

    def versions(self, order_id: str) -> list[int]:
        """Versions of an order that were acknowledged, as they came."""
        return [h.version for h in self.heard if h.status == 204 and h.order_id == order_id]
