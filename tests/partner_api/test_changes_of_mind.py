"""A partner cancels, changes and retries orders through the running services."""

import pytest
from tests.builders import (
    Partner,
    a_partner,
    an_approved_order,
    an_operator,
    an_uploaded_model,
    order_at,
    submit,
    wait_for,
)

from lostwax.local.stack import Stack


async def outcome(partner: Partner, command_id: str) -> dict[str, str]:
    async def decided() -> dict[str, str] | None:
        command: dict[str, str] = (await partner.get(f"/v1/commands/{command_id}")).raise_for_status().json()
        return command if command["state"] != "pending" else None

    return await wait_for(decided)


async def test_cancelling_before_it_is_made(partner: Partner) -> None:
    order_id = await an_approved_order(partner)
    first = await partner.post(f"/v1/orders/{order_id}/cancel", json={"reason": "changed my mind"})
    again = await partner.post(f"/v1/orders/{order_id}/cancel", json={"reason": "changed my mind"})
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json()["command_id"] == again.json()["command_id"]
    order = await order_at(partner, order_id, "CANCELLED")
    assert order["version"] == 4
    assert (await outcome(partner, first.json()["command_id"]))["state"] == "accepted"


async def test_cancelling_what_is_being_made_is_refused_with_the_reason(stack: Stack, partner: Partner) -> None:
    order_id = await an_approved_order(partner)
    operator = await an_operator(stack)
    try:
        await wait_for(lambda: _claimed(operator, order_id))
        await order_at(partner, order_id, "MANUFACTURING_STARTED")
        asked = await partner.post(f"/v1/orders/{order_id}/cancel", json={"reason": "too slow"})
        assert asked.status_code == 202
        refused = await outcome(partner, asked.json()["command_id"])
        assert (refused["state"], refused["code"]) == ("refused", "too_late")
        assert (await partner.get(f"/v1/orders/{order_id}")).json()["status"] == "MANUFACTURING_STARTED"
    finally:
        await operator.aclose()


async def _claimed(operator: object, order_id: str) -> bool:
    response = await operator.post(f"/v1/orders/{order_id}/claim")  # type: ignore[attr-defined]
    return bool(response.status_code == 200)


async def test_another_alloy_is_priced_anew_and_the_old_price_cannot_be_accepted(partner: Partner) -> None:
    order_id = await submit(partner, await an_uploaded_model(partner), alloy="sterling-925")
    old = (await order_at(partner, order_id, "PRICE_CALCULATED"))["quote"]
    changed = await partner.post(f"/v1/orders/{order_id}/resubmit", json={"alloy": "platinum-950", "engraving": "M"})
    assert changed.status_code == 202, changed.text
    assert (await outcome(partner, changed.json()["command_id"]))["state"] == "accepted"

    async def anew() -> dict[str, object] | None:
        order = (await partner.get(f"/v1/orders/{order_id}")).json()
        new = order["quote"] is not None and order["quote"]["quote_id"] != old["quote_id"]
        return order if new else None

    order = await wait_for(anew)
    wanted = order["specification"]
    assert (wanted["alloy"], wanted["engraving"], wanted["finish"]) == ("platinum-950", "M", "polished")
    assert float(order["quote"]["amount"]) > float(old["amount"])
    accept = {"quote_id": old["quote_id"], "amount": old["amount"]}
    refused = await partner.post(f"/v1/orders/{order_id}/accept", json=accept)
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/quote-superseded")


async def test_an_order_whose_price_failed_is_mended_by_a_finish_that_exists(partner: Partner) -> None:
    order_id = await submit(partner, await an_uploaded_model(partner), finish="glitter")
    failed = await order_at(partner, order_id, "PRICE_FAILED")
    assert failed["failure"]["code"] == "finish_unknown"
    assert failed["failure"]["mended_by"] == "customer"
    await partner.post(f"/v1/orders/{order_id}/resubmit", json={"finish": "satin"})
    assert (await order_at(partner, order_id, "PRICE_CALCULATED"))["specification"]["finish"] == "satin"


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({"alloy": "UPPER"}, "out-of-range"),
        ({"colour": "red"}, "unknown-field"),
        ({"quantity": None}, "wrong-type"),
        ({"scale": 2.0}, "ring-size-or-scale"),
        ({"deadline": "2001-01-01"}, "deadline-passed"),
        ({"model": "ab" * 32}, "model-unknown"),
    ],
)
async def test_a_change_that_does_not_fit(partner: Partner, body: dict[str, object], problem: str) -> None:
    order_id = await an_approved_order(partner)
    response = await partner.post(f"/v1/orders/{order_id}/resubmit", json=body)
    assert (response.status_code, response.json()["type"]) == (422, f"/problems/{problem}")


async def test_anothers_order_can_be_neither_cancelled_nor_changed(stack: Stack, partner: Partner) -> None:
    order_id = await an_approved_order(partner)
    stranger = await a_partner(stack, "Stranger")
    try:
        for path, body in (("cancel", {"reason": "ha"}), ("resubmit", {})):
            assert (await stranger.post(f"/v1/orders/{order_id}/{path}", json=body)).status_code == 404
    finally:
        await stranger.aclose()
