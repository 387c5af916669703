"""The page of whoever is on call, in a real browser, over the real flow."""

import asyncio
import re
from uuid import UUID

from playwright.async_api import Route, expect
from tests.browser.visitors import Visitors, sign_in
from tests.builders import a_member, a_partner, an_approved_order, an_operator, ship_by_api, wait_for

from lostwax.contracts.ids import short_code
from lostwax.contracts.staff import Role
from lostwax.local.stack import Stack

EVERY_MS = 5000
"""How often the page looks again."""


async def test_one_order_is_told_from_its_code_with_all_hops_times_and_logs(seen: Stack, visitors: Visitors) -> None:
    async with await a_partner(seen) as partner, await an_operator(seen) as ada:
        order_id = await an_approved_order(partner)
        await ship_by_api(partner, ada, order_id)
    code = short_code(UUID(order_id))
    async with await a_member(seen, Role.SUPERVISOR, "Sue", door="telemetry") as sue:

        async def all_there() -> bool:
            answer = await sue.get(f"/v1/orders/{order_id}/story")
            hops = answer.json()["hops"] if answer.status_code == 200 else []
            return {"partner_api", "orders", "pricing", "mes"} <= {hop["service"] for hop in hops}

        await wait_for(all_there, 60)
        badge = sue.badge
    page = await visitors.open(f"{seen.url('telemetry')}/#story", told=["404", "400"])
    await sign_in(page, badge)
    await page.get_by_label("Code or id of an order").fill(f"  {code.lower()} ")  # as it is pasted
    await page.get_by_role("button", name="Show").first.click()
    await expect(page.locator("#story-says")).to_contain_text(code)
    hops = page.locator("#fall li:not(.minor)")
    told = await hops.locator("small:first-of-type").all_inner_texts()
    services = [text.split(",")[0] for text in told]
    assert services[0] == "partner_api"
    first = [services.index(name) for name in ("partner_api", "orders", "pricing")]
    assert first == sorted(first)
    assert services[::-1].index("mes") < services[::-1].index("pricing")  # made after it was priced
    times = [match[0] for text in told if (match := re.search(r"\d\d:\d\d:\d\d\.\d{3}", text))]
    assert len(times) == len(told)
    assert times == sorted(times)
    assert all(re.search(r"\d (ms|s)$", text) for text in await hops.locator("> span").all_inner_texts())
    few = await page.locator("#fall li:visible").count()
    await page.locator("#story-all input").check()
    assert await page.locator("#fall li:visible").count() > few
    await page.get_by_label("Code or id of an order").fill("<img src=x>")
    await page.get_by_role("button", name="Show").first.click()
    await expect(page.get_by_role("alert")).to_be_visible()
    await expect(page.locator("#fall li")).to_have_count(0)

    await page.get_by_role("link", name="Logs").click()
    await page.get_by_label("Service", exact=True).fill("orders")
    await page.get_by_label("Words").fill("started")
    await page.get_by_role("button", name="Search").click()
    await expect(page.locator("#lines li").first).to_contain_text("orders")
    await page.get_by_role("link", name="Metrics").click()
    await expect(page.locator("#metrics-form [name=name]")).to_have_value("http.server.request.duration")
    await page.locator("#metrics-form").get_by_role("button", name="Show").click()
    await expect(page.get_by_role("img", name="Per second")).to_be_visible()
    await page.get_by_role("link", name="Services").click()
    await expect(page.locator("#board h2").filter(has_text="partner_api")).to_be_visible()


async def test_while_an_answer_is_late_the_page_says_so_and_does_not_ask_again(seen: Stack, visitors: Visitors) -> None:
    async with await a_member(seen, Role.SUPERVISOR, "Lea", door="telemetry") as lea:
        badge = lea.badge
    page = await visitors.open(f"{seen.url('telemetry')}/#services")
    await sign_in(page, badge)
    await expect(page.locator("#board li").first).to_be_visible()
    main, asked, go_on = page.locator("main"), 0, asyncio.Event()

    async def late(route: Route) -> None:
        nonlocal asked
        asked += 1
        await go_on.wait()
        await route.continue_()

    await page.route("**/v1/alerts*", late)
    await expect(main).to_have_attribute("aria-busy", "true")
    await page.wait_for_timeout(EVERY_MS + 1000)
    assert asked == 1
    go_on.set()
    await expect(main).not_to_have_attribute("aria-busy", "true")
    await wait_for(lambda: asked > 1, 20)
