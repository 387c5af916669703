"""A load generator that costs little: requests in flight on keep-alive connections, each a few lines of asyncio.

Runs in a process of its own beside the service: `python bench/_load.py` reads one JSON object of arguments on standard
input and prints one of results.
"""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

UNANSWERED = 0
"""Counted as this status: a request whose connection ended before its answer."""


class _Connection(asyncio.Protocol):
    """One connection with one request in flight at a time."""

    def __init__(self, load: "_Load") -> None:
        self._load = load
        self._transport: Any = None  # uvloop's own class, no asyncio.Transport
        self._due = 0.0
        self._number = 0
        self._buffer = b""
        self._waits = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._load.idle(self)

    def send(self, request: bytes, number: int, due: float) -> None:
        self._due, self._number, self._waits = due, number, True
        self._transport.write(request)

    def close(self) -> None:
        self._transport.close()

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
        body, self._buffer, self._waits = self._buffer[end + 4 :], b"", False
        status = int(head[9:12])
        if status == 503 and b"retry-after:" not in head:
            status = -503
        self._load.answered(status, self._number, self._due, body)
        self._load.idle(self)

    def connection_lost(self, _: Exception | None) -> None:
        if self._waits:
            self._load.answered(UNANSWERED, self._number, self._due, b"")
        self._load.lost(self)


class _Load:
    """With a `rate` requests are due at fixed times, and latency counts from then, also while no connection is free;
    without one each connection sends its next request as soon as it is answered."""

    def __init__(
        self,
        connect: Callable[["_Load"], Awaitable[object]],
        requests: list[list[str]],
        seconds: float,
        tag: str,
        rate: float | None,
        most: int | None,
        record: Path | None,
    ) -> None:
        self._connect = connect
        self._requests, self._tag, self._rate, self._most = requests, tag, rate, most
        self._record = None if record is None else record.open("ab", buffering=0)
        self._clock_ahead = time.time() - time.perf_counter()
        self._began = time.perf_counter()
        self._until = self._began + seconds
        self._count = 0
        self._open = 0
        self._connecting: set[asyncio.Task[object]] = set()
        self._idle: list[_Connection] = []
        self.done = asyncio.Event()
        self.statuses: dict[int, int] = {}
        self.latencies: dict[int, list[float]] = {}

    def idle(self, connection: _Connection) -> None:
        if self._over(time.perf_counter()):
            connection.close()
        elif self._rate is None:
            connection.send(self._next(), self._count, time.perf_counter())
        else:
            self._idle.append(connection)

    async def pace(self) -> None:
        assert self._rate is not None
        while not self._over(now := time.perf_counter()):
            while self._idle and (due := self._began + self._count / self._rate) <= now and not self._over(now):
                self._idle.pop().send(self._next(), self._count, due)
            await asyncio.sleep(0.001)
        for connection in self._idle:
            connection.close()

    def _over(self, now: float) -> bool:
        return now >= self._until or (self._most is not None and self._count >= self._most)

    def _next(self) -> bytes:
        head, body = self._requests[self._count % len(self._requests)]
        self._count += 1
        body = body.replace("@N@", f"{self._tag}-{self._count}")
        head = head.replace("@N@", f"{self._tag}-{self._count}").replace("@LENGTH@", str(len(body.encode())))
        return f"{head}\r\n\r\n{body}".encode()

    def answered(self, status: int, number: int, due: float, body: bytes) -> None:
        seconds = time.perf_counter() - due
        self.statuses[status] = self.statuses.get(status, 0) + 1
        self.latencies.setdefault(status, []).append(seconds)
        if self._record is not None:
            line = {
                "at": due + self._clock_ahead, "seconds": seconds, "status": status, "submission":
                f"{self._tag}-{number}", "body": body.decode(errors="replace"),
            }  # fmt: skip
            self._record.write(json.dumps(line).encode() + b"\n")

    async def open(self) -> None:
        self._open += 1
        await self._connect(self)

    def lost(self, connection: _Connection) -> None:
        """A server closes what is idle for long; the load goes on by a new connection."""
        self._open -= 1
        if connection in self._idle:
            self._idle.remove(connection)
        if not self._over(time.perf_counter()):
            task = asyncio.ensure_future(self._reopen())
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)
        elif self._open == 0:
            self.done.set()

    async def _reopen(self) -> None:
        self._open += 1
        while True:
            try:
                await self._connect(self)
                return
            except OSError:
                if self._over(time.perf_counter()):
                    self._open -= 1
                    if self._open == 0:
                        self.done.set()
                    return
                await asyncio.sleep(0.05)


async def _run(arguments: dict[str, Any]) -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    requests = arguments.get("requests") or [[arguments["head"], arguments.get("body", "")]]
    rate = arguments.get("rate")
    record = Path(arguments["record"]) if arguments.get("record") else None

    async def connect(load: _Load) -> None:
        await loop.create_connection(lambda: _Connection(load), arguments["host"], arguments["port"])

    load = _Load(connect, requests, arguments["seconds"], arguments["tag"], rate, arguments.get("most"), record)
    began = time.perf_counter()
    for _ in range(arguments["in_flight"]):
        await load.open()
    if rate is not None:
        await load.pace()
    await load.done.wait()
    seconds = time.perf_counter() - began
    well = sorted(s for status, some in load.latencies.items() if 200 <= status < 300 for s in some)

    def at(share: float) -> float:
        return round(1000 * well[min(len(well) - 1, int(share * len(well)))], 2) if well else 0.0

    return {
        "seconds": seconds,
        "statuses": load.statuses,
        "p50_ms": at(0.5),
        "p95_ms": at(0.95),
        "p99_ms": at(0.99),
        "max_ms": at(1.0),
    }


def load(**arguments: Any) -> dict[str, Any]:
    """Keep `in_flight` requests under way for `seconds`, or send `rate` a second over so many connections, `most` in
    all. `head` and `body`, or `requests` as pairs of them, taken in turn, may hold @N@ (a fresh number) and @LENGTH@
    (of the body). `record`: a file that gets each answer when it comes, as a JSON line: `at` (due, in seconds since
    1970), `seconds`, `status`, `submission` (what @N@ was), `body`. Returns seconds, statuses (-503: one without
    Retry-After, 0: no answer), and of the answers 2xx p50_ms, p95_ms, p99_ms, max_ms."""
    done = subprocess.run(
        [sys.executable, "-P", str(Path(__file__).resolve())],
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
