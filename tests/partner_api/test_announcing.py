"""Requests are announced to Orders beside their messages, so that a lost message is noticed and sent again."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from uuid import UUID

import asyncpg
import httpx
import pytest
from tests.builders import Partner, an_uploaded_model, order_at, service_token, submit, wait_for
from tests.conftest import NewDatabase

from lostwax.channel import store
from lostwax.contracts.announcements import digest_of
from lostwax.contracts.ids import new_id
from lostwax.kit.announcing import NextBatch
from lostwax.local.stack import Stack
from lostwax.partner_api.main import MIGRATIONS


@pytest.fixture
async def channel(stack: Stack) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(stack.env("partner_api")["LOSTWAX_DATABASE_URL"])
    yield connection
    await connection.close()


async def expected(stack: Stack) -> int:
    """How many announced requests Orders still waits for."""
    total = 0
    for dsn in stack.env("orders")["LOSTWAX_SHARD_URLS"].split(","):
        connection = await asyncpg.connect(dsn)
        total += await connection.fetchval("SELECT count(*) FROM announced")
        await connection.close()
    return total


async def pause(stack: Stack, paused: bool) -> None:
    async with httpx.AsyncClient(base_url=stack.url("partner_api")) as http:
        headers = {"Authorization": f"Bearer {stack.console_token('partner_api')}"}
        response = await http.put("/v1/publishing/orders.requests", json={"paused": paused}, headers=headers)
        assert response.status_code == 200, response.text


async def test_a_message_that_was_lost_is_missed_and_sent_again(
    stack: Stack, partner: Partner, channel: asyncpg.Connection
) -> None:
    model = await an_uploaded_model(partner)
    await order_at(partner, await submit(partner, model), "PRICE_CALCULATED")
    await pause(stack, True)
    try:
        order_id = await submit(partner, model)
        lost = await channel.execute("DELETE FROM outbox WHERE topic = 'orders.requests' AND key = $1", order_id)
        assert lost == "DELETE 1"
    finally:
        await pause(stack, False)
    order = await order_at(partner, order_id, "PRICE_CALCULATED", seconds=30)
    assert order["version"] == 2
    await wait_for(lambda: _nothing_expected(stack))


async def _nothing_expected(stack: Stack) -> bool:
    return await expected(stack) == 0


async def test_with_orders_away_intake_goes_on_and_all_that_was_announced_arrives(
    stack: Stack, partner: Partner, channel: asyncpg.Connection
) -> None:
    model = await an_uploaded_model(partner)
    await order_at(partner, await submit(partner, model), "PRICE_CALCULATED")
    stack.stop("orders")
    try:
        ids = await asyncio.gather(*(submit(partner, model) for _ in range(100)))
    finally:
        stack.start_one("orders")
    assert len(set(ids)) == 100

    async def all_arrived() -> bool:
        heard = await channel.fetchval(
            "SELECT count(*) FROM requests WHERE order_id = ANY($1) AND version >= 1", [UUID(i) for i in ids]
        )
        return bool(heard == 100)

    await wait_for(all_arrived, 40)

    async def all_announced() -> bool:
        announced, requests = await channel.fetchrow(
            "SELECT (SELECT announced FROM announcing), (SELECT count(*) FROM requests)"
        )
        return bool(announced == requests)

    await wait_for(all_announced, 20)
    await wait_for(lambda: _nothing_expected(stack), 20)


async def test_requests_are_announced_in_the_order_of_their_transactions_as_numbers(new_database: NewDatabase) -> None:
    connection = await asyncpg.connect(await new_database(MIGRATIONS))
    ids = {transaction: new_id() for transaction in (98, 99, 100, 101)}
    try:
        # In real life the number is the transaction's own; here it is set, and lies in the past.
        for transaction in (101, 98, 100, 99):
            await connection.execute(
                "INSERT INTO requests (order_id, client_id, idempotency_key, request_hash, accepted_at, body,"
                " accepted_in) VALUES ($1, $1, 'k', '', now(), '{}', $2::text::xid8)",
                ids[transaction],
                str(transaction),
            )
        seen = []
        while (batch := await store.unannounced(connection, 1)).order_ids:
            seen += batch.order_ids
            await store.move_announced(connection, batch)
        assert seen == list(ids.values())
        assert await connection.fetchval("SELECT announced FROM announcing") == 4
        # Another process has announced the same at the same time, or less of it.
        await store.move_announced(connection, NextBatch(list(ids.values()), (101, ids[101]), more=False))
        await store.move_announced(connection, NextBatch([ids[98]], (98, ids[98]), more=True))
        assert await connection.fetchval("SELECT announced FROM announcing") == 4
        assert (await store.unannounced(connection, 1)).order_ids == []
    finally:
        await connection.close()


async def test_only_services_announce_and_only_what_fits(stack: Stack) -> None:
    ids = sorted([new_id(), new_id()])
    body = {"order_ids": [str(i) for i in ids], "count": 2, "digest": digest_of(ids)}
    assert digest_of(reversed(ids)) == hashlib.sha256(ids[0].bytes + ids[1].bytes).hexdigest()
    async with httpx.AsyncClient(base_url=stack.url("orders")) as http:
        assert (await http.post("/v1/announcements", json=body)).status_code == 401
        headers = {"Authorization": f"Bearer {service_token(stack, 'partner_api', 'orders')}"}
        for change in ({"count": 3}, {"digest": "ab" * 32}):
            refused = await http.post("/v1/announcements", json=body | change, headers=headers)
            assert (refused.status_code, refused.json()["type"]) == (422, "/problems/digest-differs")
        assert await expected(stack) == 0
