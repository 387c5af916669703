"""Letters of the shop, as they arrive: addresses are confirmed and lost passwords replaced by links that work once,
orders are told of, and nobody learns who has an account."""

import asyncio

import asyncpg
import httpx
import pytest
from tests.builders import (
    Customer,
    Operator,
    a_customer,
    an_uploaded_model,
    letters_to,
    order_at,
    problem,
    ship_by_api,
    submit,
)

from lostwax.contracts.ids import new_id
from lostwax.local.stack import Stack
from lostwax.shop.letters import WORDS

PASSWORD = "correct horse"


def token_in(letter: dict[str, list[str]]) -> str:
    return letter["links"][0].rpartition("/")[2]


async def run_sql(stack: Stack, statement: str, *values: object) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(stack.env("shop")["LOSTWAX_DATABASE_URL"], timeout=5)
    try:
        return await connection.fetch(statement, *values)
    finally:
        await connection.close()


@pytest.fixture
async def shop(stack: Stack) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=stack.url("shop"), timeout=20)


def test_every_letter_is_there_in_both_languages() -> None:
    assert {kind: sorted(words) for kind, words in WORDS.items()} == {kind: ["en", "ru"] for kind in WORDS}
    assert all("{link}" in words.body for kind in WORDS.values() for words in kind.values())


async def test_an_address_is_confirmed_by_a_letter_once_and_sign_up_tells_nobody_who_has_an_account(
    stack: Stack, shop: httpx.AsyncClient
) -> None:
    email = f"{new_id().hex}@example.org"
    account = {"email": email, "name": "Win at http://evil.example/", "password": PASSWORD}
    first = await shop.post("/v1/customers", json=account, headers={"Accept-Language": "ru"})
    mine = {"Authorization": f"Bearer {first.json()['token']}"}
    assert (await shop.get("/v1/me", headers=mine)).json()["confirmed"] is False
    (letter,) = await letters_to(stack, email)
    assert letter["subject"] == WORDS["confirm"]["ru"].subject
    assert "evil" not in letter["text"]  # a stranger's letter carries nothing that somebody else wrote
    assert len(letter["links"]) == 1
    # Mail programs open links by themselves: that uses none up.
    for _ in range(2):
        assert (await shop.get(letter["links"][0])).status_code == 200
    assert (await shop.post(letter["links"][0])).status_code == 200
    assert (await shop.get("/v1/me", headers=mine)).json()["confirmed"] is True
    problem(await shop.post("/v1/confirmations", json={"token": token_in(letter)}), 410, "link-ended")
    assert (await shop.get(letter["links"][0])).status_code == 410
    problem(await shop.post("/v1/confirmations", json={"token": "lwm_nobodys"}), 404, "not-found")

    # The same sign-up again, by somebody else: alike for them, and the owner is told.
    again = await shop.post("/v1/customers", json={**account, "email": email.upper(), "password": "another one"})
    assert again.status_code == first.status_code
    assert again.json().keys() == first.json().keys()
    known = (await letters_to(stack, email.upper(), subject=WORDS["known"]["en"].subject))[0]
    assert known["links"][0].endswith("/lost-password")
    for password, who in ((PASSWORD, first), ("another one", again)):
        entered = await shop.post("/v1/sign-in", json={"email": email, "password": password})
        assert entered.raise_for_status().json()["customer_id"] == who.json()["customer_id"]
    theirs = {"Authorization": f"Bearer {again.json()['token']}"}
    assert (await shop.get("/v1/me", headers=theirs)).json()["confirmed"] is False


async def test_of_many_who_sign_up_with_one_address_one_can_confirm_it(stack: Stack, shop: httpx.AsyncClient) -> None:
    email = f"{new_id().hex}@example.org"
    account = {"email": email, "name": "N", "password": PASSWORD}
    answers = await asyncio.gather(*(shop.post("/v1/customers", json=account) for _ in range(3)))
    assert [a.status_code for a in answers] == [201, 201, 201]
    letters = await letters_to(stack, email, 3)
    told = await asyncio.gather(*(shop.post("/v1/confirmations", json={"token": token_in(one)}) for one in letters))
    assert sorted(a.status_code for a in told) == [204, 409, 409]


async def test_a_lost_password_is_replaced_once_and_everybody_is_signed_out(
    stack: Stack, shop: httpx.AsyncClient
) -> None:
    async with await a_customer(stack) as nora:
        asked = await shop.post("/v1/password-letters", json={"email": nora.email})
        nobody = await shop.post("/v1/password-letters", json={"email": f"{new_id().hex}@example.org"})
        assert (asked.status_code, asked.content) == (nobody.status_code, nobody.content) == (202, b"")
        (letter,) = await letters_to(stack, nora.email, subject=WORDS["password"]["en"].subject)
        token = token_in(letter)
        short = await shop.post(letter["links"][0], data={"password": "short"})
        assert short.status_code == 422
        foreign = {"Origin": "https://evil.example"}
        refused = await shop.post(letter["links"][0], data={"password": "battery staple"}, headers=foreign)
        assert refused.status_code == 403
        choices = [{"token": token, "password": f"battery staple {n}"} for n in range(3)]
        told = await asyncio.gather(*(shop.post("/v1/passwords", json=choice) for choice in choices))
        assert sorted(a.status_code for a in told) == [204, 410, 410]
        taken = choices[[a.status_code for a in told].index(204)]["password"]
        problem(await nora.get("/v1/me"), 401, "unauthorized")
        problem(await shop.post("/v1/sign-in", json={"email": nora.email, "password": PASSWORD}), 401, "unauthorized")
        entered = await shop.post("/v1/sign-in", json={"email": nora.email, "password": taken})
        again = {"Authorization": f"Bearer {entered.raise_for_status().json()['token']}"}
        assert (await shop.get("/v1/me", headers=again)).json()["confirmed"] is True  # the letter has proved it

        # An expired one, one of another purpose, and too many letters.
        (await shop.post("/v1/password-letters", json={"email": nora.email})).raise_for_status()
        letters = await letters_to(stack, nora.email, 2, subject=WORDS["password"]["en"].subject)
        wrong = {"token": token_in(letters[1])}
        problem(await shop.post("/v1/confirmations", json=wrong), 404, "not-found")
        await run_sql(stack, "UPDATE mail_links SET expires_at = now() WHERE customer_id = $1", nora.customer_id)
        problem(await shop.post("/v1/passwords", json={**wrong, "password": "battery staple"}), 410, "link-ended")
        for _ in range(3):
            assert (await shop.post("/v1/password-letters", json={"email": nora.email})).status_code == 202
        rows = await run_sql(
            stack, "SELECT kind, count(*) AS n FROM mails WHERE address = $1 GROUP BY kind", nora.email
        )
        assert {r["kind"]: r["n"] for r in rows} == {"confirm": 1, "password": 2}  # three in an hour
        kept = await run_sql(stack, "SELECT secret, state FROM mails WHERE address = $1", nora.email)
        assert all(r["secret"] is None for r in kept if r["state"] != "waiting")


async def test_who_orders_is_told_of_it_once_and_by_a_link_that_works(stack: Stack, ada: Operator) -> None:
    async with await a_customer(stack, "<b>Gast</b>", guest=True) as guest:
        model = await an_uploaded_model(guest)
        order_id = await submit(guest, model, approve_up_to="100000")
        await order_at(guest, order_id, "MANUFACTURING_APPROVED")
        await ship_by_api(guest, ada, order_id)
        shipped = (await letters_to(stack, guest.email, subject="on its way"))[0]
        promised = (await letters_to(stack, guest.email, subject="ships by"))[0]
        assert "Gast" not in shipped["text"] + promised["text"]
        async with httpx.AsyncClient(timeout=20) as reader:
            for letter in (shipped, promised):
                page = await reader.get(letter["links"][0])
                assert page.status_code == 200
                assert "DHL" in page.text
        rows = await run_sql(stack, "SELECT kind, state, secret FROM mails WHERE order_id = $1", order_id)
        # What a later step has made needless was not sent, and nothing was written twice.
        assert {r["kind"]: r["state"] for r in rows} | {"received": "superseded"} == {
            "received": "superseded",
            "promised": "sent",
            "shipped": "sent",
        } | {r["kind"]: "superseded" for r in rows if r["kind"] == "priced"}
        assert len(rows) == len({r["kind"] for r in rows})


async def test_a_price_that_waits_for_its_customer_is_told(stack: Stack, shop: httpx.AsyncClient) -> None:
    async with await a_customer(stack) as nora:
        order_id = await submit(nora, await an_uploaded_model(nora))
        order: Customer | dict[str, dict[str, str]] = await order_at(nora, order_id, "PRICE_CALCULATED")
        await run_sql(stack, "UPDATE mails SET next_at = now() WHERE order_id = $1", order_id)
        await run_sql(stack, "NOTIFY mails")
        (letter,) = await letters_to(stack, nora.email, subject="The price of your order")
        assert isinstance(order, dict)
        assert order["quote"]["amount"] in letter["subject"]
