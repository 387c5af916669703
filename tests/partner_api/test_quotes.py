"""Quotes through the real API: asked for, priced, held, ordered by."""

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx
import pytest
from tests.builders import Partner, a_partner, an_uploaded_model, order_at, order_body, submit, wait_for

from lostwax.contracts.ids import new_id
from lostwax.local.stack import Stack


@pytest.fixture(scope="module")
async def partner(stack: Stack) -> AsyncIterator[Partner]:
    async with await a_partner(stack) as client:
        yield client


async def ask(partner: Partner, model: str, *options: dict[str, Any], key: str | None = None) -> httpx.Response:
    body = {"model": model, "options": list(options), "reference": "Q-1"}
    return await partner.post("/v1/quotes", json=body, headers={"Idempotency-Key": key or new_id().hex})


SILVER = {"alloy": "sterling-925", "finish": "polished", "ring_size": 54}
GOLD = {"alloy": "gold-14k", "finish": "polished", "ring_size": 54}
UNKNOWN = {"alloy": "mithril", "finish": "polished"}


async def a_priced_quote(partner: Partner, model: str, *options: dict[str, Any]) -> dict[str, Any]:
    response = await ask(partner, model, *options)
    assert response.status_code == 202, response.text

    async def there() -> dict[str, Any] | None:
        quote: dict[str, Any] = (await partner.get(response.headers["location"])).raise_for_status().json()
        return quote if quote["state"] != "requested" else None

    return dict(await wait_for(there))


async def order_by(partner: Partner, model: str, seen: dict[str, Any], option: int, **changes: Any) -> httpx.Response:
    """Order the option as it was quoted, but for `changes`."""
    chosen = seen["options"][option - 1]
    accepted = {"quote_id": seen["quote_id"], "option": option, "amount": changes.pop("amount", chosen["amount"])}
    body = order_body(model, alloy=chosen["alloy"], finish=chosen["finish"], quote=accepted)
    return await partner.post("/v1/orders", json=body | changes, headers={"Idempotency-Key": new_id().hex})


def refused(response: httpx.Response) -> tuple[int, str]:
    assert response.json()["detail"]
    return response.status_code, response.json()["type"].removeprefix("/problems/")


async def test_from_a_quote_of_a_new_model_to_approved_orders_at_its_price(stack: Stack, partner: Partner) -> None:
    model = await an_uploaded_model(partner)
    quote = await a_priced_quote(partner, model, SILVER, GOLD, UNKNOWN)
    assert (quote["state"], quote["model"], quote["reference"]) == ("priced", model, "Q-1")
    assert quote["version"] in (2, 3, 4)  # answers that came together are one change
    silver, gold, unknown = quote["options"]
    assert float(silver["amount"]) < float(gold["amount"])
    assert unknown["failure"]["code"] == "alloy_unknown"
    assert quote["expires_at"] > quote["requested_at"]
    for option in (1, 1, 2):
        response = await order_by(partner, model, quote, option)
        assert response.status_code == 202, response.text
        order = await order_at(partner, response.json()["order_id"], "MANUFACTURING_APPROVED")
        assert (order["version"], order["quote"]["amount"]) == (3, quote["options"][option - 1]["amount"])
        assert order["quote"]["quote_id"] == quote["quote_id"]
    listed = (await partner.get("/v1/quotes", params={"limit": 1})).json()
    assert [q["quote_id"] for q in listed["quotes"]] == [quote["quote_id"]]
    # It costs what an order without a quote costs.
    plain = await order_at(partner, await submit(partner, model), "PRICE_CALCULATED")
    assert plain["quote"]["amount"] == gold["amount"]


async def test_what_a_quote_does_not_hold_for(stack: Stack, partner: Partner) -> None:
    model, other_model = await an_uploaded_model(partner), await an_uploaded_model(partner)
    quote = await a_priced_quote(partner, model, SILVER, UNKNOWN)

    async def order(option: int = 1, **changes: Any) -> tuple[int, str]:
        return refused(await order_by(partner, changes.pop("model", model), quote, option, **changes))

    assert await order(amount="0.01") == (409, "amount-differs")
    assert await order(amount="NaN") == (422, "out-of-range")
    assert await order(2, amount="10", ring_size=None) == (409, "quote-not-priced")
    assert await order(quantity=2) == (422, "quote-differs")
    assert await order(model=other_model) == (422, "quote-differs")
    assert await order(alloy="brass") == (422, "quote-differs")
    assert await order(approve_up_to="500") == (422, "quote-or-approval")
    wrong = {"quote_id": quote["quote_id"], "option": 3, "amount": "10"}
    assert await order(quote=wrong) == (422, "option-unknown")
    assert await order(quote=wrong | {"quote_id": str(new_id())}) == (422, "quote-unknown")
    async with await a_partner(stack, "Other") as other:
        assert (await other.get(f"/v1/quotes/{quote['quote_id']}")).status_code == 404
        assert (await other.get("/v1/quotes")).json() == {"quotes": [], "next": None}
        theirs = await an_uploaded_model(other)
        assert refused(await order_by(other, theirs, quote, 1)) == (422, "quote-unknown")
    # A fortnight later, by this service's clock.
    connection = await asyncpg.connect(stack.env("partner_api")["LOSTWAX_DATABASE_URL"])
    try:
        await connection.execute(
            "UPDATE quotes SET quote_body = jsonb_set(jsonb_set(quote_body, '{expires_at}', $2),"
            " '{options,0,price,expires_at}', $2) WHERE quote_id = $1",
            quote["quote_id"],
            '"2020-01-01T00:00:00Z"',
        )
    finally:
        await connection.close()
    assert (await partner.get(f"/v1/quotes/{quote['quote_id']}")).json()["state"] == "expired"
    assert await order() == (409, "quote-expired")


async def test_a_quote_is_asked_for_once_under_its_key(partner: Partner) -> None:
    model, key = await an_uploaded_model(partner), new_id().hex
    first = await ask(partner, model, SILVER, key=key)
    assert first.status_code == 202
    assert (await ask(partner, model, SILVER, key=key)).json() == first.json()
    assert refused(await ask(partner, model, GOLD, key=key)) == (422, "idempotency-key-reused")
    assert refused(await ask(partner, "0" * 64, GOLD)) == (422, "model-unknown")
    assert (await ask(partner, model)).status_code == 422
    assert (await ask(partner, model, *[SILVER] * 25)).status_code == 422
    assert refused(await ask(partner, model, SILVER | {"scale": 2})) == (422, "ring-size-or-scale")
    missing = await partner.post("/v1/quotes", json={"model": model, "options": [SILVER]})
    assert refused(missing) == (400, "idempotency-key-missing")
