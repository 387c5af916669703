"""The sellers' door on the running services: lists, holds, approvals, and what is refused beforehand."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from tests.builders import (
    Member,
    Operator,
    Partner,
    a_member,
    an_approved_order,
    an_uploaded_model,
    order_at,
    submit,
    wait_for,
)

from lostwax.contracts.ids import new_id
from lostwax.contracts.staff import Role
from lostwax.local.stack import Stack


@pytest.fixture
async def seller(stack: Stack) -> AsyncIterator[Member]:
    client = await a_member(stack, Role.SELLER, "Klara")
    yield client
    await client.aclose()


async def seen_at(member: Member, order_id: str, *statuses: str) -> dict[str, Any]:
    """The order as the CRM shows it, once it has one of these statuses there."""

    async def there() -> dict[str, Any] | None:
        answer = await member.get(f"/v1/orders/{order_id}")
        order = answer.json().get("order") if answer.status_code == 200 else None
        return order if order and order["status"] in statuses else None

    return await wait_for(there)


async def decided(member: Member, answer: httpx.Response) -> dict[str, Any]:
    """What became of the command that was answered with 202."""
    assert answer.status_code == 202, answer.text

    async def done() -> dict[str, Any] | None:
        command = (await member.get(f"/v1/commands/{answer.json()['command_id']}")).raise_for_status().json()
        return command if command["state"] != "pending" else None

    return await wait_for(done)


@asynccontextmanager
async def prices_held_back(stack: Stack) -> AsyncIterator[None]:
    """Meanwhile Orders sends no price job."""
    headers = {"Authorization": f"Bearer {stack.console_token('orders')}"}
    async with httpx.AsyncClient(base_url=stack.url("orders"), timeout=20, headers=headers) as http:
        (await http.put("/v1/publishing/pricing.requests.quick", json={"paused": True})).raise_for_status()
        try:
            yield
        finally:
            (await http.put("/v1/publishing/pricing.requests.quick", json={"paused": False})).raise_for_status()


async def test_a_price_that_comes_during_a_hold_is_there_after_it(
    stack: Stack, partner: Partner, seller: Member
) -> None:
    model = await an_uploaded_model(partner)
    async with prices_held_back(stack):
        order_id = await submit(partner, model)
        await seen_at(seller, order_id, "SUBMITTED")
        body = {"reason": "another size?", "version": 1}
        held = await decided(seller, await seller.post(f"/v1/orders/{order_id}/hold", json=body))
        assert held["state"] == "accepted", held
        again = await seller.post(f"/v1/orders/{order_id}/hold", json=body)  # the answer was lost: the same command
        assert again.json()["command_id"] == held["command_id"]
    other = await submit(partner, model)  # behind it: once this has its price, the held one's has come
    await order_at(partner, other, "PRICE_CALCULATED")
    held_order = await seen_at(seller, order_id, "ON_HOLD")
    assert held_order["on_hold"]["reason"] == "another size?"
    assert held_order["transition"]["actor"]["kind"] == "seller"
    resumed = await decided(seller, await seller.post(f"/v1/orders/{order_id}/resume", json={}))
    assert resumed["state"] == "accepted", resumed
    order = await seen_at(seller, order_id, "PRICE_CALCULATED")

    quote = order["quote"]
    wrong = {"quote_id": quote["quote_id"], "amount": "0.01"}
    refused = await seller.post(f"/v1/orders/{order_id}/approve", json=wrong)
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/amount-differs")
    right = {"quote_id": quote["quote_id"], "amount": quote["amount"], "version": order["version"]}
    approved = await decided(seller, await seller.post(f"/v1/orders/{order_id}/approve", json=right))
    assert approved["state"] == "accepted", approved
    await order_at(partner, order_id, "MANUFACTURING_APPROVED")
    line = (await seller.get(f"/v1/orders/{order_id}/time-line")).raise_for_status().json()["steps"]
    assert [s["version"] for s in line] == list(range(1, len(line) + 1))
    assert [s["status"] for s in line][:3] == ["SUBMITTED", "ON_HOLD", "SUBMITTED"]
    assert line[1]["by"]["name"] == "Klara"


async def test_a_stale_wish_is_told_what_changed_and_who_did_it(
    partner: Partner, seller: Member, ada: Operator
) -> None:
    order_id = await an_approved_order(partner)
    seen = await seen_at(seller, order_id, "MANUFACTURING_APPROVED")

    async def taken() -> bool:
        return (await ada.post(f"/v1/orders/{order_id}/claim")).status_code == 200

    await wait_for(taken)
    await seen_at(seller, order_id, "MANUFACTURING_STARTED")
    stale = await seller.post(f"/v1/orders/{order_id}/hold", json={"reason": "wait", "version": seen["version"]})
    problem = stale.json()
    assert (stale.status_code, problem["type"]) == (409, "/problems/stale")
    assert problem["changed"]["to"] == "MANUFACTURING_STARTED"
    assert problem["changed"]["by"]["name"] == "Ada"
    assert "by Ada" in problem["detail"]
    close = await seller.post(f"/v1/orders/{order_id}/close", json={})
    assert (close.status_code, close.json()["type"]) == (409, "/problems/wrong-status")
    # One who says that they saw what nobody has seen is refused by Orders itself.
    ahead = await seller.post(f"/v1/orders/{order_id}/hold", json={"reason": "wait", "version": 99})
    assert (await decided(seller, ahead))["code"] == "stale"
    cancelled = await seller.post(f"/v1/orders/{order_id}/cancel", json={"reason": "the customer died"})
    assert (await decided(seller, cancelled))["state"] == "accepted"
    await order_at(partner, order_id, "CANCELLED")


async def test_lists_are_newest_first_by_status_and_changes_are_priced_again(partner: Partner, seller: Member) -> None:
    model = await an_uploaded_model(partner)
    mine = [await submit(partner, model) for _ in range(3)]
    for order_id in mine:
        await seen_at(seller, order_id, "PRICE_CALCULATED")
    found: list[str] = []
    after: dict[str, str] = {}
    while not set(mine) <= set(found):
        params = {"status": "PRICE_CALCULATED", "limit": "2", **after}
        page = (await seller.get("/v1/orders", params=params)).raise_for_status().json()
        assert {o["status"] for o in page["orders"]} == {"PRICE_CALCULATED"}
        found += [o["order_id"] for o in page["orders"]]
        after = {"after": page["next"]} if page.get("next") else {}
        assert after or set(mine) <= set(found)
    assert found == sorted(found, reverse=True)
    both = await seller.post(f"/v1/orders/{mine[0]}/resubmit", json={"scale": 2})
    assert (both.status_code, both.json()["type"]) == (422, "/problems/out-of-range")
    changed = await seller.post(f"/v1/orders/{mine[0]}/resubmit", json={"quantity": 2})
    assert (await decided(seller, changed))["state"] == "accepted"

    async def priced_for_two() -> bool:
        order = await seen_at(seller, mine[0], "SUBMITTED", "PRICE_CALCULATED")
        return order["specification"]["quantity"] == 2 and order["status"] == "PRICE_CALCULATED"

    await wait_for(priced_for_two)
    assert (await seller.get(f"/v1/orders/{new_id()}")).status_code == 404
    assert (await seller.get("/v1/orders", params={"status": "LOST"})).status_code == 400


async def test_roles_are_told_what_they_may_not(stack: Stack, ada: Operator) -> None:
    supervisor = await a_member(stack, Role.SUPERVISOR, "Sam")
    try:
        assert (await supervisor.get("/v1/orders")).status_code == 200
        refused = await supervisor.post(f"/v1/orders/{new_id()}/cancel", json={"reason": "so"})
        assert (refused.status_code, refused.json()["type"]) == (403, "/problems/role-may-not")
        assert refused.json()["roles"] == ["seller", "administrator"]
        assert (await supervisor.get("/v1/staff")).status_code == 403
        own = {"Authorization": f"Bearer {ada.token}"}
        assert (await supervisor.get("/v1/orders", headers=own)).status_code == 403
        async with httpx.AsyncClient(base_url=stack.url("crm")) as nobody:
            assert (await nobody.get("/v1/orders")).status_code == 401
    finally:
        await supervisor.aclose()
