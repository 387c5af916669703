"""`lostwax bench fair-prices`: whether a giant delays the small. 200 small models from ten accounts, each never seen
before, are ordered at once, alternately alone and with one model of 1.3 million triangles ordered just before them.

The wait of an order is from its acceptance by the partner API to its price in Orders, as both wrote it down: fetching
the model, the queue, measuring and every hop between. The ratio is the small ones' p99 with the giant over without.
"""

import asyncio
import statistics
import time
from typing import Any
from uuid import UUID

import asyncpg
import httpx

from _people import a_partner, upload_model
from _stack import fresh_stack
from lostwax.local.stack import Stack

ACCOUNTS = 10
GIANT = (2030, 159)  # 1.3 million triangles, 65 MB
SMALLER_GIANT = (1000, 99)  # 0.4 million, 20 MB
_LONGEST_S = 300


def run(quick: bool) -> dict[str, Any]:
    """Prints a table; returns the metrics."""
    small, rounds, giant = (60, 2, SMALLER_GIANT) if quick else (200, 4, GIANT)
    with fresh_stack() as stack:
        return asyncio.run(_run(stack, small, rounds, giant))


async def _run(stack: Stack, small: int, rounds: int, giant: tuple[int, int]) -> dict[str, Any]:
    keys = [(await a_partner(stack, f"account {n}"))[1] for n in range(ACCOUNTS)]
    giants_key = (await a_partner(stack, "giant"))[1]
    await _round(stack, keys, small // 4, 0, None)
    alone: list[list[float]] = []
    together: list[list[float]] = []
    giant_s: list[float] = []
    print(f"{'round':>5}  {'alone p50':>10}{'p99':>8}  {'with giant p50':>15}{'p99':>8}  {'ratio':>6}  {'giant':>7}")
    for number in range(1, rounds + 1):
        waits, _ = await _round(stack, keys, small, 2 * number, None)
        alone.append(waits)
        upload = await asyncio.to_thread(
            upload_model, stack, giants_key, around=giant[0], across=giant[1], width=3 + number / 100
        )
        waits, heavy_s = await _round(stack, keys, small, 2 * number + 1, (giants_key, upload))
        together.append(waits)
        giant_s.append(heavy_s)
        print(
            f"{number:>5}  {_at(alone[-1], 0.5):8.2f} s{_at(alone[-1], 0.99):6.2f} s  {_at(waits, 0.5):13.2f} s"
            f"{_at(waits, 0.99):6.2f} s  {_at(waits, 0.99) / _at(alone[-1], 0.99):6.2f}  {heavy_s:5.2f} s"
        )
    ratio = statistics.median(_at(t, 0.99) / _at(a, 0.99) for a, t in zip(alone, together, strict=True))
    p99_alone = statistics.median(_at(a, 0.99) for a in alone)
    p99_together = statistics.median(_at(t, 0.99) for t in together)
    print(f"p99 of the small: {p99_alone:.2f} s alone, {p99_together:.2f} s with the giant; median ratio {ratio:.2f}")
    return {
        "small_p99_alone": {"value": p99_alone, "unit": "s", "ceiling": None, "ratio": None},
        "small_p99_with_giant": {"value": p99_together, "unit": "s", "ceiling": p99_alone, "ratio": ratio},
        "giant": {"value": statistics.median(giant_s), "unit": "s", "ceiling": None, "ratio": None},
    }


async def _round(
    stack: Stack, keys: list[str], small: int, number: int, giant: tuple[str, str] | None
) -> tuple[list[float], float]:
    """Seconds that each small order waited for its price, and the giant's."""
    wanted = []
    for n in range(small):
        key = keys[n % ACCOUNTS]
        # Not in the event loop, and not counted: what a client does before it orders.
        width = 2 + number / 10 + n / 10_000
        wanted.append((key, await asyncio.to_thread(upload_model, stack, key, width=width)))
    async with httpx.AsyncClient(base_url=stack.url("partner_api"), timeout=60) as http:

        async def order(key: str, model: str) -> UUID:
            response = await http.post(
                "/v1/orders",
                json={"model": model, "alloy": "gold-14k", "finish": "polished"},
                headers={"Authorization": f"Bearer {key}", "Idempotency-Key": f"{number}-{model}"},
            )
            response.raise_for_status()
            return UUID(response.json()["order_id"])

        heavy = await order(*giant) if giant is not None else None
        orders = await asyncio.gather(*(order(*each) for each in wanted))
    waits = await _waits(stack, [*orders, *([heavy] if heavy is not None else [])])
    return [waits[o] for o in orders], waits[heavy] if heavy is not None else 0.0


async def _waits(stack: Stack, orders: list[UUID]) -> dict[UUID, float]:
    """Seconds from acceptance to price of each order, once all are priced."""
    accepted: dict[UUID, Any] = {}
    priced: dict[UUID, Any] = {}
    channel = await asyncpg.connect(stack.env("partner_api")["LOSTWAX_DATABASE_URL"])
    shards = [await asyncpg.connect(url) for url in stack.env("orders")["LOSTWAX_SHARD_URLS"].split(",")]
    try:
        for row in await channel.fetch(
            "SELECT order_id, accepted_at FROM requests WHERE order_id = ANY($1::uuid[])", orders
        ):
            accepted[UUID(int=row["order_id"].int)] = row["accepted_at"]
        deadline = time.monotonic() + _LONGEST_S
        while len(priced) < len(orders):
            if time.monotonic() > deadline:
                raise SystemExit(f"{len(priced)} of {len(orders)} orders are priced after {_LONGEST_S} s")
            await asyncio.sleep(0.5)
            for shard in shards:
                for row in await shard.fetch(
                    "SELECT order_id, at FROM order_history WHERE order_id = ANY($1::uuid[]) AND version = 2", orders
                ):
                    priced[UUID(int=row["order_id"].int)] = row["at"]
    finally:
        for connection in (channel, *shards):
            await connection.close()
    return {o: (priced[o] - accepted[o]).total_seconds() for o in orders}


def _at(waits: list[float], share: float) -> float:
    ordered = sorted(waits)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
