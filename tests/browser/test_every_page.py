"""Every page of the house, looked at by everybody who may: see `manners`. Telemetry's page with data, and the one of
reports, are looked at where their data is."""

from collections.abc import AsyncIterator

import msgspec
import pytest
from playwright.async_api import Browser, expect
from tests.browser.manners import DESK, DESK_AT_NIGHT, TELEPHONE, TELEPHONE_AT_NIGHT, bad_manners
from tests.browser.visitors import Visitors, sign_in
from tests.builders import (
    a_customer,
    a_member,
    a_partner,
    an_approved_order,
    an_operator,
    an_uploaded_model,
    order_at,
    submit,
    wait_for,
)

from lostwax.contracts.staff import Role
from lostwax.local.stack import Stack

LONG = "Aurum & Söhne Handelsgesellschaft-für-lange-Namen-ohne-Umbruch"
LOOKS = {"en": [DESK, TELEPHONE_AT_NIGHT], "ru": [DESK_AT_NIGHT, TELEPHONE]}
"""Each theme on each width, in one language or the other."""


class Places(msgspec.Struct, frozen=True):
    """Badges by door, and addresses of pages that show something."""

    badges: dict[str, str]
    desk: list[str]
    guest: str
    linked: str


@pytest.fixture(scope="module")
async def places(stack: Stack) -> AsyncIterator[Places]:
    async with (
        await a_partner(stack, LONG) as partner,
        await a_member(stack, Role.SELLER, "Klara") as klara,
        await an_operator(stack) as ada,
        await a_customer(stack) as nora,
    ):
        priced = await submit(partner, await an_uploaded_model(partner), reference=LONG, engraving=LONG[:40])
        made = await an_approved_order(partner, quantity=3, engraving=LONG[:40])

        async def claimed() -> bool:
            return (await ada.post(f"/v1/orders/{made}/claim")).status_code == 200

        await wait_for(claimed)
        await an_approved_order(partner)
        await order_at(partner, priced, "PRICE_CALCULATED")

        async def known() -> bool:
            return (await klara.get(f"/v1/orders/{priced}")).status_code == 200

        await wait_for(known)
        body = {
            "kind": "firm",
            "name": LONG,
            "phone": "+49 89 123 456",
            "email": "a@example.org",
            "consent": "by phone",
        }
        customer = (await klara.post("/v1/customers", json=body)).raise_for_status().json()["customer_id"]
        layout = await klara.post(f"/v1/orders/{priced}/layouts", json={"note": LONG})
        sent = (await klara.post(f"/v1/layouts/{layout.json()['layout_id']}/send")).raise_for_status().json()
        order = await submit(nora, await an_uploaded_model(nora), reference=LONG)
        link = (await nora.post(f"/v1/orders/{order}/links")).raise_for_status().json()["path"]
        boss = await a_member(stack, Role.ADMINISTRATOR, "Ida")
        await boss.aclose()
        desk = [
            "/",
            "/orders",
            f"/orders/{priced}",
            f"/orders/{priced}/layouts",
            "/customers",
            f"/customers/{customer}",
        ]
        desk += [f"/new-order?customer={customer}&order={priced}"]
        desk += ["/tasks?of=all", "/workload", "/mails", "/new-order", f"/search?q={LONG[:5]}"]
        badges = {"crm": klara.badge, "mes": ada.badge, "boss": boss.badge}
        yield Places(badges, desk, f"{stack.url('crm')}/l/{sent['token']}", f"{stack.url('shop')}{link}")


@pytest.mark.parametrize("language", LOOKS)
async def test_the_sellers_desk(stack: Stack, visitors: Visitors, places: Places, language: str) -> None:
    page = await visitors.open(stack.url("crm"), language=language, told=["404"])
    wrong = await bad_manners(page, LOOKS[language])
    await sign_in(page, places.badges["crm"])
    for path in places.desk:
        await page.goto(f"{stack.url('crm')}{path}")
        wrong += await bad_manners(page, LOOKS[language])
    await page.goto(f"{stack.url('crm')}/orders/no-order")
    wrong += await bad_manners(page, LOOKS[language])
    await page.goto(places.guest)
    await expect(page.locator("[data-fact=volume]")).not_to_have_text("–")
    wrong += await bad_manners(page, LOOKS[language])
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("language", LOOKS)
async def test_the_workshop(stack: Stack, visitors: Visitors, places: Places, language: str) -> None:
    wrong = []
    for who in ("mes", "boss"):
        page = await visitors.open(stack.url("mes"), language=language)
        await sign_in(page, places.badges[who])
        for view in ("queue", "work", "packing") if who == "mes" else ("work",):
            await page.goto(f"{stack.url('mes')}/#{view}")
            await expect(
                page.locator(f"[data-view={view}]").locator(".card:visible, .empty:visible").first
            ).to_be_visible()
            if view == "work" and who == "mes":
                name = "My work" if language == "en" else "Моя работа"
                await expect(page.get_by_role("link", name=name)).to_have_attribute("aria-current", "page")
                await page.locator("[data-pane=work] [data-open=rework]").first.click()
                await expect(page.locator("[data-panel=rework]:visible")).to_have_count(1)
            wrong += await bad_manners(page, LOOKS[language])
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("language", LOOKS)
async def test_the_shop(stack: Stack, visitors: Visitors, places: Places, language: str) -> None:
    page = await visitors.open(stack.url("shop"), language=language, told=["404"])
    await page.locator("#catalogue-box summary").click()
    await page.locator("[data-piece=signet]").click()
    await expect(page.locator("#prices td button")).to_have_count(40)
    await expect(page.locator("#viewer-words")).not_to_have_text("")
    await page.locator("#prices td button").first.click()
    wrong = await bad_manners(page, LOOKS[language])
    await page.locator("#contact [name=email]").fill("nora@example.org")
    await page.locator("#contact [name=name]").fill("Nora")
    await page.locator("#order-form .main").click()
    await expect(page.locator("#one .status")).to_be_visible()
    wrong += await bad_manners(page, LOOKS[language])
    await page.goto(f"{stack.url('shop')}/#account")
    await expect(page.locator("#session-list li")).to_have_count(1)
    wrong += await bad_manners(page, LOOKS[language])
    for address in (places.linked, f"{stack.url('shop')}/o/lwo_nobodys"):
        await page.goto(address)
        wrong += await bad_manners(page, LOOKS[language])
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("language", LOOKS)
async def test_telemetry_and_reports_that_have_nothing_to_show(
    stack: Stack, visitors: Visitors, places: Places, language: str
) -> None:
    wrong = []
    page = await visitors.open(stack.url("telemetry"), language=language, told=["503"])
    await sign_in(page, places.badges["boss"])
    for view in ("services", "story", "logs", "metrics"):
        await page.goto(f"{stack.url('telemetry')}/#{view}")
        await expect(page.locator(f"#{view}")).to_be_visible()
        wrong += await bad_manners(page, LOOKS[language])
    page = await visitors.open(stack.url("reporting"), language=language, told=["503"])
    await sign_in(page, places.badges["boss"])
    await expect(page.locator("#title")).not_to_have_text("")
    wrong += await bad_manners(page, LOOKS[language])
    assert not wrong, "\n".join(wrong)


async def test_bad_manners_are_found(chromium: Browser) -> None:
    """The proof that what is held above can fail."""
    page = await chromium.new_page()
    await page.set_content(
        '<html lang="en"><title>t</title><main><h1>t</h1><p>a<input><p style="color:#aaa;background:#fff">pale</p>'
        '<p style="width:500px;background:#eee">wide</p></main>'
    )
    found = " ".join(await bad_manners(page, [TELEPHONE]))
    await page.close()
    for what in ("wider than its window", "critical, label", "serious, color-contrast"):
        assert what in found
