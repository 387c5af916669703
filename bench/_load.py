"""A load generator that costs little: requests in flight on keep-alive connections, each a few lines of asyncio.

Runs in a process of its own beside the service: `python bench/_load.py` reads one JSON object of arguments on standard
input and prints one of results.
"""

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


class _Connection(asyncio.Protocol):
    """One connection with one request in flight at a time."""

    def __init__(self, load: "_Load") -> None:
        self._load = load
        self._transport: Any = None  # uvloop's own class, no asyncio.Transport
        self._sent = 0.0
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._next()

    def _next(self) -> None:
        request = self._load.next_request()
        if request is None:
            self._transport.close()
            return
        self._sent = time.perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._buffer[:end].lower()
        at = head.find(b"content-length:")
        length = int(head[at + 15 :].split(b"\r\n", 1)[0])
        if len(self._buffer) < end + 4 + length:
            return
        self._buffer = b""
        self._load.answered(int(head[9:12]), time.perf_counter() - self._sent)
        self._next()

    def connection_lost(self, _: Exception | None) -> None:
        self._load.closed()


class _Load:
    def __init__(self, head: str, body: str, seconds: float, tag: str) -> None:
        self._head, self._body, self._tag = head, body, tag
        self._until = time.perf_counter() + seconds
        self._count = 0
        self._open = 0
        self.done = asyncio.Event()
        self.statuses: dict[int, int] = {}
        self.latencies: list[float] = []

    def next_request(self) -> bytes | None:
        if time.perf_counter() >= self._until:
            return None
        self._count += 1
        body = self._body.replace("@N@", f"{self._tag}-{self._count}")
        head = self._head.replace("@N@", f"{self._tag}-{self._count}").replace("@LENGTH@", str(len(body.encode())))
        return f"{head}\r\n\r\n{body}".encode()

    def answered(self, status: int, seconds: float) -> None:
        self.statuses[status] = self.statuses.get(status, 0) + 1
        self.latencies.append(seconds)

    def opened(self) -> None:
        self._open += 1

    def closed(self) -> None:
        self._open -= 1
        if self._open == 0:
            self.done.set()


async def _run(arguments: dict[str, Any]) -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    load = _Load(arguments["head"], arguments["body"], arguments["seconds"], arguments["tag"])
    began = time.perf_counter()
    for _ in range(arguments["in_flight"]):
        load.opened()
        await loop.create_connection(lambda: _Connection(load), arguments["host"], arguments["port"])
    await load.done.wait()
    seconds = time.perf_counter() - began
    ordered = sorted(load.latencies)

    def at(share: float) -> float:
        return round(1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))], 2) if ordered else 0.0

    return {
        "seconds": seconds,
        "statuses": load.statuses,
        "p50_ms": at(0.5),
        "p99_ms": at(0.99),
        "max_ms": at(1.0),
    }


def load(**arguments: Any) -> dict[str, Any]:
    """Keep `in_flight` requests under way for `seconds`. `head` and `body` may hold @N@ (a fresh number) and
    @LENGTH@ (of the body). Returns seconds, statuses, p50_ms, p99_ms, max_ms."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__).resolve())],
        input=json.dumps(arguments),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


if __name__ == "__main__":
    import uvloop

    print(json.dumps(uvloop.run(_run(json.load(sys.stdin)))))
