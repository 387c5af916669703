"""`lostwax bench telemetry`: what telemetry costs an accepted order, in CPU: two processes of the partner API side by
side, one with telemetry (a tenth of the traces, as in production) and one without, take the same orders at the same
rate, alternated. CPU of the whole process, its Kafka client's threads included. Then, how fast telemetry is stored.
"""

import asyncio
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import asyncpg
import httpx
import psutil

import _bulk
from _load import load
from _people import a_partner, order_body, order_head
from _stack import fresh_stack
from lostwax.local.stack import Stack

SHA256 = "5f" * 32
RATE = 1_500


def run(quick: bool) -> dict[str, Any]:
    """Prints a table; returns the metrics."""
    seconds, rounds = (3, 3) if quick else (10, 11)
    with fresh_stack("partner_api") as stack, _process(stack, "1") as with_it, _process(stack, "0") as without:
        cost = asyncio.run(_run(stack, with_it, without, seconds, rounds))
    return cost | _bulk.measure(quick)


@contextmanager
def _process(stack: Stack, telemetry: str) -> Iterator[tuple[int, psutil.Process]]:
    """One more process of the partner API, its port; neither relays nor reads, for the stack's own is first."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    given = stack.env("partner_api") | {
        "LOSTWAX_HTTP_PORT": str(port),
        "LOSTWAX_INSTANCE": f"bench-{telemetry}",
        "LOSTWAX_TELEMETRY": telemetry,
        "LOSTWAX_TRACES_SHARE": "0.1",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "lostwax", "run", "partner_api"],
        env=os.environ | given,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(600):
            try:
                if httpx.get(f"http://127.0.0.1:{port}/health/live").status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.1)
        yield port, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(30)


async def _run(
    stack: Stack,
    with_it: tuple[int, psutil.Process],
    without: tuple[int, psutil.Process],
    seconds: int,
    rounds: int,
) -> dict[str, Any]:
    client_id, key = await a_partner(stack)
    connection = await asyncpg.connect(stack.env("partner_api")["LOSTWAX_DATABASE_URL"])
    await connection.execute(
        "INSERT INTO models (client_id, sha256, size_bytes, name, state) VALUES ($1, $2, 84000, 'ring.stl', 'stored')",
        client_id,
        SHA256,
    )
    await connection.close()

    def cost(port: int, process: psutil.Process, tag: str) -> float:
        """Microseconds of CPU for one order."""
        before = process.cpu_times()
        result = load(
            host="127.0.0.1", port=port, head=order_head(key), body=order_body(SHA256), seconds=seconds,
            in_flight=64, rate=RATE, tag=tag,
        )  # fmt: skip
        assert set(result["statuses"]) == {"202"}, result
        time.sleep(1.5)  # what is gathered goes out within a second
        after = process.cpu_times()
        return 1e6 * (after.user + after.system - before.user - before.system) / result["statuses"]["202"]

    cost(*with_it, "warm-1")
    cost(*without, "warm-0")
    on, off = [], []
    for number in range(rounds):
        on.append(cost(*with_it, f"on-{number}"))
        off.append(cost(*without, f"off-{number}"))
    with_us, without_us = statistics.median(on), statistics.median(off)
    added = statistics.median(a / b for a, b in zip(on, off, strict=True)) - 1
    print(f"an order with telemetry {with_us:.0f} us of CPU, without {without_us:.0f} us: {100 * added:+.1f} %")
    return {
        "cpu_added": {"value": 100 * added, "unit": "%", "ceiling": None, "ratio": None},
        "with_us": {"value": with_us, "unit": "us", "ceiling": without_us, "ratio": with_us / without_us},
    }
