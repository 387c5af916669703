"""`lostwax bench intake-edge`: intake under far more than it can take. 640 requests in flight, ten times what
saturates it, then a flood of 4,000: nothing but 202 and 503 with Retry-After, latencies of the accepted, and the
service's memory.
"""

import asyncio
from typing import Any

import asyncpg
import psutil

from _load import load
from _people import a_partner, order_body, order_head
from _stack import fresh_stack
from lostwax.local.stack import Stack

SHA256 = "5f" * 32
TEN_TIMES, FLOOD = 640, 4_000


def run(quick: bool) -> dict[str, Any]:
    """Prints a table; returns the metrics."""
    seconds = 5 if quick else 30
    with fresh_stack("partner_api") as stack:
        return asyncio.run(_run(stack, seconds))


async def _run(stack: Stack, seconds: int) -> dict[str, Any]:
    client_id, key = await a_partner(stack)
    connection = await asyncpg.connect(stack.env("partner_api")["LOSTWAX_DATABASE_URL"])
    await connection.execute(
        "INSERT INTO models (client_id, sha256, size_bytes, name, state) VALUES ($1, $2, 84000, 'ring.stl', 'stored')",
        client_id,
        SHA256,
    )
    await connection.close()
    process = psutil.Process(stack.pid("partner_api"))
    port = stack.process("partner_api").port

    def flood(in_flight: int, tag: str) -> dict[str, Any]:
        return load(
            host="127.0.0.1",
            port=port,
            head=order_head(key),
            body=order_body(SHA256),
            seconds=seconds,
            in_flight=in_flight,
            tag=tag,
        )

    flood(64, "warm")
    metrics: dict[str, Any] = {}
    print(f"{'in flight':>10}{'accepted/s':>12}{'503/s':>9}{'others':>8}{'p50 ms':>9}{'p99 ms':>9}{'memory MB':>11}")
    for name, in_flight in (("", TEN_TIMES), ("flood_", FLOOD), ("again_", TEN_TIMES)):
        result = flood(in_flight, f"edge-{name}")
        statuses = {int(k): v for k, v in result["statuses"].items()}
        others = sum(v for k, v in statuses.items() if k not in (202, 503))
        memory = process.memory_info().rss / 1e6
        accepted = statuses.get(202, 0) / result["seconds"]
        print(
            f"{in_flight:10}{accepted:12,.0f}{statuses.get(503, 0) / result['seconds']:9,.0f}{others:8}"
            f"{result['p50_ms']:9.1f}{result['p99_ms']:9.1f}{memory:11.0f}"
        )
        for metric, value, unit in (
            ("accepted", accepted, "orders/s"),
            ("p99_ms", result["p99_ms"], "ms"),
            ("neither_202_nor_503", others, "answers"),
            ("memory_mb", memory, "MB"),
        ):
            metrics[f"{name}{metric}"] = {"value": value, "unit": unit, "ceiling": None, "ratio": None}
    growth = metrics["again_memory_mb"]["value"] / metrics["memory_mb"]["value"]
    metrics["memory_growth"] = {"value": growth, "unit": "again / first", "ceiling": None, "ratio": None}
    return metrics
