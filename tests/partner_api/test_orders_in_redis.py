"""A client's orders from Redis are those of the database: any page, any filter, whatever happens to Redis."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from random import Random
from typing import Any
from uuid import UUID

import msgspec
import pytest
import redis.asyncio
from tests.builders import (
    NOON,
    Partner,
    a_partner,
    a_request,
    an_order,
    an_uploaded_model,
    order_at,
    order_views,
    own_redis,
    submit,
    wait_for,
)
from tests.conftest import NewDatabase

from lostwax.channel import handlers, store
from lostwax.channel.domain import Client
from lostwax.channel.handlers import Door
from lostwax.contracts.ids import new_id
from lostwax.contracts.orders import ActorKind, Order, Status
from lostwax.kit.clock import utc_now
from lostwax.kit.postgres import Pool, open_pool
from lostwax.kit.problems import Problem
from lostwax.local.stack import Stack
from lostwax.partner_api.main import MIGRATIONS

ADA, BEN = Client(new_id(), "Ada's"), Client(new_id(), "Ben's")
ONE_DAY = timedelta(days=1)


class OwnDoor(Door):
    dsn: str


@pytest.fixture
async def door(stack: Stack, new_database: NewDatabase) -> AsyncIterator[OwnDoor]:
    """Orders of the last day are kept in Redis."""
    dsn = await new_database(MIGRATIONS)
    pool = await open_pool(dsn, name="test", size=8)
    await pool.executemany(
        "INSERT INTO clients (client_id, name) VALUES ($1, $2)", [(c.client_id, c.name) for c in (ADA, BEN)]
    )
    made = OwnDoor("partner_api", ActorKind.PARTNER, pool, None, order_views(stack, dsn, pool, ONE_DAY), now=utc_now)  # type: ignore[arg-type]
    made.dsn = dsn
    running = asyncio.create_task(made.views.run())
    await wait_for(lambda: made.views.rebuilds and made.views.trusted)
    yield made
    assert not running.done()
    running.cancel()
    await made.views.close()
    await pool.close()
    client: Any = redis.asyncio.from_url(own_redis(stack))
    await client.flushdb()
    await client.aclose()


def id_of_age(days: float, random: Random) -> UUID:
    milliseconds = int((utc_now() - timedelta(days=days)).timestamp() * 1000)
    return UUID(int=milliseconds << 80 | 7 << 76 | 2 << 62 | random.getrandbits(62))


async def accept(pool: Pool, client: Client, order_id: UUID) -> Order:
    """Store a request of that id, of whatever age that makes it; returns its order's first version."""
    request = a_request(order_id=order_id, account=client.client_id)
    await pool.execute(
        "INSERT INTO requests (order_id, client_id, idempotency_key, request_hash, accepted_at, body)"
        " VALUES ($1, $2, $3, '', $4, $5)",
        order_id,
        client.client_id,
        str(order_id),
        NOON,
        msgspec.json.encode(request).decode(),
    )
    return an_order(order_id=order_id, account=client.client_id, specification=request.specification, version=1)


async def many_orders(door: OwnDoor, random: Random, ages: tuple[float, float], count: int = 60) -> None:
    orders = [
        await accept(door.pool, random.choice((ADA, ADA, BEN)), id_of_age(random.uniform(*ages), random))
        for _ in range(count)
    ]
    changed = [
        msgspec.structs.replace(an_order(random.choice(list(Status))), order_id=o.order_id, account=o.account)
        for o in random.sample(orders, count * 2 // 3)
    ]
    await handlers.take_changes(door, changed)


async def walk(door: Door, client: Client, status: Status | None, limit: int) -> tuple[list[bytes], set[str]]:
    """All pages one after the other, as a client follows `next`, and where they came from."""
    found: list[bytes] = []
    sources, before = set(), None
    while True:
        page = await handlers.orders_page(door, client, status, before, limit)
        assert len(page.orders) <= limit
        found += [bytes(order) for order in page.orders]
        sources.add(page.source)
        if (before := page.next) is None:
            return found, sources
        assert len(page.orders) == limit


async def in_database(door: Door, client: Client, status: Status | None) -> list[bytes]:
    async with door.pool.acquire() as connection:
        rows = await store.requests_page(connection, client.client_id, None, status and status.value, 10_000)
    return [msgspec.json.encode(store.own_view(row).view) for row in rows]


async def same_everywhere(door: Door, limits: tuple[int, ...] = (1, 7, 100)) -> set[str]:
    seen: set[str] = set()
    for client in (ADA, BEN):
        for status in (None, *Status):
            wanted = await in_database(door, client, status)
            for limit in limits:
                found, sources = await walk(door, client, status, limit)
                assert found == wanted
                seen |= sources
    return seen


@pytest.mark.parametrize("seed", [1, 2])
async def test_pages_from_redis_are_the_databases_for_each_client_status_and_size(door: OwnDoor, seed: int) -> None:
    await many_orders(door, Random(seed), (0, 0.9))
    async with door.pool.acquire() as connection:
        ids = [UUID(int=r["order_id"].int) for r in await connection.fetch("SELECT order_id FROM requests")]
        await door.views.push([handlers.entry(own) for own in await store.own_views(connection, ids)])
    assert await same_everywhere(door) == {"redis"}
    for order_id in ids:
        for client in (ADA, BEN):
            async with door.pool.acquire() as connection:
                row = await store.request(connection, client.client_id, order_id)
            if row is None:
                with pytest.raises(Problem) as none:
                    await handlers.own_order(door, client, order_id)
                assert none.value.status == 404
            else:
                shown = await handlers.own_order(door, client, order_id)
                assert bytes(shown) == msgspec.json.encode(store.own_view(row).view)


async def test_pages_go_on_in_the_database_below_what_redis_keeps(door: OwnDoor) -> None:
    random = Random(3)
    await many_orders(door, random, (0, 3))
    await door.views.ask_for_rebuild()
    await wait_for(lambda: door.views.rebuilds >= 2 and door.views.trusted)
    assert await same_everywhere(door, (1, 7)) == {"redis", "database"}
    await many_orders(door, random, (0, 3))  # the old among them leave no trace in Redis
    await wait_for(lambda: door.views.trusted)
    async with door.pool.acquire() as connection:
        ids = [UUID(int=r["order_id"].int) for r in await connection.fetch("SELECT order_id FROM requests")]
        await door.views.push([handlers.entry(own) for own in await store.own_views(connection, ids)])
    assert await same_everywhere(door, (5,)) == {"redis", "database"}
    for order_id in ids:
        assert (await door.views.entry(order_id) is None) == (order_id < id_of_age(1, Random(0)))


async def test_a_client_without_older_orders_is_served_by_redis_to_the_end(door: OwnDoor) -> None:
    old, young = id_of_age(2, Random(4)), id_of_age(0.5, Random(4))
    await accept(door.pool, ADA, old)
    await accept(door.pool, BEN, young)
    await door.views.ask_for_rebuild()
    await wait_for(lambda: door.views.rebuilds >= 2 and door.views.trusted)
    assert (await handlers.orders_page(door, ADA, None, None, 10)).source == "database"
    assert (await handlers.orders_page(door, BEN, None, None, 10)).source == "redis"


# -- through the running service --------------------------------------------------------------------------------------


async def is_first(partner: Partner, order_id: str, **filters: str) -> str:
    page = (await partner.get("/v1/orders", params={"limit": "5", **filters})).raise_for_status().json()
    assert page["orders"], page
    assert page["orders"][0]["order_id"] == order_id
    return str(page["source"])


async def test_an_order_can_be_read_right_after_its_202_with_redis_up_and_down(stack: Stack) -> None:
    async with await a_partner(stack) as partner:
        model = await an_uploaded_model(partner)
        for _ in range(10):
            order_id = await submit(partner, model)
            assert (await partner.get(f"/v1/orders/{order_id}")).status_code == 200
            await is_first(partner, order_id)
        await order_at(partner, order_id, "PRICE_CALCULATED", "PRICE_FAILED")

        async def from_redis() -> bool:
            return await is_first(partner, order_id) == "redis"

        await wait_for(from_redis)
        # What is newer than the status of the others is seen under it at once; Orders may be quicker still.
        await asyncio.to_thread(stack.stop, "orders")
        try:
            order_id = await submit(partner, model)
            # What it looks like is in Redis from the first look on.
            assert await is_first(partner, order_id, status="SUBMITTED") == "database"
            assert await is_first(partner, order_id, status="SUBMITTED") == "redis"
            assert await is_first(partner, order_id) == "redis"
            await asyncio.to_thread(stack.stop, "redis")
            try:
                for _ in range(5):
                    order_id = await submit(partner, model)
                    view = (await partner.get(f"/v1/orders/{order_id}")).raise_for_status().json()
                    assert (view["status"], view["version"]) == ("SUBMITTED", 0)
                    assert await is_first(partner, order_id, status="SUBMITTED") == "database"
            finally:
                await asyncio.to_thread(stack.start_one, "redis")
            order_id = await submit(partner, model)
            await is_first(partner, order_id, status="SUBMITTED")

            async def from_redis_again() -> bool:
                return await is_first(partner, order_id, status="SUBMITTED") == "redis"

            await wait_for(from_redis_again)
        finally:
            await asyncio.to_thread(stack.start_one, "orders")


async def test_another_clients_orders_are_never_seen(stack: Stack) -> None:
    async with await a_partner(stack) as ada, await a_partner(stack) as ben:
        order_id = await submit(ada, await an_uploaded_model(ada))
        assert (await ada.get(f"/v1/orders/{order_id}")).status_code == 200
        assert (await ben.get(f"/v1/orders/{order_id}")).status_code == 404
        for filters in ({}, {"status": "SUBMITTED"}):
            assert (await ben.get("/v1/orders", params=filters)).json()["orders"] == []
