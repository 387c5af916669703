"""Questions to Telemetry over the real flow: services to Kafka to OpenSearch to the API."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.builders import (
    Member,
    a_member,
    a_partner,
    an_approved_order,
    an_operator,
    an_uploaded_model,
    order_at,
    problem,
    ship_by_api,
    submit,
    wait_for,
)

from lostwax.contracts.ids import UUID, short_code
from lostwax.contracts.staff import Role
from lostwax.local.stack import Stack


@pytest.fixture
async def sue(seen: Stack) -> AsyncIterator[Member]:
    """A supervisor at telemetry's door."""
    async with await a_member(seen, Role.SUPERVISOR, "Sue", door="telemetry") as member:
        yield member


async def test_the_story_of_an_order_has_all_its_hops(seen: Stack, sue: Member) -> None:
    async with await a_partner(seen) as partner, await an_operator(seen) as ada:
        order_id = await an_approved_order(partner)
        await ship_by_api(partner, ada, order_id)
    code = short_code(UUID(order_id))

    async def told() -> Any:
        response = await sue.get(f"/v1/orders/{code}/story")
        if response.status_code != 200:
            return None
        story = response.json()
        return story if {h["service"] for h in story["hops"]} >= {"partner_api", "orders", "pricing", "mes"} else None

    story = await wait_for(told, 60)
    assert (story["orders"], story["code"]) == ([order_id], code)
    assert [h["after_us"] for h in story["hops"]] == sorted(h["after_us"] for h in story["hops"])
    one = (await sue.get(f"/v1/traces/{story['hops'][0]['trace_id']}")).raise_for_status().json()
    assert one["hops"][0]["depth"] == 0
    board = (await sue.get("/v1/services")).raise_for_status().json()["services"]
    assert {"partner_api", "orders", "mes"} <= {s["name"] for s in board if s["seen"]}


async def test_a_story_tells_of_each_try(seen: Stack, sue: Member) -> None:
    async with await a_partner(seen) as partner:
        model = await an_uploaded_model(partner)
        await an_approved_order(partner, model)
        seen.restart("pricing")  # which forgets the model
        seen.stop("s3")
        try:
            order_id = await submit(partner, model, approve_up_to="1000000")

            async def tries() -> Any:
                response = await sue.get(f"/v1/orders/{order_id}/story")
                hops = response.json().get("hops", [])
                return [h for h in hops if h["kind"] != "client" and h["status"] == "error"]

            failed = (await wait_for(tries, 40))[0]
        finally:
            seen.start_one("s3")
        await order_at(partner, order_id, "MANUFACTURING_APPROVED", seconds=60)

    async def ended_well() -> Any:
        hops = (await sue.get(f"/v1/orders/{order_id}/story")).json()["hops"]
        return [h for h in hops if h["name"] == failed["name"] and h["status"] == "ok" and h["at"] > failed["at"]]

    assert await wait_for(ended_well, 40)


async def test_pages_of_logs_have_neither_gaps_nor_doubles(sue: Member) -> None:
    async def lines() -> Any:
        found = (await sue.get("/v1/logs", params={"text": "started", "limit": 200})).raise_for_status().json()["lines"]
        return found if len(found) >= 6 else None

    whole = await wait_for(lines, 60)
    until = whole[0]["at"]
    paged: list[Any] = []
    after: str | None = None
    while True:
        asked = {"text": "started", "limit": 2, "to": until} | ({"after": after} if after else {})
        page = (await sue.get("/v1/logs", params=asked)).raise_for_status().json()
        paged += page["lines"]
        after = page.get("next")
        if after is None:
            break
    assert paged == [line for line in whole if line["at"] < until]


async def test_a_live_tail_tells_of_what_happens_now(seen: Stack, sue: Member) -> None:
    async with sue.stream("GET", "/v1/logs/tail", params={"service": "pricing"}, timeout=60) as tail:
        assert tail.headers["content-type"].startswith("text/event-stream")
        restarted = False
        async for text in tail.aiter_lines():
            if not restarted:
                restarted = True
                seen.restart("pricing")
            if text.startswith("data: "):
                assert json.loads(text[6:])["service"] == "pricing"
                break


@pytest.mark.parametrize(
    "path",
    [
        "/v1/logs?level=loud",
        "/v1/logs?from=2020-01-01T00:00:00Z",
        "/v1/logs?after=x",
        "/v1/metrics/process.cpu.time?by=nothing",
        "/v1/metrics/process.cpu.time?from=7d&step=10s",
        "/v1/orders/rubbish/story",
    ],
)
async def test_what_cannot_be_meant_is_refused_in_words(sue: Member, path: str) -> None:
    assert problem(await sue.get(path), 400, "bad-parameter")["detail"]
