"""The shop's door over real servers: guests and accounts, sessions that can be revoked, orders, links, and who sees
what."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import datetime, timedelta

import asyncpg
import httpx
import pytest
from tests.builders import (
    Customer,
    Operator,
    a_customer,
    an_uploaded_model,
    order_at,
    order_body,
    problem,
    ship_by_api,
    submit,
    wait_for,
)
from tests.e2e.test_two_processes import ready, second_process

from lostwax.contracts.ids import new_id
from lostwax.kit.clock import utc_now
from lostwax.local.stack import Stack
from lostwax.shop import store


@pytest.fixture
async def nora(stack: Stack) -> AsyncIterator[Customer]:
    async with await a_customer(stack) as customer:
        yield customer


@pytest.fixture
async def guest(stack: Stack) -> AsyncIterator[Customer]:
    async with await a_customer(stack, "Gast", guest=True) as customer:
        yield customer


async def test_a_guest_orders_by_quote_watches_and_gets_it_and_nobody_else_is_told_who_they_are(
    stack: Stack, guest: Customer, ada: Operator
) -> None:
    model = await an_uploaded_model(guest)
    options = [{"alloy": alloy, "finish": "polished", "ring_size": 54} for alloy in ("gold-14k", "brass")]
    asked = await guest.post(
        "/v1/quotes", json={"model": model, "options": options}, headers={"Idempotency-Key": new_id().hex}
    )
    quote_id = asked.raise_for_status().json()["quote_id"]

    async def priced() -> dict[str, object] | None:
        quote = (await guest.get(f"/v1/quotes/{quote_id}")).raise_for_status().json()
        return quote["options"][0] if quote["state"] == "priced" else None

    option = await wait_for(priced, 30)
    accepted = {"quote_id": quote_id, "option": 1, "amount": option["amount"]}
    order_id = await submit(guest, model, quote=accepted)

    seen: list[str] = []

    async def watch() -> None:
        async with guest.stream("GET", f"/v1/orders/{order_id}/events", timeout=60) as events:
            assert events.headers["content-type"].startswith("text/event-stream")
            async for line in events.aiter_lines():
                if line.startswith("data: "):
                    seen.append(json.loads(line.removeprefix("data: "))["status"])
                    if seen[-1] == "SHIPPED":
                        return

    watching = asyncio.create_task(watch())
    approved = await order_at(guest, order_id, "MANUFACTURING_APPROVED")
    assert approved["quote"]["amount"] == option["amount"]
    promised, since = (datetime.fromisoformat(approved[name]) for name in ("promised_at", "approved_at"))
    assert promised - since == timedelta(weeks=3)
    due = (await guest.get(f"/v1/orders/{order_id}/payment")).raise_for_status().json()
    assert (due["state"], due["amount"], due["pay_at"]) == ("with_the_piece", option["amount"], None)
    await ship_by_api(guest, ada, order_id)
    await asyncio.wait_for(watching, 20)
    assert seen[-1] == "SHIPPED"
    due = (await guest.get(f"/v1/orders/{order_id}/payment")).raise_for_status().json()
    assert due["state"] == "invoiced"
    shard_urls = stack.env("orders")["LOSTWAX_SHARD_URLS"].split(",")
    found = []
    for dsn in shard_urls:
        connection = await asyncpg.connect(dsn, timeout=5)
        found += await connection.fetch("SELECT body::text, channel FROM orders WHERE order_id = $1", order_id)
        await connection.close()
    assert [row["channel"] for row in found] == ["shop"]
    assert guest.email not in found[0]["body"]
    assert "Gast" not in found[0]["body"]


async def test_an_order_needs_an_address(stack: Stack) -> None:
    async with httpx.AsyncClient(base_url=stack.url("shop"), timeout=20) as shop:
        token = (await shop.post("/v1/guests", json={})).raise_for_status().json()["token"]
        shop.headers["Authorization"] = f"Bearer {token}"
        key = {"Idempotency-Key": new_id().hex}
        problem(await shop.post("/v1/orders", json=order_body("0" * 64), headers=key), 409, "no-contact")
        problem(await shop.put("/v1/me", json={"email": "no address", "name": "N"}), 422, "email-misfit")
        (await shop.put("/v1/me", json={"email": " n@example.org ", "name": "<b>N</b>"})).raise_for_status()
        assert (await shop.get("/v1/me")).json()["email"] == "n@example.org"
        problem(await shop.post("/v1/orders", json=order_body("0" * 64), headers=key), 422, "model-unknown")


async def test_a_guest_who_signs_up_keeps_what_they_have_and_the_guests_session_ends(
    stack: Stack, guest: Customer
) -> None:
    model = await an_uploaded_model(guest)
    email = f"{new_id().hex}@example.org"
    account = {"email": email, "name": "Nora", "password": "correct horse"}
    signed_up = (await guest.post("/v1/customers", json=account)).raise_for_status().json()
    assert signed_up["customer_id"] == str(guest.customer_id)
    assert not signed_up["guest"]
    problem(await guest.get("/v1/me"), 401, "unauthorized")
    headers = {"Authorization": f"Bearer {signed_up['token']}"}
    models = (await guest.get("/v1/models", headers=headers)).raise_for_status().json()["models"]
    assert [m["sha256"] for m in models] == [model]
    async with httpx.AsyncClient(base_url=stack.url("shop"), timeout=20) as other:
        again = {**account, "email": email.upper()}
        # Nobody is told that the address has an account; whoever signs up by it again has one of their own.
        taken = (await other.post("/v1/customers", json=again)).raise_for_status().json()
        assert taken["customer_id"] != str(guest.customer_id)
        problem(await other.post("/v1/sign-in", json={"email": email, "password": "wrong"}), 401, "unauthorized")
        nobody = {"email": "nobody@example.org", "password": "correct horse"}
        problem(await other.post("/v1/sign-in", json=nobody), 401, "unauthorized")


async def test_a_session_that_is_revoked_lets_nobody_in_any_more(stack: Stack, nora: Customer) -> None:
    sign_in = {"email": nora.email, "password": "correct horse"}
    lost = (await nora.post("/v1/sign-in", json=sign_in)).raise_for_status().json()
    of_the_lost = {"Authorization": f"Bearer {lost['token']}"}
    assert (await nora.get("/v1/me", headers=of_the_lost)).status_code == 200
    sessions = (await nora.get("/v1/sessions")).raise_for_status().json()["sessions"]
    assert [s["current"] for s in sessions] == [False, True]
    assert (await nora.delete(f"/v1/sessions/{lost['session_id']}")).status_code == 204
    problem(await nora.get("/v1/me", headers=of_the_lost), 401, "unauthorized")

    wrong = {"password": "not it", "new_password": "battery staple"}
    problem(await nora.put("/v1/me/password", json=wrong), 403, "wrong-password")
    lost = (await nora.post("/v1/sign-in", json=sign_in)).raise_for_status().json()
    change = {"password": "correct horse", "new_password": "battery staple"}
    assert (await nora.put("/v1/me/password", json=change)).status_code == 204
    of_the_lost = {"Authorization": f"Bearer {lost['token']}"}
    problem(await nora.get("/v1/me", headers=of_the_lost), 401, "unauthorized")
    assert (await nora.get("/v1/me")).status_code == 200
    problem(await nora.post("/v1/sign-in", json=sign_in), 401, "unauthorized")


async def test_a_month_after_their_last_session_who_left_nothing_is_forgotten(
    stack: Stack, nora: Customer, guest: Customer
) -> None:
    """Nora has confirmed her address, the guest left a model; of the others one signs in again."""
    await an_uploaded_model(guest)
    idle, again = [], []
    async with httpx.AsyncClient(base_url=stack.url("shop"), timeout=20) as shop:
        for ids in (idle, again):
            email = f"{new_id().hex}@example.org"
            account = {"email": email, "name": "Never", "password": "correct horse"}
            ids.append((await shop.post("/v1/customers", json=account)).raise_for_status().json()["customer_id"])
        idle.append((await shop.post("/v1/guests", json={})).raise_for_status().json()["customer_id"])
        connection = await asyncpg.connect(stack.env("shop")["LOSTWAX_DATABASE_URL"])
        everybody = [*idle, *again, nora.customer_id, guest.customer_id]
        try:
            await connection.execute(
                "UPDATE sessions SET expires_at = now() - interval '31 days' WHERE customer_id = ANY($1)", everybody
            )
            await connection.execute(
                "UPDATE customers SET confirmed_at = now() WHERE customer_id = $1", nora.customer_id
            )
            signed_in = await shop.post("/v1/sign-in", json={"email": email, "password": "correct horse"})
            signed_in.raise_for_status()
            while await store.sweep(connection, utc_now() - timedelta(days=30), 2) == 2:
                pass
            left = await connection.fetch("SELECT customer_id FROM customers WHERE customer_id = ANY($1)", everybody)
        finally:
            await connection.close()
    assert {str(row["customer_id"]) for row in left} == {*again, str(nora.customer_id), str(guest.customer_id)}


async def test_a_browser_gets_a_cookie_that_no_script_reads_and_no_other_page_uses(stack: Stack) -> None:
    async with httpx.AsyncClient(base_url=stack.url("shop"), timeout=20) as browser:
        entered = await browser.post("/v1/guests", json={"cookie": True})
        assert entered.json()["token"] is None
        cookie = entered.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=lax" in cookie
        assert (await browser.get("/v1/me")).status_code == 200
        me = {"email": "n@example.org", "name": "N"}
        foreign = {"Origin": "https://evil.example"}
        problem(await browser.put("/v1/me", json=me, headers=foreign), 403, "cross-site")
        problem(await browser.post("/v1/sign-out", headers={"Sec-Fetch-Site": "same-site"}), 403, "cross-site")
        problem(await browser.post("/v1/guests", json={}, headers=foreign), 403, "cross-site")
        assert (await browser.put("/v1/me", json=me)).status_code == 200
        assert (await browser.post("/v1/sign-out")).status_code == 204
        assert not browser.cookies


async def test_a_link_shows_its_order_and_nothing_of_the_customer_until_it_ends(
    stack: Stack, nora: Customer, guest: Customer
) -> None:
    model = await an_uploaded_model(nora)
    order_id = await submit(nora, model)
    problem(await guest.post(f"/v1/orders/{order_id}/links"), 404, "not-found")
    link = (await nora.post(f"/v1/orders/{order_id}/links")).raise_for_status().json()
    async with httpx.AsyncClient(base_url=stack.url("shop"), timeout=20) as whoever:
        shared = await whoever.get(f"/v1/shared/{link['token']}")
        assert shared.raise_for_status().json()["alloy"] == "gold-14k"
        for secret in (nora.email, "Nora", model, order_id, str(nora.customer_id), "amount"):
            assert secret not in shared.text
        # It is no session.
        as_session = {"Authorization": f"Bearer {link['token']}"}
        problem(await whoever.get(f"/v1/orders/{order_id}", headers=as_session), 401, "unauthorized")
        problem(await whoever.get("/v1/shared/lwo_nobodys"), 404, "not-found")
        assert (await nora.delete(f"/v1/orders/{order_id}/links")).status_code == 204
        problem(await whoever.get(f"/v1/shared/{link['token']}"), 410, "link-ended")
        aged = (await nora.post(f"/v1/orders/{order_id}/links")).raise_for_status().json()["token"]
        connection = await asyncpg.connect(stack.env("shop")["LOSTWAX_DATABASE_URL"], timeout=5)
        try:
            await connection.execute("UPDATE order_links SET expires_at = now() WHERE order_id = $1", order_id)
        finally:
            await connection.close()
        problem(await whoever.get(f"/v1/shared/{aged}"), 410, "link-ended")


async def test_a_customer_cancels_until_it_is_being_made(nora: Customer, ada: Operator) -> None:
    model = await an_uploaded_model(nora)
    early, late = await submit(nora, model), await submit(nora, model, approve_up_to="100000")
    await order_at(nora, early, "PRICE_CALCULATED")
    (await nora.post(f"/v1/orders/{early}/cancel", json={"reason": "no"})).raise_for_status()
    await order_at(nora, early, "CANCELLED")
    await order_at(nora, late, "MANUFACTURING_APPROVED")

    async def claimed() -> bool:
        return (await ada.post(f"/v1/orders/{late}/claim")).status_code == 200

    await wait_for(claimed)
    await order_at(nora, late, "MANUFACTURING_STARTED")
    command = (await nora.post(f"/v1/orders/{late}/cancel", json={"reason": "no"})).raise_for_status().json()

    async def refused() -> bool:
        told = (await nora.get(f"/v1/commands/{command['command_id']}")).raise_for_status().json()
        return bool(told["state"] == "refused")

    await wait_for(refused)


async def test_too_many_from_one_address_are_refused(stack: Stack) -> None:
    few = {"LOSTWAX_ENTRIES_PER_MINUTE": "1", "LOSTWAX_ENTRIES_BURST": "3"}
    with second_process(stack, "shop", **few) as url:
        await ready(url)
        async with httpx.AsyncClient(base_url=url, timeout=20) as shop:
            answers = [(await shop.post("/v1/guests", json={})).status_code for _ in range(6)]
            assert 429 in answers
            late = await shop.post("/v1/sign-in", json={"email": "n@example.org", "password": "guess"})
            problem(late, 429, "too-many-requests")
            assert int(late.headers["retry-after"]) >= 1


async def test_behind_a_trusted_proxy_visitors_are_counted_and_before_others_nobody_names_their_own_address(
    stack: Stack,
) -> None:
    few = {"LOSTWAX_ENTRIES_PER_MINUTE": "1", "LOSTWAX_ENTRIES_BURST": "2"}

    async def answers(url: str, *forwarded: str) -> list[int]:
        async with httpx.AsyncClient(base_url=url, timeout=20) as shop:
            headers = [{"X-Forwarded-For": f, "X-Forwarded-Proto": "https"} for f in forwarded]
            return [(await shop.post("/v1/guests", json={"cookie": True}, headers=h)).status_code for h in headers]

    with second_process(stack, "shop", LOSTWAX_TRUSTED_PROXIES="127.0.0.0/8", **few) as url:
        await ready(url)
        assert await answers(url, *(f"203.0.113.{n}" for n in range(6))) == [201] * 6
        # What a visitor puts before the proxy's own word changes nothing.
        forged = await answers(url, *(f"198.51.100.{n}, 203.0.113.99, 127.0.0.9" for n in range(6)))
        assert 429 in forged
        async with httpx.AsyncClient(base_url=url, timeout=20) as shop:
            headers = {"X-Forwarded-For": "203.0.113.77", "X-Forwarded-Proto": "https"}
            entered = await shop.post("/v1/guests", json={"cookie": True}, headers=headers)
            assert "; Secure" in entered.headers["set-cookie"]
    with second_process(stack, "shop", **few) as url:
        await ready(url)
        assert 429 in await answers(url, *(f"203.0.113.{100 + n}" for n in range(6)))
