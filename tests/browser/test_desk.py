"""Sellers at their desk, and the customers whom they send links."""

import re

import asyncpg
import pytest
from playwright.async_api import Page, expect
from tests.browser.visitors import Visitors, sign_in
from tests.builders import Member, Partner, a_member, a_model_file, an_uploaded_model, order_at, submit, wait_for

from lostwax.contracts.staff import Role
from lostwax.local.stack import Stack

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture
async def order_id(stack: Stack, partner: Partner) -> str:
    """An order with a price, which the desk knows."""
    order = await submit(partner, await an_uploaded_model(partner))
    await order_at(partner, order, "PRICE_CALCULATED")
    async with await a_member(stack, Role.SELLER, "Looker") as seller:

        async def known() -> bool:
            answer = await seller.get(f"/v1/orders/{order}")
            return answer.status_code == 200 and answer.json()["order"]["status"] == "PRICE_CALCULATED"

        await wait_for(known)
    return order


async def a_seller(stack: Stack, visitors: Visitors, name: str, path: str, told: tuple[str, ...] = ()) -> Page:
    member: Member = await a_member(stack, Role.SELLER, name)
    await member.aclose()
    page = await visitors.open(f"{stack.url('crm')}/", told=told)
    await sign_in(page, member.badge)
    await page.goto(f"{stack.url('crm')}{path}")
    return page


async def send_link(page: Page) -> str:
    """Make a link to the newest revision; returns it."""
    await page.get_by_role("button", name="Make a link for the customer").click()
    link = page.get_by_role("textbox", name="Link")
    await expect(link).to_be_visible()
    return await link.input_value()


async def pin_somewhere(page: Page) -> None:
    """Click until the model is met: it is a ring, and has a hole."""
    canvas = page.locator("canvas").first
    box = await canvas.bounding_box()
    assert box is not None
    for share in (0.35, 0.4, 0.45, 0.3, 0.5, 0.25):
        await canvas.click(position={"x": box["width"] * share, "y": box["height"] / 2})
        if await page.locator(".pin.new").count():
            return
    pytest.fail("the model was not met")


async def test_a_model_is_agreed_with_a_customer_who_has_no_account(
    stack: Stack, visitors: Visitors, order_id: str
) -> None:
    seller = await a_seller(stack, visitors, "Klara", f"/orders/{order_id}/layouts")
    await seller.get_by_role("button", name="Take the order's model as the next revision").click()
    first = await send_link(seller)

    guest = await visitors.open(first, told=["409", "410"], width=390, height=800, touch=True)
    await expect(guest.locator("[data-fact=volume]")).to_contain_text("mm³")
    await pin_somewhere(guest)
    await guest.get_by_label("Your name").fill(HOSTILE)
    await guest.get_by_label("What is to be otherwise?").fill(f"thinner here {HOSTILE}")
    await guest.get_by_role("button", name="Add a remark").click()
    await expect(guest.locator(".pin")).to_have_text(["1"])
    await expect(guest.locator(".remarks")).to_contain_text(HOSTILE)
    await guest.get_by_label("Your name").fill("Olga")
    await guest.get_by_label("What is to be otherwise?").fill("thinner, please")
    await guest.get_by_role("button", name="Send: please change it").click()
    await expect(guest.get_by_role("status")).to_have_text(
        "Thank you: your seller has your answer and comes back to you."
    )
    await expect(guest.locator("form")).to_have_count(0)

    await seller.goto(f"{stack.url('crm')}/orders/{order_id}/layouts")
    await expect(seller.locator(".pin").first).to_have_text("1")
    await expect(seller.get_by_text("waiting for the seller").first).to_be_visible()
    assert await seller.locator("main img").count() == await guest.locator("img").count() == 0
    thinner = {"name": "thinner.stl", "mimeType": "model/stl", "buffer": a_model_file()}
    await seller.get_by_label("Propose another model").set_input_files(thinner)  # type: ignore[arg-type]
    await seller.get_by_role("button", name="Upload").click()
    await expect(seller.locator("figure")).to_have_count(2)
    second = await send_link(seller)

    await guest.goto(first)  # which took its answer, and shows it
    await expect(guest.locator("figcaption")).to_contain_text("Revision 1")
    await expect(guest.get_by_role("button")).to_have_count(0)
    await guest.goto(second)
    await expect(guest.locator("figcaption")).to_contain_text("Revision 2")
    await guest.get_by_label("Your name").fill("Olga")
    await guest.get_by_role("button", name="It is right so: make it").click()
    await expect(guest.get_by_role("status")).to_have_text("Thank you: you have approved this model.")
    await guest.reload()
    await expect(guest.get_by_role("button")).to_have_count(0)
    await seller.goto(f"{stack.url('crm')}/orders/{order_id}/layouts")
    await expect(seller.get_by_role("button", name="Make the order from this model: price it")).to_be_visible()
    await expect(seller.get_by_text("approved", exact=True)).to_be_visible()


async def test_a_link_whose_time_is_over_says_so(stack: Stack, visitors: Visitors, order_id: str) -> None:
    seller = await a_seller(stack, visitors, "Klara", f"/orders/{order_id}/layouts")
    await seller.get_by_role("button", name="Take the order's model as the next revision").click()
    link = await send_link(seller)
    guest = await visitors.open(link, told=["410", "404"])
    connection = await asyncpg.connect(stack.env("crm")["LOSTWAX_DATABASE_URL"], timeout=5)
    try:
        await connection.execute(
            "UPDATE layout_links SET expires_at = now() FROM layouts"
            " WHERE layouts.layout_id = layout_links.layout_id AND layouts.order_id = $1",
            order_id,
        )
    finally:
        await connection.close()
    await guest.get_by_label("Your name").fill("Olga")  # who had opened it in time, and thought it over
    await guest.get_by_role("button", name="It is right so: make it").click()
    await expect(guest.get_by_text("has expired")).to_be_visible()
    await guest.goto(link)
    await expect(guest.get_by_text("has expired")).to_be_visible()
    await guest.goto(f"{link[:-3]}xyz")
    await expect(guest.get_by_role("heading", level=1)).to_be_visible()
    await expect(guest.locator("canvas")).to_have_count(0)


async def test_of_two_sellers_at_one_order_the_second_reads_what_changed_and_who_did_it(
    stack: Stack, visitors: Visitors, order_id: str
) -> None:
    hers = await a_seller(stack, visitors, "Klara", f"/orders/{order_id}")
    his = await a_seller(stack, visitors, "Egon", f"/orders/{order_id}", told=("409",))
    await hers.get_by_label("Why is it held?").fill(HOSTILE)
    await hers.get_by_role("button", name="Hold").click()
    await expect(hers.get_by_text("Done.")).to_be_visible()
    await expect(hers.locator(".status.on_hold").first).to_be_visible()
    await his.get_by_role("button", name="Approve").click()
    told = his.get_by_role("alert")
    await expect(told).to_contain_text("The order has changed since you looked")
    await expect(told).to_contain_text("Klara")
    await expect(his.get_by_role("button", name="Approve")).to_have_count(0)  # it is shown as it is now
    assert await his.locator("main img").count() == 0
    await his.get_by_role("button", name="Release").click()
    await expect(his.get_by_text("Done.")).to_be_visible()
    await his.get_by_role("button", name="Approve").click()
    await expect(his.get_by_text("Done.")).to_be_visible()


async def test_an_order_is_taken_by_telephone(stack: Stack, visitors: Visitors) -> None:
    seller = await a_seller(stack, visitors, "Klara", "/new-order")
    await seller.get_by_text("Somebody new").click()
    new = seller.locator("#new-customer")
    await new.get_by_label("Name").fill(HOSTILE)
    await new.get_by_label("Telephone").fill("+49 89 1234")
    ring = {"name": "ring.stl", "mimeType": "model/stl", "buffer": a_model_file()}
    await seller.locator("#file").set_input_files(ring)  # type: ignore[arg-type]
    await expect(seller.locator("#prices td button")).to_have_count(40)  # told on the telephone
    price = seller.locator("[data-alloy=platinum-950] [data-finish=satin] button")
    told = await price.inner_text()
    await price.click()
    await expect(seller.locator("#chosen")).to_contain_text(told)
    await seller.get_by_label("Remarks").fill("a gift")
    await seller.get_by_role("button", name="Take the order").click()
    await expect(seller).to_have_url(re.compile(r"/orders/[0-9a-f-]{36}$"))
    await expect(seller.get_by_text("platinum-950, satin")).to_be_visible()
    await expect(seller.get_by_role("link", name=HOSTILE)).to_be_visible()
    assert await seller.locator("main img").count() == 0


async def test_the_board_moves_by_itself(stack: Stack, visitors: Visitors, partner: Partner, order_id: str) -> None:
    seller = await a_seller(stack, visitors, "Klara", "/")
    count = seller.locator(".board section").filter(has_text="Priced").locator("h2 b")
    before = int(await count.inner_text())
    asked: list[str] = []
    seller.on("request", lambda request: asked.append(request.url) if request.is_navigation_request() else None)
    quote = (await partner.get(f"/v1/orders/{order_id}")).json()["quote"]
    body = {"quote_id": quote["quote_id"], "amount": quote["amount"]}
    (await partner.post(f"/v1/orders/{order_id}/accept", json=body)).raise_for_status()
    await expect(count).to_have_text(str(before - 1))
    assert asked == []
