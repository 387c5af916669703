"""What customers and sellers say to each other, over real servers: it is there on both sides, once, with the clock, the
letters and the layouts that follow, also after Kafka or the other side was away."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from tests.builders import (
    Customer,
    Member,
    Partner,
    a_customer,
    a_member,
    an_uploaded_model,
    letters_to,
    order_at,
    problem,
    submit,
    wait_for,
)

from lostwax.contracts.ids import new_id
from lostwax.contracts.staff import Role
from lostwax.crm.conversation import waited_for
from lostwax.crm.layouts_store import Layout
from lostwax.local.stack import Stack
from lostwax.shop.letters import WORDS


@pytest.fixture(scope="module")
async def klara(stack: Stack) -> AsyncIterator[Member]:
    async with await a_member(stack, Role.SELLER, "Klara") as client:
        yield client


@pytest.fixture
async def guest(stack: Stack) -> AsyncIterator[Customer]:
    async with await a_customer(stack, "Gast", guest=True) as customer:
        yield customer


async def an_order(customer: Customer | Partner, klara: Member) -> str:
    """An order that the desk knows."""
    order_id = await submit(customer, await an_uploaded_model(customer))
    await order_at(customer, order_id, "PRICE_CALCULATED")

    async def known() -> bool:
        return (await klara.get(f"/v1/orders/{order_id}")).status_code == 200

    await wait_for(known)
    return order_id


async def said(door: httpx.AsyncClient, order_id: str, count: int) -> list[dict[str, Any]]:
    """What was said, as one door shows it, once there is so much."""

    async def there() -> list[dict[str, Any]] | None:
        messages = (await door.get(f"/v1/orders/{order_id}/messages")).raise_for_status().json()["messages"]
        assert len(messages) <= count
        return messages if len(messages) == count else None

    found: list[dict[str, Any]] = await wait_for(there, 30)
    return found


async def waiting(klara: Member, order_id: str) -> str | None:
    view = (await klara.get(f"/v1/orders/{order_id}/layouts")).raise_for_status().json()
    return None if view["waiting"] is None else str(view["waiting"]["party"])


def a_layout(state: str) -> Layout:
    return Layout(new_id(), new_id(), 1, "0" * 64, "a", 1, "", state, "Klara", datetime.now(UTC), None, None)


@pytest.mark.parametrize(
    ("states", "asks", "party"),
    [
        ((), False, None),
        ((), True, "customer"),
        (("sent",), False, "customer"),
        (("answered", "draft"), False, "seller"),
        (("answered",), False, "seller"),
        (("approved",), False, None),
        (("approved",), True, "customer"),
    ],
)
def test_who_is_waited_for_after_a_seller_has_written(states: tuple[str, ...], asks: bool, party: str | None) -> None:
    assert waited_for([a_layout(state) for state in states], asks=asks) == party


async def test_both_sides_read_what_the_other_says_once_and_are_written_to(
    stack: Stack, guest: Customer, klara: Member
) -> None:
    order_id = await an_order(guest, klara)
    key = {"Idempotency-Key": new_id().hex}
    text = {"text": "Can it be <b>wider</b>? {link}"}
    answers = await asyncio.gather(
        *(guest.post(f"/v1/orders/{order_id}/messages", json=text, headers=key) for _ in range(3))
    )
    assert {a.status_code for a in answers} == {201}
    assert len({a.json()["message_id"] for a in answers}) == 1
    (seen,) = await said(klara, order_id, 1)
    assert (seen["side"], seen["text"], seen["name"]) == ("customer", text["text"], "guest of the shop")
    assert await waiting(klara, order_id) == "seller"
    code = (await guest.get(f"/v1/orders/{order_id}")).json()["code"]
    (told,) = await letters_to(stack, "sellers@lostwax.example", subject=code)
    assert told["links"][0] == f"{stack.url('crm')}/orders/{order_id}#messages"

    asked = {"text": "Yes: by 1 mm?", "asks": True}
    (await klara.post(f"/v1/orders/{order_id}/messages", json=asked)).raise_for_status()
    assert await waiting(klara, order_id) == "customer"
    assert [m["side"] for m in await said(guest, order_id, 2)] == ["customer", "seller"]
    (letter,) = await letters_to(stack, guest.email, subject=WORDS["message"]["en"].subject.replace("{code}", code))
    assert asked["text"] in letter["text"]
    # The guest answers by the link of the letter, in whatever browser; what they say stays text.
    async with httpx.AsyncClient(timeout=20) as elsewhere:
        page = await elsewhere.get(letter["links"][0])
        assert "Can it be &lt;b&gt;wider&lt;/b&gt;? {link}" in page.text
        form = {"text": "Yes, please.", "key": "one"}
        for _ in range(2):
            assert (await elsewhere.post(letter["links"][0], data=form)).status_code == 303
        refused = await elsewhere.post(letter["links"][0], data=form, headers={"Origin": "https://evil.example"})
        assert refused.status_code == 403
        empty = await elsewhere.post(letter["links"][0], data={"text": "  "})
        assert empty.status_code == 422
        # A link that was made to show the order around does neither show nor take what is said.
        shown = (await guest.post(f"/v1/orders/{order_id}/links")).raise_for_status().json()["path"]
        around = await elsewhere.get(stack.url("shop") + shown)
        assert (around.status_code, "wider" in around.text) == (200, False)
        assert (await elsewhere.post(stack.url("shop") + shown, data=form)).status_code == 403
    assert [m["text"] for m in await said(klara, order_id, 3)][-1] == "Yes, please."
    assert await waiting(klara, order_id) == "seller"
    enough = {"text": "It is done."}
    (await klara.post(f"/v1/orders/{order_id}/messages", json=enough)).raise_for_status()
    assert await waiting(klara, order_id) is None


async def test_a_layout_is_looked_at_and_answered_from_the_order(stack: Stack, guest: Customer, klara: Member) -> None:
    order_id = await an_order(guest, klara)
    layout = (await klara.post(f"/v1/orders/{order_id}/layouts", json={})).raise_for_status().json()
    sent = (await klara.post(f"/v1/layouts/{layout['layout_id']}/send")).raise_for_status().json()
    (asked,) = await said(guest, order_id, 1)
    assert (asked["layout_id"], asked["revision"]) == (layout["layout_id"], 1)
    path = f"/v1/orders/{order_id}/layouts/{layout['layout_id']}/link"
    url = (await guest.post(path)).raise_for_status().json()["url"]
    problem(await guest.post(f"/v1/orders/{order_id}/layouts/{new_id()}/link"), 404, "not-found")
    (letter,) = await letters_to(stack, guest.email, subject="The model of your order")
    async with httpx.AsyncClient(timeout=20) as browser:
        by_letter = await browser.get(f"{letter['links'][0]}/layouts/{layout['layout_id']}")
        assert by_letter.status_code == 303
        for address in (url, by_letter.headers["location"], f"{stack.url('crm')}/l/{sent['token']}"):
            assert (await browser.get(address)).status_code == 200
        answer = {"do": "answer", "name": "Gast", "text": "wider, please"}
        assert (await browser.post(url, data=answer)).status_code == 303
    assert await waiting(klara, order_id) == "seller"
    for door in (guest, klara):
        last = (await said(door, order_id, 2))[-1]
        assert (last["side"], "wider, please" in last["text"]) == ("customer", True)


async def test_nobody_is_waited_for_once_an_order_is_over(guest: Customer, klara: Member) -> None:
    order_id = await an_order(guest, klara)
    (await guest.post(f"/v1/orders/{order_id}/messages", json={"text": "not any more"})).raise_for_status()
    await said(klara, order_id, 1)
    assert await waiting(klara, order_id) == "seller"
    (await guest.post(f"/v1/orders/{order_id}/cancel", json={"reason": "no"})).raise_for_status()

    async def nobody() -> bool:
        return await waiting(klara, order_id) is None

    await wait_for(nobody, 30)
    (await guest.post(f"/v1/orders/{order_id}/messages", json={"text": "thanks"})).raise_for_status()
    await said(klara, order_id, 2)
    assert await waiting(klara, order_id) is None


async def test_nobody_is_written_to_who_reads_nothing_here(partner: Partner, klara: Member) -> None:
    order_id = await an_order(partner, klara)
    refused = await klara.post(f"/v1/orders/{order_id}/messages", json={"text": "hello"})
    problem(refused, 409, "nobody-reads-it")
    too_long = await klara.post(f"/v1/orders/{order_id}/messages", json={"text": "x" * 2001})
    problem(too_long, 422, "out-of-range")


async def test_what_is_said_while_kafka_and_the_other_side_are_away_comes_when_they_are_back(
    stack: Stack, guest: Customer, klara: Member
) -> None:
    order_id = await an_order(guest, klara)
    stack.stop("kafka")
    try:
        told = await guest.post(f"/v1/orders/{order_id}/messages", json={"text": "one"})
        assert told.status_code == 201
        assert [m["text"] for m in await said(guest, order_id, 1)] == ["one"]
        answered = await klara.post(f"/v1/orders/{order_id}/messages", json={"text": "two"})
        assert answered.status_code == 201
        stack.kill("crm")  # with its word still in the outbox
    finally:
        await asyncio.to_thread(stack.start_one, "kafka")
    await asyncio.to_thread(stack.wait_ready, "crm")
    for door in (guest, klara):
        assert sorted(m["text"] for m in await said(door, order_id, 2)) == ["one", "two"]
