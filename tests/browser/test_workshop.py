"""Operators at their tablets, held upright and touched."""

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable
from uuid import UUID

from playwright.async_api import Locator, Page, Route, TimeoutError, expect
from tests.browser.visitors import Visitors, sign_in
from tests.builders import Operator, Partner, an_approved_order, order_at

from lostwax.contracts.ids import short_code
from lostwax.local.stack import Stack

UPRIGHT = {"width": 800, "height": 1280, "touch": True}


async def at_the_queue(stack: Stack, visitors: Visitors, operator: Operator, **otherwise: object) -> Page:
    page = await visitors.open(stack.url("mes"), **{**UPRIGHT, **otherwise})  # type: ignore[arg-type]
    await sign_in(page, operator.badge)
    return page


async def card_of(page: Page, order_id: str, pane: str = "queue") -> Locator:
    """The card of an order on a list, however long the list is."""
    code = short_code(UUID(order_id))
    card = page.locator(f"[data-pane={pane}] .card").filter(has_text=code)
    more = page.locator(f"[data-pane={pane}] .more")
    await expect(card.or_(more).first).to_be_visible()
    while await more.is_visible() and not await card.count():
        shown = await page.locator(f"[data-pane={pane}] .card").count()
        await more.tap()
        await expect(page.locator(f"[data-pane={pane}] .card").nth(shown)).to_be_attached()
    await expect(card).to_be_visible()
    return card


async def until_seen(button: Locator, opened: Locator) -> None:
    """Tap as people do: again when nothing happened, for a list that has just moved takes no tap."""
    for _ in range(10):
        with contextlib.suppress(TimeoutError):
            await button.tap(timeout=1000)
        with contextlib.suppress(AssertionError):
            return await expect(opened).to_be_visible(timeout=2000)
    raise AssertionError(f"{button} does nothing")


async def test_a_piece_is_taken_fails_its_check_is_made_again_packed_and_shipped(
    stack: Stack, visitors: Visitors, partner: Partner, ada: Operator
) -> None:
    order_id = await an_approved_order(partner, engraving="<b>E & M</b>", quantity=2)
    code = short_code(UUID(order_id))
    page = await at_the_queue(stack, visitors, ada)
    card = await card_of(page, order_id)
    await expect(card.locator("[data-fact=engraving] dd")).to_have_text("<b>E & M</b>")
    small = "[...document.querySelectorAll('button, nav a')].filter(b => b.offsetHeight && b.offsetHeight < 48)"
    assert await page.evaluate(f"{small}.map(b => b.outerHTML)") == []  # gloves

    async def take() -> Locator:
        mine_now = page.get_by_role(
            "link", name=re.compile("^My work 1")
        )  # what is said may still be of the first time
        await until_seen((await card_of(page, order_id)).get_by_role("button", name="Take"), mine_now)
        await expect(page.get_by_role("status").get_by_text(f"{code} is yours.").first).to_be_visible()
        await mine_now.tap()
        mine = await card_of(page, order_id, "work")
        await expect(mine.get_by_role("button", name="Made")).to_be_enabled()
        return mine

    mine = await take()
    await until_seen(mine.get_by_role("button", name="Failed check"), mine.get_by_role("button", name="Porous casting"))
    await mine.get_by_role("button", name="Porous casting").tap()
    await mine.get_by_role("button", name="Make it again").tap()
    await expect(page.get_by_text(f"{code} is back in the queue, first in line.").first).to_be_visible()
    assert (await order_at(partner, order_id, "REWORK"))["status"] == "REWORK"
    await page.get_by_role("link", name=re.compile("^Queue")).tap()
    await expect((await card_of(page, order_id)).locator(".due b")).to_have_text("Rework")

    mine = await take()
    await until_seen(mine.get_by_role("button", name="Made"), mine.locator(".ask"))
    await expect(mine.locator(".ask")).to_have_text("Are all 2 pieces made?")
    await mine.get_by_role("button", name="Yes, made").tap()
    await expect(mine).to_have_count(0)
    await page.get_by_role("link", name=re.compile("^Packing")).tap()
    packing, parcel = (
        page.locator(f"[data-pane={pane}] .card").filter(has_text=code) for pane in ("packing", "shipping")
    )
    await until_seen(packing.get_by_role("button", name="Pack"), parcel)
    await until_seen(parcel.get_by_role("button", name="Ship").first, parcel.get_by_label("Carrier", exact=True))
    await parcel.get_by_label("Carrier", exact=True).fill("DHL")
    await parcel.get_by_label("Tracking number").fill("JD 014 6000")
    await parcel.locator("[data-panel=ship] .main").tap()
    await expect(parcel).to_have_count(0)
    shipped = await order_at(partner, order_id, "SHIPPED")
    assert shipped["shipment"] == {"carrier": "DHL", "tracking_number": "JD 014 6000"}


async def test_of_two_who_take_one_piece_the_second_reads_who_was_faster(
    stack: Stack, visitors: Visitors, partner: Partner, ada: Operator, ben: Operator
) -> None:
    order_id = await an_approved_order(partner)
    code = short_code(UUID(order_id))
    hers = await at_the_queue(stack, visitors, ada)
    his = await at_the_queue(stack, visitors, ben, told=["409"])
    her_card, his_card = await card_of(hers, order_id), await card_of(his, order_id)
    taken = asyncio.Event()

    async def later(route: Route) -> None:
        await taken.wait()
        await route.continue_()

    hold_up: Callable[[Route], Awaitable[None]] = later
    await his.route("**/v1/lists/**", hold_up)  # so that he still sees it
    await her_card.get_by_role("button", name="Take").tap()
    await expect(hers.get_by_text(f"{code} is yours.").first).to_be_visible()
    await his_card.get_by_role("button", name="Take").tap()
    await expect(his.get_by_text(f"{code} is taken: Ada was faster.").first).to_be_visible()
    taken.set()
    await expect(his_card).to_have_count(0)
    assert (await order_at(partner, order_id, "MANUFACTURING_STARTED"))["status"] == "MANUFACTURING_STARTED"
    await his.unroute("**/v1/lists/**")
