"""`lostwax bench pipeline`: orders a second through all services of this machine, from the partner's POST to the
operators' queue: accepted, created, priced (models repeat), approved, projected. A burst, and the time until its last
order can be taken."""

import asyncio
import time
from typing import Any

import asyncpg

from _load import load
from _people import a_partner, operators, order_body, order_head, upload_model
from _stack import fresh_stack
from lostwax.local.stack import Stack

MODELS = 8


def run(quick: bool) -> dict[str, Any]:
    """Prints a line; returns the metrics."""
    with fresh_stack() as stack:
        return asyncio.run(_run(stack, 3_000 if quick else 30_000))


async def _run(stack: Stack, orders: int) -> dict[str, Any]:
    _, key = await a_partner(stack)
    await operators(stack, 1)
    models = [upload_model(stack, key, width=2 + n / 8) for n in range(MODELS)]
    connection = await asyncpg.connect(stack.env("mes")["LOSTWAX_DATABASE_URL"])

    async def queued() -> int:
        return int(await connection.fetchval("SELECT count(*) FROM orders WHERE list = 'queue'"))

    async def send(most: int, tag: str) -> None:
        arguments = {
            "host": "127.0.0.1", "port": stack.process("partner_api").port, "seconds": 600, "in_flight": 32,
            "requests": [[order_head(key), order_body(model)] for model in models], "most": most, "tag": tag,
        }  # fmt: skip
        result = await asyncio.to_thread(lambda: load(**arguments))
        assert set(result["statuses"]) == {"202"}, result

    async def until(count: int) -> None:
        deadline = time.monotonic() + 600
        while await queued() < count:
            if time.monotonic() > deadline:
                raise SystemExit(f"{await queued()} of {count} orders are in the queue after ten minutes")
            await asyncio.sleep(0.05)

    await send(200, "warm")
    await until(200)
    before = await queued()
    began = time.monotonic()
    await send(orders, "pipe")
    accepted_s = time.monotonic() - began
    await until(before + orders)
    seconds = time.monotonic() - began
    await connection.close()
    per_s = orders / seconds
    print(f"{orders} orders: accepted in {accepted_s:.1f} s, all in the queue after {seconds:.1f} s: {per_s:.0f}/s")
    return {"orders_per_s": {"value": per_s, "unit": "orders/s", "ceiling": None, "ratio": None}}
