"""Waiting for orders to become visible to operators."""

import asyncio
import time

import httpx

from lostwax.local.stack import Stack


async def in_queue(stack: Stack, credential: str, orders: int, limit_s: float = 120) -> list[str]:
    """Ids of the orders in the operators' queue once there are so many."""
    deadline = time.monotonic() + limit_s
    headers = {"Authorization": f"Bearer {credential}"}
    async with httpx.AsyncClient(base_url=stack.url("mes"), headers=headers, timeout=20) as mes:
        while True:
            ids: list[str] = []
            after = ""
            while True:
                page = (await mes.get(f"/v1/lists/queue?limit=200{after}")).raise_for_status().json()
                ids += [card["order_id"] for card in page["cards"]]
                if page.get("next") is None:
                    break
                after = f"&after={page['next']}"
            if len(ids) >= orders:
                return ids
            if time.monotonic() > deadline:
                raise SystemExit(f"{len(ids)} of {orders} orders are in the queue after {limit_s:.0f} s")
            await asyncio.sleep(0.1)
