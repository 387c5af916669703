"""Where a price stands, as its owner is told."""

import httpx
import pytest
from tests.builders import a_partner, an_uploaded_model, order_at, service_token, submit, wait_for

from lostwax.channel import orders_client
from lostwax.contracts.ids import new_id
from lostwax.kit.auth import ServiceSigner
from lostwax.kit.neighbours import Neighbour
from lostwax.kit.problems import Problem
from lostwax.local.stack import Stack


async def test_the_owner_sees_the_place_of_a_price_and_nobody_else_does(stack: Stack) -> None:
    async with await a_partner(stack) as partner, await a_partner(stack, "Other") as other:
        model = await an_uploaded_model(partner)
        await order_at(partner, await submit(partner, model), "PRICE_CALCULATED")
        pausing = f"{stack.url('orders')}/v1/publishing/pricing.requests.quick"
        headers = {"Authorization": f"Bearer {stack.console_token('orders')}"}
        async with httpx.AsyncClient(headers=headers) as console:
            (await console.put(pausing, json={"paused": True})).raise_for_status()
            try:
                order_id = await submit(partner, model)

                async def asked() -> dict[str, object] | None:
                    response = await partner.get(f"/v1/orders/{order_id}/price-job")
                    return response.json() if response.status_code == 200 and response.json()["place"] == 0 else None

                job = await wait_for(asked)
                assert (job["order_id"], job["lane"], job["state"], job["attempts"]) == (
                    order_id,
                    "quick",
                    "published",
                    1,
                )
                assert "expected_at" in job  # null until a job of this shard has been answered
                assert (await other.get(f"/v1/orders/{order_id}/price-job")).status_code == 404
                direct = f"{stack.url('orders')}/v1/orders/{order_id}/price-job"
                async with httpx.AsyncClient() as nobody:
                    assert (await nobody.get(direct)).status_code == 401
                    token = service_token(stack, "partner_api", "orders")
                    told = (await nobody.get(direct, headers={"Authorization": f"Bearer {token}"})).json()
                    assert told | {"expected_at": None} == job | {"expected_at": None}
            finally:
                (await console.put(pausing, json={"paused": False})).raise_for_status()
        await order_at(partner, order_id, "PRICE_CALCULATED")
        after = await partner.get(f"/v1/orders/{order_id}/price-job")
        assert (after.status_code, after.json()["type"]) == (404, "/problems/no-price-due")


async def test_with_orders_away_it_says_so(stack: Stack) -> None:
    signer = ServiceSigner("partner_api", stack.env("partner_api")["LOSTWAX_SERVICE_KEY"])
    orders = Neighbour("orders", "http://127.0.0.1:9", signer)
    try:
        with pytest.raises(Problem) as problem:
            await orders_client.price_job(orders, new_id())
    finally:
        await orders.close()
    assert (problem.value.status, problem.value.code) == (503, "orders-away")
    assert problem.value.headers["Retry-After"]
