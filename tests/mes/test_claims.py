"""Operators at work through HTTP: of a hundred clicks one wins, and nobody does another's step."""

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import msgspec
import pytest
import redis.asyncio
from tests.builders import (
    Operator,
    Partner,
    a_model_file,
    a_partner,
    an_approved_order,
    an_operator,
    an_order,
    an_uploaded_model,
    as_record,
    order_at,
    service_token,
    wait_for,
)

from lostwax.contracts import catalogue, topics
from lostwax.contracts.ids import bucket_of, new_id, partition_of
from lostwax.contracts.orders import Order, OrderChanged, Status
from lostwax.kit.kafka import Publisher
from lostwax.local.stack import Stack


@pytest.fixture(scope="module")
async def partner(stack: Stack) -> AsyncIterator[Partner]:
    async with await a_partner(stack) as client:
        yield client


@pytest.fixture(scope="module")
async def model(partner: Partner) -> str:
    return await an_uploaded_model(partner)


@pytest.fixture(scope="module")
async def ada(stack: Stack) -> AsyncIterator[Operator]:
    async with await an_operator(stack, "Ada") as client:
        yield client


@pytest.fixture(scope="module")
async def ben(stack: Stack) -> AsyncIterator[Operator]:
    async with await an_operator(stack, "Ben") as client:
        yield client


def problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert body["type"] == f"/problems/{code}", body
    assert body["detail"]
    return body


async def seen(operator: Operator, order_id: str, *statuses: str) -> dict[str, Any]:
    """The order in the MES, once it has one of these statuses."""

    async def there() -> dict[str, Any] | None:
        response = await operator.get(f"/v1/orders/{order_id}")
        if response.status_code != 200 or response.json()["order"]["status"] not in statuses:
            return None
        found: dict[str, Any] = response.json()
        return found

    view: dict[str, Any] = await wait_for(there)
    return view


async def an_order_in_the_queue(partner: Partner, model: str, operator: Operator) -> str:
    order_id = await an_approved_order(partner, model)
    await seen(operator, order_id, "MANUFACTURING_APPROVED")
    return order_id


async def claim(operator: Operator, order_id: str) -> dict[str, Any]:
    """Take an order, and wait until Orders has confirmed it."""
    response = await operator.post(f"/v1/orders/{order_id}/claim")
    assert response.status_code == 200, response.text
    assert (response.json()["state"], response.json()["operator"]) == ("pending", operator.name)
    await claim_settled(operator, order_id, "confirmed")
    await seen(operator, order_id, "MANUFACTURING_STARTED")
    taken: dict[str, Any] = response.json()
    return taken


async def claim_settled(operator: Operator, order_id: str, state: str) -> dict[str, Any]:
    async def settled() -> dict[str, Any] | None:
        work = (await operator.get("/v1/work")).raise_for_status().json()["work"]
        return next(
            (w["claim"] for w in work if w["claim"]["order_id"] == order_id and w["claim"]["state"] == state), None
        )

    found: dict[str, Any] = await wait_for(settled)
    return found


async def step(operator: Operator, order_id: str, name: str, body: dict[str, Any] | None = None) -> None:
    """Take a step, and wait until Orders has accepted it."""
    response = await operator.post(f"/v1/orders/{order_id}/{name}", json=body)
    assert response.status_code == 202, response.text

    async def settled() -> dict[str, Any] | None:
        asked: dict[str, Any] = (await operator.get(f"/v1/steps/{response.json()['step_id']}")).json()
        return asked if asked["state"] != "pending" else None

    assert (await wait_for(settled))["state"] == "accepted"


async def whole_list(operator: Operator, name: str, limit: int = 50) -> tuple[list[dict[str, Any]], set[str]]:
    """A list by its pages, and where the pages came from."""
    cards: list[dict[str, Any]] = []
    sources = set()
    after: str | None = None
    while True:
        query = {"limit": str(limit)} | ({"after": after} if after else {})
        page = (await operator.get(f"/v1/lists/{name}", params=query)).raise_for_status().json()
        cards += page["cards"]
        sources.add(page["source"])
        assert len({card["order_id"] for card in cards}) == len(cards)
        after = page.get("next")
        if after is None:
            return cards, sources


async def is_listed(operator: Operator, name: str, order_id: str) -> bool:
    return order_id in {card["order_id"] for card in (await whole_list(operator, name, 200))[0]}


async def order_in_orders(stack: Stack, order_id: str) -> Order:
    async with httpx.AsyncClient(base_url=stack.url("orders")) as http:
        token = service_token(stack, "mes", "orders")
        response = await http.get(f"/v1/orders/{order_id}", headers={"Authorization": f"Bearer {token}"})
    assert response.status_code == 200, response.text
    return msgspec.json.decode(response.content, type=Order)


async def publish_changes(stack: Stack, *orders: Order) -> None:
    """Tell the MES what Orders did not."""
    publisher = Publisher(stack.env("mes")["LOSTWAX_KAFKA_BOOTSTRAP"], client_id="test")
    await publisher.publish(
        [
            as_record(
                topics.ORDER_CHANGES.name,
                partition_of(bucket_of(order.order_id)),
                "orders.order_changed.v1",
                catalogue.encode(OrderChanged(order)),
                key=str(order.order_id),
            )
            for order in orders
        ]
    )
    await asyncio.to_thread(publisher.close)


async def rows(stack: Stack, sql: str, *values: Any) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(stack.env("mes")["LOSTWAX_DATABASE_URL"])
    try:
        return await connection.fetch(sql, *values)
    finally:
        await connection.close()


# -- claims -----------------------------------------------------------------------------------------------------------


async def test_of_a_hundred_clicks_one_wins_twenty_times(
    partner: Partner, model: str, ada: Operator, stack: Stack
) -> None:
    """Twenty-five operators, four clicks each, all at once."""
    crew = [await an_operator(stack, f"Operator {n}") for n in range(25)]
    order_ids = await asyncio.gather(*(an_approved_order(partner, model) for _ in range(20)))
    winners = {}
    limits = httpx.Limits(max_connections=100, max_keepalive_connections=100)
    async with httpx.AsyncClient(base_url=stack.url("mes"), timeout=30, limits=limits) as http:
        for order_id in order_ids:
            await seen(ada, order_id, "MANUFACTURING_APPROVED")
            clicks = [o for o in crew for _ in range(4)]
            answers = await asyncio.gather(
                *(
                    http.post(f"/v1/orders/{order_id}/claim", headers={"Authorization": f"Bearer {o.token}"})
                    for o in clicks
                )
            )
            assert Counter(a.status_code for a in answers) == {200: 1, 409: 99}
            (won,) = [a.json() for a in answers if a.status_code == 200]
            winners[order_id] = won
            for operator, answer in zip(clicks, answers, strict=True):
                if answer.status_code == 409:
                    yours = operator.name == won["operator"]
                    body = problem(answer, 409, "already-yours" if yours else "already-taken")
                    assert body["taken_by"] == won["operator"]
                    assert yours or won["operator"] in body["title"]
    by_name = {o.name: o for o in crew}
    for order_id, won in winners.items():
        winner = by_name[won["operator"]]
        confirmed = await claim_settled(winner, order_id, "confirmed")
        assert confirmed["claim_id"] == won["claim_id"]
        order = await order_in_orders(stack, order_id)
        assert (order.status, order.version) == (Status.MANUFACTURING_STARTED, 4)
        assert order.maker is not None
        assert order.maker.id == str(winner.operator_id)
        found = await rows(stack, "SELECT state FROM claims WHERE order_id = $1", UUID(order_id))
        assert [r["state"] for r in found] == ["confirmed"]
    for operator in crew:
        await operator.aclose()


async def test_a_claim_takes_the_order_off_the_queue_and_a_release_puts_it_back(
    partner: Partner, model: str, ada: Operator, ben: Operator
) -> None:
    order_id = await an_order_in_the_queue(partner, model, ada)
    await wait_for(lambda: is_listed(ada, "queue", order_id))
    await claim(ada, order_id)
    assert not await is_listed(ada, "queue", order_id)
    problem(await ben.post(f"/v1/orders/{order_id}/release", json={"reason": "mine now"}), 409, "not-yours")
    problem(await ada.post(f"/v1/orders/{order_id}/release", json={"reason": ""}), 422, "out-of-range")
    problem(await ada.post(f"/v1/orders/{order_id}/release", json={}), 422, "missing-field")
    await step(ada, order_id, "release", {"reason": "out of wax"})
    await wait_for(lambda: is_listed(ben, "queue", order_id))
    assert (await order_at(partner, order_id, "MANUFACTURING_APPROVED"))["version"] == 5
    assert order_id not in {w["claim"]["order_id"] for w in (await ada.get("/v1/work")).json()["work"]}
    await claim(ben, order_id)


async def test_an_order_is_made_by_its_maker_packed_and_shipped_by_anybody(
    partner: Partner, model: str, ada: Operator, ben: Operator
) -> None:
    order_id = await an_order_in_the_queue(partner, model, ada)
    path = f"/v1/orders/{order_id}"
    problem(await ada.post(f"{path}/complete"), 409, "wrong-status")
    problem(await ada.post(f"{path}/pack"), 409, "wrong-status")
    await claim(ada, order_id)
    assert problem(await ben.post(f"{path}/claim"), 409, "already-taken")["taken_by"] == "Ada"
    assert "Ada" in problem(await ben.post(f"{path}/complete"), 409, "not-yours")["detail"]
    clicks = await asyncio.gather(*(ada.post(f"{path}/complete") for _ in range(5)))
    assert len({c.json()["step_id"] for c in clicks if c.status_code == 202}) == 1
    for late in [c for c in clicks if c.status_code != 202]:
        problem(late, 409, "wrong-status")
    await seen(ben, order_id, "MANUFACTURING_COMPLETED")
    await wait_for(lambda: is_listed(ben, "packing", order_id))
    problem(await ben.post(f"{path}/claim"), 409, "not-in-the-queue")
    await step(ben, order_id, "pack")
    await seen(ben, order_id, "PACKAGING")
    await wait_for(lambda: is_listed(ada, "shipping", order_id))
    assert not await is_listed(ada, "packing", order_id)
    problem(await ada.post(f"{path}/ship", json={"carrier": "DHL"}), 422, "missing-field")
    await step(ada, order_id, "ship", {"carrier": "DHL", "tracking_number": "JD0142"})
    order = await order_at(partner, order_id, "SHIPPED")
    assert order["shipment"] == {"carrier": "DHL", "tracking_number": "JD0142"}
    assert order["version"] == 7

    async def gone() -> bool:
        return not await is_listed(ada, "shipping", order_id)

    await wait_for(gone)
    assert order_id not in {w["claim"]["order_id"] for w in (await ada.get("/v1/work")).json()["work"]}


async def test_a_claim_that_orders_refuses_is_voided_with_the_reason(
    partner: Partner, model: str, ada: Operator, ben: Operator, stack: Stack
) -> None:
    """The MES believes in a version that Orders does not have: Orders decides."""
    order_id = await an_order_in_the_queue(partner, model, ada)
    true = await order_in_orders(stack, order_id)
    await publish_changes(stack, msgspec.structs.replace(true, version=9, reference="never happened"))

    async def believes() -> bool:
        return bool((await ada.get(f"/v1/orders/{order_id}")).json()["order"]["version"] == 9)

    await wait_for(believes)
    assert (await ada.post(f"/v1/orders/{order_id}/claim")).status_code == 200
    voided = await claim_settled(ada, order_id, "voided")
    assert "version 3" in voided["reason"]
    assert await order_in_orders(stack, order_id) == true
    await wait_for(lambda: is_listed(ben, "queue", order_id))
    assert (await ben.get(f"/v1/orders/{order_id}")).json().get("claim") is None
    await publish_changes(stack, msgspec.structs.replace(true, version=99, status=Status.CLOSED))
    await seen(ada, order_id, "CLOSED")


async def test_a_claim_and_a_cancellation_at_the_same_time_end_in_one_of_the_two(
    partner: Partner, model: str, ada: Operator, stack: Stack
) -> None:
    order_ids = await asyncio.gather(*(an_order_in_the_queue(partner, model, ada) for _ in range(8)))
    cancelling = [partner.post(f"/v1/orders/{i}/cancel", json={"reason": "changed my mind"}) for i in order_ids]
    claiming = [ada.post(f"/v1/orders/{i}/claim") for i in order_ids]
    answers = await asyncio.gather(*cancelling, *claiming)
    for order_id, cancelled, claimed in zip(order_ids, answers[:8], answers[8:], strict=True):
        order = await order_at(partner, order_id, "CANCELLED", "MANUFACTURING_STARTED")
        await seen(ada, order_id, order["status"])
        if order["status"] == "MANUFACTURING_STARTED":
            assert claimed.status_code == 200
            await claim_settled(ada, order_id, "confirmed")
        else:
            assert cancelled.status_code == 202

            async def nobody_has_it(order_id: str = order_id) -> bool:
                return (await ada.get(f"/v1/orders/{order_id}")).json().get("claim") is None

            await wait_for(nobody_has_it)
            assert not await is_listed(ada, "queue", order_id)


async def test_what_is_unknown_and_who_is_unknown(ada: Operator, stack: Stack, partner: Partner) -> None:
    for path in ("claim", "complete", "pack"):
        for order_id in (str(new_id()), "no-uuid", "%00"):
            problem(await ada.post(f"/v1/orders/{order_id}/{path}"), 404, "not-found")
    problem(await ada.get(f"/v1/orders/{new_id()}"), 404, "not-found")
    problem(await ada.get(f"/v1/orders/{new_id()}/model"), 404, "not-found")
    problem(await ada.get(f"/v1/steps/{new_id()}"), 404, "not-found")
    problem(await ada.get("/v1/lists/melted"), 404, "not-found")
    for query in ("limit=0", "limit=201", "after=5", "after=x_y", f"after=99999999999999999999_{new_id()}"):
        problem(await ada.get(f"/v1/lists/queue?{query}"), 400, "bad-parameter")
    async with httpx.AsyncClient(base_url=stack.url("mes")) as nobody:
        for credentials in ({}, {"Authorization": "Bearer lwo_nobody"}, {"Authorization": f"Bearer {partner.key}"}):
            for method, path in (("GET", "/v1/lists/queue"), ("GET", "/v1/work"), ("GET", "/v1/me")):
                problem(await nobody.request(method, path, headers=credentials), 401, "unauthorized")
            problem(await nobody.post(f"/v1/orders/{new_id()}/claim", headers=credentials), 401, "unauthorized")
    me = (await ada.get("/v1/me")).json()
    assert (me["name"], me["operator_id"]) == ("Ada", str(ada.operator_id))


async def test_an_operator_gets_the_model_as_it_was_uploaded(partner: Partner, ada: Operator) -> None:
    content = a_model_file()
    digest = await an_uploaded_model(partner, content)
    order_id = await an_order_in_the_queue(partner, digest, ada)
    response = await ada.get(f"/v1/orders/{order_id}/model")
    assert response.status_code == 302
    async with httpx.AsyncClient() as http:
        file = await http.get(response.headers["location"])
    assert hashlib.sha256(file.content).hexdigest() == digest
    assert "ring.stl" in file.headers["content-disposition"]


# -- lists ------------------------------------------------------------------------------------------------------------


async def fill(stack: Stack, ada: Operator) -> list[Order]:
    """Forty-five orders that only the MES knows, fifteen on each list."""
    on_lists = (Status.MANUFACTURING_APPROVED, Status.MANUFACTURING_COMPLETED, Status.PACKAGING)
    orders = [an_order(on_lists[n % 3]) for n in range(45)]
    await publish_changes(stack, *orders)
    for order in orders:
        await seen(ada, str(order.order_id), order.status)
    return orders


async def clear(stack: Stack, ada: Operator, orders: list[Order]) -> None:
    await publish_changes(stack, *(msgspec.structs.replace(o, version=99, status=Status.CLOSED) for o in orders))
    for order in orders:
        await seen(ada, str(order.order_id), "CLOSED")


async def all_lists(ada: Operator, limit: int, source: str) -> dict[str, list[dict[str, Any]]] | None:
    """Every list, if all of its pages came from `source`."""
    found = {}
    for name in ("queue", "packing", "shipping"):
        cards, sources = await whole_list(ada, name, limit)
        if sources != {source}:
            return None
        found[name] = cards
    return found


async def test_lists_come_from_redis_and_after_a_flush_from_the_database_and_soon_from_redis_again(
    stack: Stack, ada: Operator
) -> None:
    orders = await fill(stack, ada)
    try:
        before = await wait_for(lambda: all_lists(ada, 200, "redis"))
        for limit in (1, 4, 50):
            assert await all_lists(ada, limit, "redis") == before
        for name, status in (("packing", Status.MANUFACTURING_COMPLETED), ("shipping", Status.PACKAGING)):
            wanted = sorted((o for o in orders if o.status is status), key=lambda o: o.order_id)
            listed = [c["order_id"] for c in before[name]]
            assert [i for i in listed if i in {str(o.order_id) for o in wanted}] == [str(o.order_id) for o in wanted]
            assert len(listed) == len(set(listed))
        client: Any = redis.asyncio.from_url(stack.env("mes")["LOSTWAX_REDIS_URL"])
        await client.flushall()
        await client.aclose()
        page = (await ada.get("/v1/lists/packing", params={"limit": 200})).raise_for_status().json()
        assert page["source"] == "database"
        assert page["cards"] == before["packing"]
        assert await wait_for(lambda: all_lists(ada, 200, "redis")) == before
    finally:
        await clear(stack, ada, orders)


async def test_with_redis_away_lists_come_from_the_database_and_work_goes_on(
    stack: Stack, ada: Operator, partner: Partner, model: str
) -> None:
    orders = await fill(stack, ada)
    try:
        before = await wait_for(lambda: all_lists(ada, 200, "redis"))
        order_id = await an_order_in_the_queue(partner, model, ada)
        await asyncio.to_thread(stack.stop, "redis")
        try:
            answers = await asyncio.gather(*(ada.get("/v1/lists/packing", params={"limit": 200}) for _ in range(20)))
            assert {a.status_code for a in answers} == {200}
            assert {a.json()["source"] for a in answers} == {"database"}
            assert all(a.json()["cards"] == before["packing"] for a in answers)
            for limit in (4, 50):
                found = await all_lists(ada, limit, "database")
                assert found is not None
                assert {name: cards for name, cards in found.items() if name != "queue"} == {
                    name: cards for name, cards in before.items() if name != "queue"
                }
            assert await is_listed(ada, "queue", order_id)
            await claim(ada, order_id)
            assert not await is_listed(ada, "queue", order_id)
            await step(ada, order_id, "complete")
            await seen(ada, order_id, "MANUFACTURING_COMPLETED")
            assert await is_listed(ada, "packing", order_id)
        finally:
            await asyncio.to_thread(stack.start_one, "redis")
        after = await wait_for(lambda: all_lists(ada, 200, "redis"))
        assert [c["order_id"] for c in after["packing"] if c["order_id"] != order_id] == [
            c["order_id"] for c in before["packing"]
        ]
        assert await is_listed(ada, "packing", order_id)
    finally:
        await clear(stack, ada, orders)
