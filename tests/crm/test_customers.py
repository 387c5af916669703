"""Customers, the search and the board on the running services, by API and by page."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import httpx
import pytest
from tests.builders import Member, Partner, a_member, an_uploaded_model, order_at, submit, wait_for
from tests.conftest import NewDatabase

from lostwax.contracts.ids import new_id, short_code
from lostwax.contracts.staff import Role
from lostwax.crm import customers_store, domain
from lostwax.crm import main as crm_main
from lostwax.local.stack import Stack

MIGRATIONS = Path(crm_main.__file__).parent / "migrations"
NAME = 'Olga <b onclick="x">Petrova</b>'


@pytest.fixture(scope="module")
async def klara(stack: Stack) -> AsyncIterator[Member]:
    async with await a_member(stack, Role.SELLER, "Klara") as client:
        yield client


@pytest.fixture(scope="module")
async def boris(stack: Stack) -> AsyncIterator[Member]:
    async with await a_member(stack, Role.SELLER, "Boris") as client:
        yield client


@pytest.fixture
async def browser(stack: Stack, klara: Member) -> AsyncIterator[httpx.AsyncClient]:
    url = stack.url("crm")
    async with httpx.AsyncClient(base_url=url, headers={"Origin": url}, timeout=20) as client:
        assert (await client.post("/sign-in", data={"badge": klara.badge})).status_code == 303
        yield client


async def added(member: Member, **fields: str) -> dict[str, object]:
    answer = await member.post("/v1/customers", json={"name": NAME, **fields})
    assert answer.status_code == 201, answer.text
    view: dict[str, object] = answer.json()
    return view


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("Olga Petrova", "'olga':* & 'petrova':*"),
        ("+7 (900) 123-45-67", "'ph76543210097':*"),
        ("45-67", "'ph7654':*"),
        ("o'; DROP TABLE", "'drop':* & 'table':*"),
        ("<> ' \\ &|!", None),
        ("", None),
    ],
)
def test_a_search_is_words_and_ends_of_numbers(text: str, query: str | None) -> None:
    assert domain.search_query(text) == query


async def test_a_customer_is_found_however_they_are_remembered(klara: Member) -> None:
    digits = f"{new_id().int % 10**10:010d}"
    name = f"Żofia{digits} Ångström"
    customer = await added(klara, name=name, phone=f"+7 {digits}", email=f"zo.{digits}@example.org")
    for text in (
        f"żofia{digits}",
        f"ÅNGSTRÖM zo.{digits}",
        digits[-7:],
        f"8 {digits[:3]} {digits[3:]}"[2:],
        f"zo.{digits}@",
    ):
        found = (await klara.get("/v1/search", params={"q": text})).json()["customers"]
        assert customer["customer_id"] in [c["customer_id"] for c in found], text
    # As their family writes the same number: told as perhaps the same, not refused.
    double = await added(klara, phone=f"8({digits[:3]}){digits[3:]}")
    assert [c["customer_id"] for c in double["doubles"]] == [customer["customer_id"]]  # type: ignore[attr-defined]


async def test_many_and_few_of_a_name_are_found_newest_first(new_database: NewDatabase) -> None:
    many = 3 * customers_store._NEWEST
    connection = await asyncpg.connect(await new_database(MIGRATIONS))
    seller, customers = new_id(), [new_id() for _ in range(many)]
    await connection.execute(
        "INSERT INTO staff (staff_id, name, role, created_at) VALUES ($1, 'Klara', 'seller', now())", seller
    )
    await connection.execute(
        "INSERT INTO customers (customer_id, kind, name, seller_id, created_at, words)"
        " SELECT id, 'person', 'Olga', $2, now(), array_to_tsvector(CASE n % 300 WHEN 1 THEN ARRAY['olga', 'rare'] ELSE"
        " ARRAY['olga'] END) FROM unnest($1::uuid[]) WITH ORDINALITY AS given(id, n)",
        customers,
        seller,
    )
    for query, wanted in (("'olg':*", customers[::-1]), ("'rar':* & 'olga':*", customers[::300][::-1])):
        seen: list[object] = []
        while page := await customers_store.found(connection, query, seen[-1] if seen else None, 4):  # type: ignore[arg-type]
            seen += [line.customer_id for line in page]
        assert seen == wanted
    await connection.close()


async def test_of_two_sellers_the_second_is_told_what_the_first_did(klara: Member, boris: Member) -> None:
    customer = await added(klara)
    path = f"/v1/customers/{customer['customer_id']}"
    answers = await asyncio.gather(
        klara.post(f"{path}/consent", json={"how": "by telephone", "version": 1}),
        boris.post(f"{path}/consent", json={"how": "by letter", "version": 1}),
    )
    (won,) = [a for a in answers if a.status_code == 200]
    (lost,) = [a for a in answers if a.status_code == 409]
    assert lost.json()["type"] == "/problems/stale"
    assert lost.json()["changed"]["by"] in ("Klara", "Boris")
    assert won.json()["consent_how"] in lost.json()["changed"]["what"]
    assert won.json()["version"] == lost.json()["version_now"] == 2


async def test_merging_leaves_nothing_behind_and_no_wider_consent(klara: Member) -> None:
    one, other = await added(klara, phone="+49 30 900100", consent="by mail"), await added(klara, phone="+49 30 900101")
    for customer in (one, other):
        path = f"/v1/customers/{customer['customer_id']}/notes"
        assert (await klara.post(path, json={"text": "a note"})).status_code == 201
    merge = {"into": other["customer_id"], "version": 1}
    whole = (await klara.post(f"/v1/customers/{one['customer_id']}/merge", json=merge)).raise_for_status().json()
    assert (len(whole["contacts"]), len(whole["notes"]), whole["consent_at"]) == (2, 2, None)
    gone = (await klara.get(f"/v1/customers/{one['customer_id']}")).json()
    assert (gone["merged_into"], gone["contacts"]) == (other["customer_id"], [])
    again = await klara.post(f"/v1/customers/{one['customer_id']}/merge", json={**merge, "version": 2})
    assert (again.status_code, again.json()["type"]) == (409, "/problems/merged")
    back = {"into": one["customer_id"], "version": whole["version"]}
    circle = await klara.post(f"/v1/customers/{other['customer_id']}/merge", json=back)
    assert (circle.status_code, circle.json()["type"]) == (409, "/problems/merged")


@pytest.mark.parametrize(
    "fields", [{"name": " "}, {"name": "x" * 201}, {"email": "no address"}, {"phone": "<script>"}, {"kind": "robot"}]
)
async def test_rubbish_is_no_customer(klara: Member, fields: dict[str, str]) -> None:
    assert (await klara.post("/v1/customers", json={"name": "x", **fields})).status_code == 422


async def test_an_order_is_found_counted_and_linked(
    stack: Stack, partner: Partner, klara: Member, browser: httpx.AsyncClient
) -> None:
    model = await an_uploaded_model(partner)
    reference = f"Ref_{new_id().hex[-8:]}%"
    order_id = await submit(partner, model, reference=reference)
    await order_at(partner, order_id, "PRICE_CALCULATED")
    customer = await added(klara)
    code = short_code(new_id().__class__(order_id))

    async def known() -> bool:
        answer = await klara.get(f"/v1/orders/{order_id}")
        return answer.status_code == 200 and answer.json()["order"]["status"] == "PRICE_CALCULATED"

    await wait_for(known)
    link = {"customer_id": customer["customer_id"]}
    assert (await klara.post(f"/v1/orders/{order_id}/customer", json=link)).status_code == 200
    for text in (code, code.lower().replace("-", ""), order_id, reference, reference[:6].upper()):
        found = (await klara.get("/v1/search", params={"q": text})).json()["orders"]
        assert order_id in [o["order_id"] for o in found], text
    assert (await klara.get("/v1/search", params={"q": "ref%"})).json()["orders"] == []
    listed = (await klara.get("/v1/orders", params={"customer": customer["customer_id"]})).json()["orders"]
    assert [(o["order_id"], o["customer"], o["seller"]) for o in listed] == [(order_id, NAME, "Klara")]

    board = (await klara.get("/v1/board", params={"limit": 50})).json()
    mine = (await klara.get("/v1/board", params={"seller": str(klara.staff_id)})).json()
    (column,) = [c for c in mine["columns"] if c["status"] == "PRICE_CALCULATED"]
    assert (column["count"], column["orders"][0]["order_id"]) == (1, order_id)
    # What the counters say is what there is.
    connection = await asyncpg.connect(stack.env("crm")["LOSTWAX_DATABASE_URL"], timeout=5)
    try:
        rows = await connection.fetch(
            "SELECT k.status, k.count, count(o.order_id) AS real FROM order_counts k LEFT JOIN orders o USING (status)"
            " GROUP BY k.status, k.count"
        )
    finally:
        await connection.close()
    assert [r["status"] for r in rows if r["count"] != r["real"]] == []
    assert board["source"] == "redis"

    page = await browser.get(f"/orders/{order_id}")
    assert NAME not in page.text
    assert "Olga &lt;b onclick=&#34;x&#34;&gt;Petrova&lt;/b&gt;" in page.text
    held = await browser.post(f"/orders/{order_id}", data={"do": "hold", "reason": "<i>why</i>", "version": ""})
    assert held.status_code == 303
    stale = await browser.post(f"/orders/{order_id}", data={"do": "hold", "reason": "again", "version": "1"})
    assert stale.status_code == 409
    assert "The order has changed since you looked" in stale.text
    assert re.search(r"<i>why", stale.text) is None


async def test_who_watches_the_board_hears_of_a_change(
    stack: Stack, partner: Partner, browser: httpx.AsyncClient
) -> None:
    model = await an_uploaded_model(partner)
    async with browser.stream("GET", "/board/events") as stream:
        await submit(partner, model)
        async with asyncio.timeout(15):
            async for text in stream.aiter_lines():
                if text == "event: board":
                    break
    columns = await browser.get("/board/columns")
    assert "<html" not in columns.text
    assert 'aria-labelledby="s-SUBMITTED"' in columns.text
