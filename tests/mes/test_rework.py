"""Rework, and claims that end because their order moves on, through the running services."""

from typing import Any

from tests.builders import Operator, Partner, an_approved_order, order_at, wait_for


async def takes(operator: Operator, order_id: str) -> None:
    async def taken() -> bool:
        return (await operator.post(f"/v1/orders/{order_id}/claim")).status_code == 200

    await wait_for(taken)


async def does(operator: Operator, order_id: str, step: str, body: dict[str, Any] | None = None) -> None:
    async def done() -> bool:
        return (await operator.post(f"/v1/orders/{order_id}/{step}", json=body)).status_code == 202

    await wait_for(done)


async def work(operator: Operator, order_id: str) -> str | None:
    """State of the operator's claim of this order, None when it is not among their work."""
    pieces = (await operator.get("/v1/work")).raise_for_status().json()["work"]
    return next((p["claim"]["state"] for p in pieces if p["claim"]["order_id"] == order_id), None)


async def test_a_piece_that_fails_its_check_is_first_in_the_queue_again(
    partner: Partner, ada: Operator, ben: Operator
) -> None:
    order_id = await an_approved_order(partner)
    await takes(ada, order_id)
    await order_at(partner, order_id, "MANUFACTURING_STARTED")

    async def the_workshop_knows() -> bool:
        known = (await ben.get(f"/v1/orders/{order_id}")).raise_for_status().json()
        return known["order"]["status"] == "MANUFACTURING_STARTED"

    await wait_for(the_workshop_knows)
    refused = await ben.post(f"/v1/orders/{order_id}/rework", json={"reason": "porous"})
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/not-yours")
    await does(ada, order_id, "rework", {"reason": "porous"})
    await order_at(partner, order_id, "REWORK")

    async def is_first() -> bool:
        """Before all that is not rework itself; other tests may have left some of that."""
        cards = (await ben.get("/v1/lists/queue", params={"limit": 200})).raise_for_status().json()["cards"]
        rework = [card["status"] == "REWORK" for card in cards]
        return rework == sorted(rework, reverse=True) and order_id in [c["order_id"] for c in cards[: sum(rework)]]

    await wait_for(is_first)
    assert await work(ada, order_id) is None
    await takes(ben, order_id)
    await order_at(partner, order_id, "MANUFACTURING_STARTED")
    await does(ben, order_id, "complete")
    await order_at(partner, order_id, "MANUFACTURING_COMPLETED")
    # Whoever packs it may find the fault as well.
    await does(ada, order_id, "rework", {"reason": "scratched"})
    await order_at(partner, order_id, "REWORK")
    await takes(ada, order_id)
    await order_at(partner, order_id, "MANUFACTURING_STARTED")


async def test_a_claim_of_an_order_that_is_cancelled_meanwhile_is_voided_or_never_made(
    partner: Partner, ada: Operator
) -> None:
    """A cancellation that crosses a claim: one of both wins, and both sides see the same."""
    for _ in range(5):
        order_id = await an_approved_order(partner)

        async def shown(wanted: str = order_id) -> bool:
            return (await ada.get(f"/v1/orders/{wanted}")).status_code == 200

        await wait_for(shown)
        await partner.post(f"/v1/orders/{order_id}/cancel", json={"reason": "changed my mind"})
        claimed = await ada.post(f"/v1/orders/{order_id}/claim")
        order = await order_at(partner, order_id, "CANCELLED", "MANUFACTURING_STARTED")
        if order["status"] == "MANUFACTURING_STARTED":
            assert claimed.status_code == 200
            await wait_for(lambda wanted=order_id: _is(ada, wanted, "confirmed"))
        elif claimed.status_code == 200:
            await wait_for(lambda wanted=order_id: _is(ada, wanted, "voided"))
        else:
            assert claimed.status_code == 409

        async def off_the_queue(wanted: str = order_id) -> bool:
            # The refusal and the cancellation come by two topics: between them the order is in the queue once more.
            cards = (await ada.get("/v1/lists/queue", params={"limit": 200})).json()["cards"]
            return wanted not in [c["order_id"] for c in cards]

        await wait_for(off_the_queue)


async def _is(operator: Operator, order_id: str, state: str) -> bool:
    return await work(operator, order_id) == state
