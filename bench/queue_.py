"""`lostwax bench queue`: the operators' list with 300 operators, 60 requests a second (first pages and next pages)
while orders arrive, 20 a second; with 10,000 open orders and with far more, to see whether the list minds.

The open orders are rows in the MES' own database, copies of one real order, from which its lists are then rebuilt.
"""

import asyncio
import statistics
import subprocess
import sys
import threading
import time
from typing import Any

import asyncpg
import httpx

from _load import load
from _people import a_partner, get_head, operators, order_body, order_head, upload_model
from _stack import fresh_stack
from _wait import in_queue
from lostwax.local.stack import Stack

OPERATORS, RATE, ARRIVING = 300, 60, 20
_COPY = """
    INSERT INTO orders (order_id, version, status, list, due_at, body)
    SELECT id, version, status, 'queue', due_at,
           jsonb_set(jsonb_set(body, '{order_id}', to_jsonb(id::text)), '{approved_at}',
                     to_jsonb(due_at - interval '21 days'))
    FROM (SELECT gen_random_uuid() AS id, version, status, body,
                 date_trunc('milliseconds', now() + n * interval '1.5 s' - interval '5 days') AS due_at
          FROM (SELECT version, status, body FROM orders WHERE status = 'MANUFACTURING_APPROVED' LIMIT 1) one,
               generate_series($1::int, $2::int) AS n) copies
"""


def run(quick: bool) -> dict[str, Any]:
    """Prints a table; returns the metrics."""
    sizes = (10_000, 50_000) if quick else (10_000, 100_000, 1_000_000)
    with fresh_stack() as stack:
        return asyncio.run(_run(stack, sizes, seconds=5 if quick else 20, rounds=3))


async def _run(stack: Stack, sizes: tuple[int, ...], seconds: int, rounds: int) -> dict[str, Any]:
    _, key = await a_partner(stack)
    credentials = await operators(stack, OPERATORS)
    model = upload_model(stack, key)
    _arrive(stack, key, model, most=1, seconds=20)
    await in_queue(stack, credentials[0], 1)
    metrics: dict[str, Any] = {}
    p99s: dict[int, float] = {}
    there = 1
    print(f"{'open orders':>12}{'p50 ms':>9}{'p99 ms':>9}{'rebuilt s':>11}")
    for size in sizes:
        await _fill(stack, there, size)
        there = size
        rebuilt_s = await _rebuilt(stack)
        requests = await _requests(stack, credentials)
        results = []
        for number in range(rounds):
            arriving = threading.Thread(target=_arrive, args=(stack, key, model), kwargs={"seconds": seconds})
            arriving.start()
            results.append(
                await asyncio.to_thread(_look, stack.process("mes").port, requests, seconds, f"{size}-{number}")
            )
            arriving.join()
        p50, p99s[size] = (statistics.median(r[name] for r in results) for name in ("p50_ms", "p99_ms"))
        print(f"{size:12,}{p50:9.1f}{p99s[size]:9.1f}{rebuilt_s:11.1f}")
        metrics[f"p99_ms_{size}"] = {"value": p99s[size], "unit": "ms", "ceiling": None, "ratio": None}
    first, last = p99s[sizes[0]], p99s[sizes[-1]]
    metrics["p99_ms"] = {"value": last, "unit": "ms", "ceiling": None, "ratio": None}
    metrics["growth"] = {"value": last / first, "unit": f"{sizes[-1]} / {sizes[0]}", "ceiling": None, "ratio": None}
    print(f"growth {last / first:.2f}")
    return metrics


def _look(port: int, requests: list[list[str]], seconds: int, tag: str) -> dict[str, Any]:
    result = load(
        host="127.0.0.1", port=port, requests=requests, seconds=seconds, in_flight=OPERATORS, rate=RATE, tag=tag
    )
    assert set(result["statuses"]) == {"200"}, result
    return result


def _arrive(stack: Stack, key: str, model: str, *, seconds: int, most: int | None = None) -> None:
    load(
        host="127.0.0.1", port=stack.process("partner_api").port, head=order_head(key), body=order_body(model),
        seconds=seconds, in_flight=4, rate=ARRIVING, most=most, tag=f"{time.monotonic_ns()}",
    )  # fmt: skip


async def _fill(stack: Stack, there: int, wanted: int) -> None:
    connection = await asyncpg.connect(stack.env("mes")["LOSTWAX_DATABASE_URL"], command_timeout=600)
    try:
        for start in range(there, wanted, 50_000):
            await connection.execute(_COPY, start, min(start + 50_000, wanted) - 1)
        await connection.execute("ANALYZE orders")
    finally:
        await connection.close()


async def _rebuilt(stack: Stack) -> float:
    """Have the lists built anew; seconds."""
    began = time.monotonic()
    command = [sys.executable, "-m", "lostwax", "rebuild", "mes", "--stack", stack.folder.name]
    await asyncio.to_thread(subprocess.run, command, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began


async def _requests(stack: Stack, credentials: list[str]) -> list[list[str]]:
    """Two first pages and one page further on for each operator."""
    headers = {"Authorization": f"Bearer {credentials[0]}"}
    cursors = []
    async with httpx.AsyncClient(base_url=stack.url("mes"), headers=headers, timeout=60) as mes:
        after = ""
        for _ in range(10):
            page = (await mes.get(f"/v1/lists/queue?limit=50{after}")).raise_for_status().json()
            after = f"&after={page['next']}"
            cursors.append(after)
    requests = []
    for number, credential in enumerate(credentials):
        for after in ("", cursors[number % len(cursors)], ""):
            requests.append([get_head(f"/v1/lists/queue?limit=50{after}", credential), ""])
    return requests
