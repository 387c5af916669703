"""How fast a partner may send requests, through the running service."""

import re
from collections.abc import AsyncIterator

import asyncpg
import httpx
import pytest
from tests.builders import Partner, a_partner, problem, wait_for

from lostwax.contracts.ids import new_id
from lostwax.kit.postgres import Connection
from lostwax.kit.rate_limit import Limit
from lostwax.local.stack import Stack
from lostwax.partner_api import keys_store


@pytest.fixture
async def partner(stack: Stack) -> AsyncIterator[Partner]:
    async with await a_partner(stack, unlimited=False) as client:
        yield client


@pytest.fixture
async def database(stack: Stack) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(stack.env("partner_api")["LOSTWAX_DATABASE_URL"])
    yield connection
    await connection.close()


def remaining(response: httpx.Response) -> int:
    assert re.fullmatch(r'"client";q=\d+;w=\d+', response.headers["ratelimit-policy"])
    state = re.fullmatch(r'"client";r=(\d+);t=\d+', response.headers["ratelimit"])
    assert state is not None
    return int(state[1])


async def test_every_answer_to_a_keyed_call_tells_of_the_limit(partner: Partner) -> None:
    answers = [
        await partner.get("/v1/orders"),
        await partner.get(f"/v1/orders/{new_id()}"),
        await partner.post("/v1/orders", content=b"{"),
        await partner.post("/v1/models", json={}),
        await partner.delete("/v1/keys/x"),
    ]
    assert [a.status_code for a in answers] == [200, 404, 400, 422, 404]
    assert answers[0].headers["ratelimit-policy"] == '"client";q=200;w=4'
    assert all(remaining(a) > 150 for a in answers)
    assert remaining(answers[0]) == 199


async def test_nobody_and_those_without_a_limit_are_told_of_none(stack: Stack) -> None:
    async with await a_partner(stack) as free, httpx.AsyncClient(base_url=stack.url("partner_api")) as nobody:
        for client, status in ((free, 200), (nobody, 401)):
            answered = await client.get("/v1/orders")
            assert answered.status_code == status
            assert not [name for name in answered.headers if name.startswith("ratelimit")]


async def test_too_many_requests_are_refused_before_anything_is_done_and_say_when_to_come_again(
    stack: Stack, partner: Partner, database: Connection
) -> None:
    await keys_store.set_limit(database, partner.client_id, own=True, limit=Limit(0.2, 3))

    async def in_force() -> bool:
        return (await partner.get("/v1/orders")).headers["ratelimit-policy"] == '"client";q=3;w=15'

    await wait_for(in_force, 5)
    answers = [await partner.post("/v1/keys", json={"name": "one more"}) for _ in range(6)]
    made = [a for a in answers if a.status_code == 201]
    assert len(made) in (1, 2)
    refused = [a for a in answers if a.status_code != 201]
    for answered in refused:
        body = problem(answered, 429, "too-many-requests")
        assert "0.2 requests a second, 3 at once" in body["detail"]
        assert 1 <= int(answered.headers["retry-after"]) <= 5
        assert remaining(answered) == 0
    async with await a_partner(stack, unlimited=False) as other:
        assert (await other.get("/v1/orders")).status_code == 200
    # All keys of a client share its limit, whatever they may do.
    for key in [a.json()["key"] for a in made]:
        problem(await partner.get("/v1/orders", headers={"Authorization": f"Bearer {key}"}), 429, "too-many-requests")
    count = await database.fetchval("SELECT count(*) FROM api_keys WHERE client_id = $1", partner.client_id)
    assert count == 1 + len(made)
    await keys_store.set_limit(database, partner.client_id, own=True, limit=None)

    async def lifted() -> bool:
        return (await partner.get("/v1/orders")).status_code == 200

    await wait_for(lifted, 5)


async def test_without_redis_requests_are_taken_as_before(stack: Stack, partner: Partner) -> None:
    stack.stop("redis")
    try:
        answers = [await partner.get("/v1/orders") for _ in range(20)]
    finally:
        stack.start_one("redis")
    assert {a.status_code for a in answers} == {200}
    assert remaining(answers[-1]) < 199
