"""`lostwax bench door-to-queue`: from a partner's 202 to the order being visible in the operators' queue, at 100 orders
a second: the price is known by content, the approval a standing one. Every hop is Kafka."""

import asyncio
import statistics
import time
from collections.abc import Collection
from datetime import datetime
from itertools import pairwise
from typing import Any

import asyncpg
import httpx

from _people import a_partner, operators, order_body, order_head, upload_model
from _stack import fresh_stack
from lostwax.local.stack import Stack

RATE = 100
_STATUSES = ("SUBMITTED", "PRICE_CALCULATED", "MANUFACTURING_APPROVED")
_LOOK_BACK = 400


def run(quick: bool) -> dict[str, Any]:
    """Prints a line; returns the metrics."""
    with fresh_stack() as stack:
        return asyncio.run(_run(stack, 20 if quick else 600))


async def _run(stack: Stack, seconds: int) -> dict[str, Any]:
    _, key = await a_partner(stack)
    (operator,) = await operators(stack, 1)
    model = upload_model(stack, key)
    await _send(stack, key, model, 3, "warm")
    await asyncio.sleep(2)
    seen: dict[str, float] = {}
    watching = asyncio.create_task(_watch(stack, operator, seen))
    sent = await _send(stack, key, model, seconds, "door")
    accepted = await _accepted(stack, "PO-door-")
    deadline = time.monotonic() + 60
    while not set(accepted) <= set(seen) and time.monotonic() < deadline:  # noqa: ASYNC110 - another process' doing
        await asyncio.sleep(0.1)
    watching.cancel()
    missing = set(accepted) - set(seen)
    waits = sorted(max(0.0, seen[i] - at) for i, at in accepted.items() if i in seen)
    p50, p99 = (1000 * waits[int(share * len(waits))] for share in (0.5, 0.99))
    print(
        f"{len(waits)} orders at {len(accepted) / seconds:.0f}/s: 202 to queue p50 {p50:.0f}, p99 {p99:.0f} ms,"
        f" never seen {len(missing)}; 202 itself p99 {sent['p99_ms']:.1f} ms"
    )
    steps = await _steps(stack, accepted, seen)
    print("of that, in the median: " + ", ".join(f"{name} {ms:.0f} ms" for name, ms in steps.items()))
    return {
        **{f"{name}_ms": {"value": ms, "unit": "ms", "ceiling": None, "ratio": None} for name, ms in steps.items()},
        "p50_ms": {"value": p50, "unit": "ms", "ceiling": None, "ratio": None},
        "p99_ms": {"value": p99, "unit": "ms", "ceiling": None, "ratio": None},
        "never_seen": {"value": len(missing), "unit": "orders", "ceiling": None, "ratio": None},
    }


async def _send(stack: Stack, key: str, model: str, seconds: int, tag: str) -> dict[str, Any]:
    from _load import load

    arguments = {
        "host": "127.0.0.1", "port": stack.process("partner_api").port, "head": order_head(key),
        "body": order_body(model), "seconds": seconds, "in_flight": 32, "rate": RATE, "tag": tag,
    }  # fmt: skip
    result = await asyncio.to_thread(lambda: load(**arguments))
    assert set(result["statuses"]) == {"202"}, result
    return result


async def _accepted(stack: Stack, reference: str) -> dict[str, float]:
    """When each order was accepted, in seconds since 1970: its commit, a millisecond or two before its 202."""
    connection = await asyncpg.connect(stack.env("partner_api")["LOSTWAX_DATABASE_URL"])
    try:
        rows = await connection.fetch(
            "SELECT order_id::text AS id, accepted_at FROM requests WHERE body ->> 'reference' LIKE $1 || '%'",
            reference,
        )
    finally:
        await connection.close()
    return {r["id"]: r["accepted_at"].timestamp() for r in rows}


async def _steps(stack: Stack, accepted: dict[str, float], seen: dict[str, float]) -> dict[str, float]:
    """Where the time goes: medians, in milliseconds, from the 202 into Orders, to the price, to its approval and from
    there into the queue."""
    at = [accepted, *[await _entered(stack, status, accepted) for status in _STATUSES], seen]
    names = ("to_orders", "to_price", "to_approval", "to_queue")
    steps = {}
    for name, (before, after) in zip(names, pairwise(at), strict=True):
        steps[name] = 1000 * statistics.median(after[i] - before[i] for i in after if i in before)
    return steps


async def _entered(stack: Stack, status: str, orders: Collection[str]) -> dict[str, float]:
    """When Orders wrote that each of these orders entered a status, in seconds since 1970."""
    entered: dict[str, float] = {}
    for dsn in stack.env("orders")["LOSTWAX_SHARD_URLS"].split(","):
        connection = await asyncpg.connect(dsn)
        try:
            rows = await connection.fetch(
                "SELECT order_id::text AS id, at FROM order_history WHERE status = $1 AND order_id = ANY($2::uuid[])",
                status,
                list(orders),
            )
        finally:
            await connection.close()
        entered |= {row["id"]: row["at"].timestamp() for row in rows}
    return entered


async def _watch(stack: Stack, credential: str, seen: dict[str, float]) -> None:
    """Note when each order is first on a page of the queue. New ones come at its end, so each look reads on from a few
    hundred cards before the last."""
    headers = {"Authorization": f"Bearer {credential}"}
    recent: list[tuple[datetime, str]] = []
    async with httpx.AsyncClient(base_url=stack.url("mes"), headers=headers, timeout=20) as mes:
        while True:
            after = f"&after={_cursor(*recent[0])}" if recent else ""
            while True:
                page = (await mes.get(f"/v1/lists/queue?limit=200{after}")).raise_for_status().json()
                now = time.time()
                for card in page["cards"]:
                    if card["order_id"] not in seen:
                        seen[card["order_id"]] = now
                        recent.append((datetime.fromisoformat(card["due_at"]), card["order_id"]))
                if page.get("next") is None:
                    break
                after = f"&after={page['next']}"
            recent = sorted(recent)[-_LOOK_BACK:]
            await asyncio.sleep(0.02)


def _cursor(due_at: datetime, order_id: str) -> str:
    return f"{round(due_at.timestamp() * 1000)}_{order_id}"
