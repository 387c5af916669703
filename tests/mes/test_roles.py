"""Roles in the workshop, the override of supervisors, and claims that are held too long."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.builders import (
    Member,
    Operator,
    Partner,
    a_member,
    an_approved_order,
    order_at,
    wait_for,
)

from lostwax.contracts.ids import new_id
from lostwax.contracts.staff import Role
from lostwax.kit.postgres import open_pool
from lostwax.local.stack import Stack
from lostwax.mes import handlers
from lostwax.mes.handlers import Workshop

NO_LISTS: Any = None  # expiring claims shows nothing by itself


@pytest.fixture
async def sam(stack: Stack) -> AsyncIterator[Member]:
    client = await a_member(stack, Role.SUPERVISOR, "Sam", door="mes")
    yield client
    await client.aclose()


async def in_adas_hands(partner: Partner, ada: Operator) -> str:
    """An order of which Ada's claim is confirmed, as the MES knows it too."""
    order_id = await an_approved_order(partner)

    async def taken() -> bool:
        return (await ada.post(f"/v1/orders/{order_id}/claim")).status_code == 200

    async def confirmed() -> bool:
        view = (await ada.get(f"/v1/orders/{order_id}")).raise_for_status().json()
        return view["order"]["status"] == "MANUFACTURING_STARTED" and view["claim"]["state"] == "confirmed"

    await wait_for(taken)
    await wait_for(confirmed)
    return order_id


async def claim_of(ada: Operator, order_id: str, state: str) -> dict[str, Any]:
    """Ada's claim of the order among her work, once it has this state."""

    async def there() -> dict[str, Any] | None:
        work = (await ada.get("/v1/work")).raise_for_status().json()["work"]
        claims = [w["claim"] for w in work if w["claim"]["order_id"] == order_id]
        return claims[0] if claims and claims[0]["state"] == state else None

    return await wait_for(there)


@pytest.mark.parametrize(
    ("step", "state", "status"),
    [
        ("release", "released", "MANUFACTURING_APPROVED"),
        ("rework", "reworked", "REWORK"),
    ],
)
async def test_a_supervisor_takes_an_order_out_of_anybodys_hands(
    partner: Partner, ada: Operator, sam: Member, step: str, state: str, status: str
) -> None:
    order_id = await in_adas_hands(partner, ada)
    after: dict[str, str] = {}
    held: dict[str, str] = {}
    while True:
        page = (await sam.get("/v1/in-hand", params={"limit": 1, **after})).raise_for_status().json()
        held |= {w["claim"]["order_id"]: w["claim"]["operator"] for w in page["work"]}
        if page.get("next") is None:
            break
        after = {"after": page["next"]}
    assert held[order_id] == "Ada"
    refused = await sam.post(f"/v1/orders/{order_id}/complete")
    assert (refused.status_code, refused.json()["roles"]) == (403, ["operator"])
    asked = await sam.post(f"/v1/orders/{order_id}/{step}", json={"reason": "Ada is ill"})
    assert asked.status_code == 202, asked.text
    await order_at(partner, order_id, status)
    lost = await claim_of(ada, order_id, state)
    assert (lost["ended_by"], lost["reason"]) == ("Sam", "Ada is ill")


async def test_a_seller_looks_at_lists_and_orders_and_does_nothing(stack: Stack, partner: Partner) -> None:
    order_id = await an_approved_order(partner)
    seller = await a_member(stack, Role.SELLER, "Klara", door="mes")
    try:

        async def shown() -> bool:
            return (await seller.get(f"/v1/orders/{order_id}")).status_code == 200

        await wait_for(shown)
        assert (await seller.get("/v1/lists/queue")).status_code == 200
        for path, body in {
            f"/v1/orders/{order_id}/claim": None,
            f"/v1/orders/{order_id}/release": {"reason": "so"},
            f"/v1/orders/{order_id}/rework": {"reason": "so"},
            f"/v1/orders/{order_id}/pack": None,
        }.items():
            refused = await seller.post(path, json=body)
            assert (refused.status_code, refused.json()["type"]) == (403, "/problems/role-may-not"), path
        for path in ("/v1/work", "/v1/in-hand", f"/v1/steps/{new_id()}"):
            assert (await seller.get(path)).status_code == 403
    finally:
        await seller.aclose()


async def test_a_claim_that_is_held_too_long_goes_back_to_the_queue_once(
    stack: Stack, partner: Partner, ada: Operator
) -> None:
    order_id = await in_adas_hands(partner, ada)
    pool = await open_pool(stack.env("mes")["LOSTWAX_DATABASE_URL"], name="test expiry", size=4)
    try:
        workshop = Workshop(pool, NO_LISTS, now=lambda: datetime.now(UTC))
        assert await handlers.expire_claims(workshop, timedelta(hours=1)) == 0
        limit = timedelta(milliseconds=1)
        await asyncio.gather(*(handlers.expire_claims(workshop, limit) for _ in range(4)))
        sent = await pool.fetchval("SELECT count(*) FROM steps WHERE order_id = $1 AND action = 'expire'", order_id)
        assert sent == 1
        order = await order_at(partner, order_id, "MANUFACTURING_APPROVED")
        lost = await claim_of(ada, order_id, "released")
        assert lost["ended_by"] == "the workshop's clock"
        assert lost["reason"].startswith("Ada had it in hand for more than")
        await handlers.expire_claims(workshop, limit)
        assert (await order_at(partner, order_id, "MANUFACTURING_APPROVED"))["version"] == order["version"]
    finally:
        await pool.close()
