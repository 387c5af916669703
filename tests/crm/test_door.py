"""Orders that sellers take for customers, over real servers: accepted for certain, once, with whom they are for."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import pytest
from tests.builders import (
    Member,
    Operator,
    Partner,
    a_digest,
    a_member,
    a_model_file,
    an_uploaded_model,
    order_body,
    problem,
    submit,
    wait_for,
)
from tests.e2e.test_two_processes import second_process

from lostwax.contracts.ids import new_id, short_code
from lostwax.contracts.staff import Role
from lostwax.crm.domain import DESK
from lostwax.local.stack import Stack


@pytest.fixture
async def cleo(stack: Stack) -> AsyncIterator[Member]:
    async with await a_member(stack, Role.SELLER, "Cleo") as member:
        yield member


async def at(cleo: Member, order_id: str, status: str) -> dict[str, Any]:
    async def there() -> dict[str, Any] | None:
        order: dict[str, Any] = (await cleo.get(f"/v1/orders/{order_id}")).raise_for_status().json()["order"]
        return order if order["status"] == status else None

    return await wait_for(there, 30)


async def test_a_seller_tells_the_price_takes_the_order_and_it_is_made(
    stack: Stack, cleo: Member, ada: Operator
) -> None:
    model = await an_uploaded_model(cleo)
    options = [{"alloy": alloy, "finish": "polished", "ring_size": 54} for alloy in ("gold-14k", "brass")]
    asked = await cleo.post(
        "/v1/quotes", json={"model": model, "options": options}, headers={"Idempotency-Key": new_id().hex}
    )

    async def priced() -> dict[str, Any] | None:
        quote = (await cleo.get(f"/v1/quotes/{asked.json()['quote_id']}")).raise_for_status().json()
        return quote["options"][0] if quote["state"] == "priced" else None

    option = await wait_for(priced, 30)
    customer = {"name": " Olga <b>N</b>", "phone": "+7 900 555-44-33", "email": "olga@example.org"}
    body = order_body(
        model,
        customer=customer,
        remarks="calls back on Friday",
        reference="by telephone",
        quote={"quote_id": asked.json()["quote_id"], "option": 1, "amount": option["amount"]},
    )
    key = {"Idempotency-Key": new_id().hex}
    answers = await asyncio.gather(*(cleo.post("/v1/orders", json=body, headers=key) for _ in range(5)))
    assert [a.status_code for a in answers] == [202] * 5, answers[0].text
    (order_id,) = {a.json()["order_id"] for a in answers}
    assert answers[0].json()["code"] == short_code(UUID(order_id))

    order = await at(cleo, order_id, "MANUFACTURING_APPROVED")
    assert (order["channel"], order["account"], order["quote"]["amount"]) == ("crm", str(DESK), option["amount"])
    (line,) = (await cleo.get("/v1/orders", params={"reference": "by telephone", "seller": str(cleo.staff_id)})).json()[
        "orders"
    ]
    assert (line["order_id"], line["customer"], line["seller"]) == (order_id, "Olga <b>N</b>", "Cleo")
    found = (await cleo.get("/v1/search", params={"q": "5554433"})).json()["customers"]
    assert [c["name"] for c in found].count("Olga <b>N</b>") == 1, "sent five times, added once"
    assert (await ada.get(f"/v1/orders/{order_id}")).status_code == 200
    # Nobody beside the CRM is told who it is for.
    for service in ("orders", "mes"):
        database = stack.audit_dsns["shard-0" if service == "orders" else "mes"]
        connection = await asyncpg.connect(database, timeout=5)
        try:
            assert not await connection.fetchval("SELECT count(*) FROM orders WHERE body::text LIKE '%Olga%'")
        finally:
            await connection.close()

    other = await cleo.post("/v1/orders", json=body | {"remarks": "another"}, headers=key)
    assert problem(other, 422, "idempotency-key-reused")["order_id"] == order_id


async def test_what_is_wrong_is_said_and_adds_nobody(cleo: Member) -> None:
    async def taken(**changes: Any) -> Any:
        body = order_body(a_digest(), **changes)
        return await cleo.post("/v1/orders", json=body, headers={"Idempotency-Key": new_id().hex})

    name = f"Nobody {new_id().hex}"
    problem(await taken(), 422, "one-customer")
    problem(await taken(customer={"name": name}, customer_id=str(new_id())), 422, "one-customer")
    problem(await taken(customer_id=str(new_id())), 422, "no-such-customer")
    problem(await taken(customer={"name": name}), 422, "model-unknown")
    problem(await taken(customer={"name": " "}), 422, "out-of-range")
    unkeyed = await cleo.post("/v1/orders", json=order_body(a_digest(), customer={"name": name}))
    problem(unkeyed, 400, "idempotency-key-missing")
    assert (await cleo.get("/v1/customers", params={"q": name})).json()["customers"] == []
    one, two = [(await cleo.post("/v1/customers", json={"name": n})).raise_for_status().json() for n in ("One", "Two")]
    merge = {"into": two["customer_id"], "version": one["version"]}
    (await cleo.post(f"/v1/customers/{one['customer_id']}/merge", json=merge)).raise_for_status()
    merged = problem(await taken(customer_id=one["customer_id"]), 409, "merged")
    assert merged["merged_into"] == two["customer_id"]


async def test_the_model_of_an_earlier_order_of_any_door_is_ordered_again(
    stack: Stack, partner: Partner, cleo: Member
) -> None:
    content = a_model_file()
    earlier = await submit(partner, await an_uploaded_model(partner, content))
    path = f"/v1/orders/{earlier}/model/take"
    taken = await wait_for(lambda: _taken(cleo, path), 30)
    assert taken["sha256"] == hashlib.sha256(content).hexdigest()
    assert (await cleo.post(path)).json() == taken, "twice is once"
    again = await submit(cleo, taken["sha256"], customer={"name": "Again"}, approve_up_to="100000")
    await at(cleo, again, "MANUFACTURING_APPROVED")
    problem(await cleo.post(f"/v1/orders/{new_id()}/model/take"), 404, "not-found")


async def _taken(cleo: Member, path: str) -> Any:
    response = await cleo.post(path)
    return response.json() if response.status_code == 200 else None


async def test_with_orders_away_an_order_is_accepted_and_seen_at_once(stack: Stack, cleo: Member) -> None:
    model = await an_uploaded_model(cleo)
    await submit(cleo, model, customer={"name": "First"})
    stack.stop("orders")
    try:
        order_id = await submit(cleo, model, customer={"name": "Wartende"}, remarks="<i>soon</i>")
        order = (await cleo.get(f"/v1/orders/{order_id}")).raise_for_status().json()["order"]
        assert (order["version"], order["status"], order["transition"]["actor"]["name"]) == (0, "SUBMITTED", "Cleo")
        problem(await cleo.post(f"/v1/orders/{order_id}/hold", json={"reason": "x"}), 409, "not-yet")
        # A second process of the CRM knows of it as well.
        with second_process(stack, "crm") as url:
            await wait_for(lambda: _answers(cleo, f"{url}/v1/orders/{order_id}"))
    finally:
        stack.start_one("orders")
    assert (await at(cleo, order_id, "PRICE_CALCULATED"))["channel"] == "crm"


async def _answers(cleo: Member, url: str) -> bool:
    try:
        return (await cleo.get(url)).status_code == 200
    except httpx.TransportError:
        return False
