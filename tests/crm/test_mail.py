"""Letters to sellers' customers. Tasks, the load of sellers, and handing work over."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from tests.builders import Member, Partner, a_member, an_uploaded_model, letters_to, order_at, submit, wait_for

from lostwax.contracts.ids import new_id
from lostwax.contracts.staff import Role
from lostwax.crm import mail
from lostwax.crm.handlers import Office
from lostwax.kit.postgres import open_pool
from lostwax.local.stack import Stack


@pytest.fixture(scope="module")
async def klara(stack: Stack) -> AsyncIterator[Member]:
    async with await a_member(stack, Role.SELLER, "Klara") as client:
        yield client


@pytest.fixture(scope="module")
async def boris(stack: Stack) -> AsyncIterator[Member]:
    async with await a_member(stack, Role.SELLER, "Boris") as client:
        yield client


async def test_a_letter_goes_to_who_allowed_it_only_and_its_link_works(
    stack: Stack, partner: Partner, klara: Member
) -> None:
    order_id = await submit(partner, await an_uploaded_model(partner))
    await order_at(partner, order_id, "PRICE_CALCULATED")

    async def known() -> bool:
        return (await klara.get(f"/v1/orders/{order_id}")).status_code == 200

    await wait_for(known)
    layout = (await klara.post(f"/v1/orders/{order_id}/layouts", json={})).raise_for_status().json()
    email = f"{new_id().hex}@example.org"
    customer = (await klara.post("/v1/customers", json={"name": "Olga {link}", "email": email})).json()
    link = {"customer_id": customer["customer_id"]}
    (await klara.post(f"/v1/orders/{order_id}/customer", json=link)).raise_for_status()
    refused = await klara.post(f"/v1/layouts/{layout['layout_id']}/mail")
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/may-not-be-written-to")
    consent = {"how": "by telephone", "version": 1}
    (await klara.post(f"/v1/customers/{customer['customer_id']}/consent", json=consent)).raise_for_status()
    assert (await klara.post(f"/v1/layouts/{layout['layout_id']}/mail")).status_code == 202
    (line,) = [m for m in (await klara.get("/v1/mails")).json()["mails"] if m["order_id"] == order_id]
    assert (line["address"], line["seller"]) == (email, "Klara")
    assert "lwl_" not in str(line)

    await letters_to(stack, email, 1)
    async with await open_pool(stack.env("crm")["LOSTWAX_DATABASE_URL"], name="test", size=2) as pool:
        # Four days later nobody has answered: one reminder with a fresh link, and not another at once.
        later = Office(pool, now=lambda: datetime.now(UTC) + timedelta(days=4))
        assert await mail.remind(later) >= 1
        assert await mail.remind(later) == 0
        # Its time is four days off: do not wait.
        await pool.execute("UPDATE mails SET next_at = now() WHERE order_id = $1 AND state = 'waiting'", order_id)
        await pool.execute("NOTIFY mails")
    letters = await letters_to(stack, email, 2)
    links = [letter["links"][0] for letter in letters]
    assert len(set(links)) == len(letters) == 2
    assert all(letter["text"].startswith("Dear Olga (link),") for letter in letters)
    async with httpx.AsyncClient() as guest:
        assert [(await guest.get(path)).status_code for path in links] == [410, 200]


async def test_work_is_seen_and_handed_over(klara: Member, boris: Member) -> None:
    customer = (await klara.post("/v1/customers", json={"name": "Anna"})).raise_for_status().json()
    task = {"text": "call <b>back</b>", "due_on": "2020-01-01", "customer_id": customer["customer_id"]}
    added = (await klara.post("/v1/tasks", json=task)).raise_for_status().json()
    assert (added["seller"], added["customer"]) == ("Klara", "Anna")
    wrong = await klara.post("/v1/tasks", json={**task, "customer_id": str(new_id())})
    assert wrong.status_code == 422

    async def load(member: Member) -> dict[str, Any]:
        (own,) = [
            row
            for row in (await klara.get("/v1/workload")).json()["sellers"]
            if row["seller_id"] == str(member.staff_id)
        ]
        return dict(own)

    before = await load(klara)
    assert before["overdue"] >= 1
    body = {"from_seller": str(klara.staff_id), "to_seller": str(boris.staff_id)}
    not_his = await boris.post("/v1/hand-over", json=body)
    assert (not_his.status_code, not_his.json()["type"]) == (403, "/problems/not-yours")
    moved = (await klara.post("/v1/hand-over", json=body)).raise_for_status().json()
    assert (moved["customers"], moved["tasks"]) == (before["customers"], before["tasks"])
    after, his = await load(klara), await load(boris)
    assert (after["customers"], after["tasks"], after["orders"]) == (0, 0, 0)
    assert his["tasks"] >= before["tasks"]
    for _ in range(2):
        assert (await boris.post(f"/v1/tasks/{added['task_id']}/done")).status_code == 200
    open_ones = (await boris.get("/v1/tasks", params={"seller": str(boris.staff_id)})).json()["tasks"]
    assert added["task_id"] not in [t["task_id"] for t in open_ones]
