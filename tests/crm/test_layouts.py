"""Layouts on the running services: revisions, the customer's link, and the clock of who is waited for."""

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import asyncpg
import httpx
import pytest
from tests.builders import Member, Partner, a_member, a_model_file, an_uploaded_model, order_at, submit, wait_for

from lostwax.contracts.staff import Role
from lostwax.local.stack import Stack


@pytest.fixture(scope="module")
async def klara(stack: Stack) -> AsyncIterator[Member]:
    async with await a_member(stack, Role.SELLER, "Klara") as client:
        yield client


@pytest.fixture
async def guest(stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    """Somebody with a browser and no account."""
    url = stack.url("crm")
    async with httpx.AsyncClient(base_url=url, headers={"Origin": url}, timeout=20) as client:
        yield client


@pytest.fixture
async def order_id(partner: Partner, klara: Member) -> str:
    order = await submit(partner, await an_uploaded_model(partner))
    await order_at(partner, order, "PRICE_CALCULATED")

    async def known() -> bool:
        answer = await klara.get(f"/v1/orders/{order}")
        return answer.status_code == 200 and answer.json()["order"]["status"] == "PRICE_CALCULATED"

    await wait_for(known)
    return order


async def sent(klara: Member, order_id: str) -> tuple[str, str]:
    """A layout and the token of a link to it."""
    added = await klara.post(f"/v1/orders/{order_id}/layouts", json={"note": "as drawn"})
    assert added.status_code == 201, added.text
    layout_id = added.json()["layout_id"]
    link = (await klara.post(f"/v1/layouts/{layout_id}/send")).raise_for_status().json()
    return layout_id, link["token"]


async def proposed(klara: Member, guest: httpx.AsyncClient, order_id: str, content: bytes) -> httpx.Response:
    """Upload another model by the page's form."""
    cookie = {"Cookie": f"staff={klara.token}"}
    files = {"file": ("thinner.stl", content, "model/stl")}
    return await guest.post(f"/orders/{order_id}/layouts", files=files, data={"note": "thinner"}, headers=cookie)


async def test_a_customer_without_an_account_sees_pins_and_approves_once(
    klara: Member, guest: httpx.AsyncClient, order_id: str
) -> None:
    layout_id, token = await sent(klara, order_id)
    page = await guest.get(f"/l/{token}")
    assert page.status_code == 200
    assert "Klara" not in page.text  # nor anything else of the house
    content = await guest.get(f"/l/{token}/model")
    assert (
        hashlib.sha256(content.content).hexdigest()
        == (await klara.get(f"/v1/orders/{order_id}/layouts")).json()["layouts"][0]["sha256"]
    )
    assert content.headers["content-security-policy"] == "sandbox"

    name = "<img src=x onerror=alert(1)>"
    remark = {"do": "remark", "name": name, "text": "here\r\nthinner", "place": "1.5,-2,0.25"}
    assert (await guest.post(f"/l/{token}", data=remark)).status_code == 303
    assert (await guest.post(f"/l/{token}", data={**remark, "place": "nan,1,2"})).status_code == 422
    assert (await guest.post(f"/l/{token}", data={**remark, "text": " "})).status_code == 422
    answers = await asyncio.gather(
        *(guest.post(f"/l/{token}", data={"do": "approve", "name": f"Olga {n}"}) for n in range(4))
    )
    assert sorted(a.status_code for a in answers) == [303, 409, 409, 409]
    after = await guest.get(f"/l/{token}")
    assert "you have approved this model" in after.text
    assert "<img src=x" not in after.text
    assert 'name="do"' not in after.text

    view = (await klara.get(f"/v1/orders/{order_id}/layouts")).json()
    (layout,) = view["layouts"]
    assert (layout["state"], layout["answered_by"][:5], view["waiting"]) == ("approved", "Olga ", None)
    (pinned,) = view["remarks"]
    assert (pinned["place"], pinned["by_customer"], pinned["text"]) == ([1.5, -2, 0.25], True, "here\nthinner")
    again = await klara.post(f"/v1/layouts/{layout_id}/send")
    assert (again.status_code, again.json()["type"]) == (409, "/problems/layout-settled")


async def test_a_link_ends_when_another_is_sent_or_a_revision_comes_or_its_time(
    stack: Stack, klara: Member, guest: httpx.AsyncClient, order_id: str
) -> None:
    layout_id, first = await sent(klara, order_id)
    second = (await klara.post(f"/v1/layouts/{layout_id}/send")).json()["token"]
    assert (await guest.get(f"/l/{first}")).status_code == 410
    assert (await guest.get(f"/l/{first}/model")).status_code == 410
    assert (await guest.get(f"/l/{second}")).status_code == 200
    for wrong in ("lwl_guess", second[:-1], second + "x", "x" * 3000, "%00"):
        assert (await guest.get(f"/l/{wrong}")).status_code == 404
    elsewhere = {"Origin": "http://evil.test"}
    assert (await guest.post(f"/l/{second}", data={"do": "approve", "name": "x"}, headers=elsewhere)).status_code == 403

    connection = await asyncpg.connect(stack.env("crm")["LOSTWAX_DATABASE_URL"], timeout=5)
    try:
        # Nothing that is stored lets anybody in.
        rows = await connection.fetch("SELECT digest::text || link_id::text AS row FROM layout_links")
        assert not any(second in row["row"] for row in rows)
        await connection.execute(
            "UPDATE layout_links SET expires_at = $2 WHERE layout_id = $1", layout_id, datetime(2020, 1, 1, tzinfo=UTC)
        )
    finally:
        await connection.close()
    late = await guest.post(f"/l/{second}", data={"do": "approve", "name": "Olga"})
    assert (late.status_code, "has expired" in late.text) == (410, True)
    third = (await klara.post(f"/v1/layouts/{layout_id}/send")).json()["token"]
    assert (await proposed(klara, guest, order_id, a_model_file())).status_code == 303
    assert (await guest.get(f"/l/{third}")).status_code == 410
    view = (await klara.get(f"/v1/orders/{order_id}/layouts")).json()
    assert [one["state"] for one in view["layouts"]] == ["superseded", "draft"]


async def test_the_clock_says_who_is_waited_for_and_the_agreed_model_is_priced(
    klara: Member, guest: httpx.AsyncClient, order_id: str, partner: Partner
) -> None:
    async def waiting() -> str | None:
        now = (await klara.get(f"/v1/orders/{order_id}/layouts")).json()["waiting"]
        return None if now is None else str(now["party"])

    _, token = await sent(klara, order_id)
    assert await waiting() == "customer"
    listed = (await klara.get("/v1/layouts/waiting", params={"party": "customer", "limit": 200})).json()["waits"]
    assert order_id in [w["order_id"] for w in listed]
    answer = {"do": "answer", "name": "Olga", "text": "thinner, please"}
    assert (await guest.post(f"/l/{token}", data=answer)).status_code == 303
    assert await waiting() == "seller"
    content = a_model_file()
    assert (await proposed(klara, guest, order_id, content)).status_code == 303
    same = await proposed(klara, guest, order_id, content)
    assert (same.status_code, "This model is a revision already" in same.text) == (409, True)
    no_model = await proposed(klara, guest, order_id, b"")
    assert no_model.status_code == 422

    second = (await klara.get(f"/v1/orders/{order_id}/layouts")).json()["layouts"][1]
    token = (await klara.post(f"/v1/layouts/{second['layout_id']}/send")).json()["token"]
    assert (await guest.post(f"/l/{token}", data={"do": "approve", "name": "Olga"})).status_code == 303
    assert await waiting() is None
    view = (await klara.get(f"/v1/orders/{order_id}/layouts")).json()
    assert set(view["waited_s"]) == {"seller", "customer"}
    cookie = {"Cookie": f"staff={klara.token}"}
    form = {"do": "make", "layout_id": second["layout_id"]}
    made = await guest.post(f"/orders/{order_id}/layouts", data=form, headers=cookie)
    assert made.status_code == 303, made.text

    async def priced() -> bool:
        order = (await partner.get(f"/v1/orders/{order_id}")).json()
        model = order["specification"]["model"]["sha256"]
        return bool(order["status"] == "PRICE_CALCULATED" and model == hashlib.sha256(content).hexdigest())

    await wait_for(priced, seconds=30)


async def test_pages_of_layouts_show_two_revisions_and_run_nothing_of_a_name(
    klara: Member, guest: httpx.AsyncClient, order_id: str
) -> None:
    await sent(klara, order_id)
    await proposed(klara, guest, order_id, a_model_file())
    page = await guest.get(f"/orders/{order_id}/layouts", headers={"Cookie": f"staff={klara.token}"})
    assert page.status_code == 200
    assert len(re.findall(r"<figure data-model=", page.text)) == 2
    assert re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", page.text) is None
    assert len(page.content) < 50_000
