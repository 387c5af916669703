"""Orders read through Redis are as their shards have them, and come without delay when Redis is away."""

import asyncio
import time
from typing import Any

import httpx
import redis.asyncio
from tests.builders import a_partner, an_uploaded_model, order_at, service_token, submit, wait_for

from lostwax.local.stack import Stack


async def test_an_order_is_read_through_redis_and_never_older_than_it_was_told_to_be(stack: Stack) -> None:
    async with (
        await a_partner(stack) as partner,
        httpx.AsyncClient(
            base_url=stack.url("orders"),
            headers={"Authorization": f"Bearer {service_token(stack, 'mes', 'orders')}"},
            timeout=10,
        ) as orders,
    ):
        order_id = await submit(partner, await an_uploaded_model(partner))

        async def read() -> dict[str, Any]:
            return (await orders.get(f"/v1/orders/{order_id}")).raise_for_status().json()  # type: ignore[no-any-return]

        known = await order_at(partner, order_id, "PRICE_CALCULATED")
        first = await read()
        assert first["version"] >= known["version"]
        client: Any = redis.asyncio.from_url(stack.env("orders")["LOSTWAX_REDIS_URL"])

        async def kept() -> bool:
            return bool([key async for key in client.scan_iter(match=f"orders.orders:*:e:{order_id}", count=1000)])

        async def read_and_kept() -> bool:
            await read()
            return await kept()

        await wait_for(read_and_kept)
        assert await read() == first
        # What a change leaves in Redis is what the shard has.
        cancelled = await partner.post(f"/v1/orders/{order_id}/cancel", json={"reason": "changed my mind"})
        assert cancelled.status_code == 202
        known = await order_at(partner, order_id, "CANCELLED")
        after = await read()
        assert (after["status"], after["version"]) == ("CANCELLED", known["version"])
        await client.flushdb()
        assert await read() == after
        await client.aclose()
        await asyncio.to_thread(stack.stop, "redis")
        try:
            await read()  # may be the one that finds out
            began = time.monotonic()
            for _ in range(20):
                assert await read() == after
            assert time.monotonic() - began < 4  # twenty waits of 0.4 s are 8 s
        finally:
            await asyncio.to_thread(stack.start_one, "redis")
        assert await read() == after
        assert (await orders.get("/v1/orders/0197f0a0-0000-7000-8000-00000000dead")).status_code == 404
