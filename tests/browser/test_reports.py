"""Reports in a browser, over a small business whose figures are known."""

import asyncio
import csv
import io
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Page, Route, expect
from tests.browser.visitors import Visitors, sign_in
from tests.builders import a_member
from tests.e2e.test_two_processes import ready, second_process
from tests.reporting.rows import small_business
from tests.reporting.warehouses import a_warehouse

from lostwax.contracts.staff import Role
from lostwax.local.stack import Stack


@pytest.fixture(scope="module")
async def reporting(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """The service at the small business' warehouse."""
    folder = tmp_path_factory.mktemp("warehouse")
    async with a_warehouse("duckdb", folder) as warehouse:
        await warehouse.write(small_business())
    with second_process(stack, "reporting", LOSTWAX_WAREHOUSE=f"duckdb://{folder / 'reports.duckdb'}") as url:
        await ready(url)
        yield url


async def shown(page: Page) -> list[list[str]]:
    """The table as it is shown, without what stands beside of the period before."""
    rows = "rows => rows.map(r => [...r.cells].map(c => c.firstChild?.textContent ?? ''))"
    found: list[list[str]] = await page.locator("#table tbody tr").evaluate_all(rows)
    return found


async def test_a_report_is_filtered_compared_exported_and_printed(
    stack: Stack, visitors: Visitors, reporting: str, tmp_path: Path
) -> None:
    async with await a_member(stack, Role.ADMINISTRATOR, "Ida") as ida:
        badge = ida.badge
    page = await visitors.open(reporting)
    await sign_in(page, badge)
    await expect(page.get_by_role("link", name="Orders", exact=True)).to_have_attribute("aria-current", "page")
    await expect(page.locator("#stamp")).to_contain_text("days of")
    await page.locator("[name=from]").fill("2026-03-01")
    await page.locator("[name=to]").fill("2026-03-31")
    await page.locator("[name=alloy]").fill("gold-14k")
    await page.get_by_role("button", name="Show", exact=True).click()
    await expect(page.locator("#stamp")).to_contain_text("2026-03-01 to 2026-03-31")
    # group, orders, pieces, approved, shipped, cancelled, approved %: of the second of March one was in silver
    await expect(page.locator("#table tbody tr")).to_have_count(5)
    assert (await shown(page))[0] == ["2026-03-02", "1", "1", "1", "1", "0", "100 %"]
    await expect(page.locator("#chart canvas")).to_be_visible()
    assert "alloy=gold-14k" in page.url  # which can be sent to somebody

    await page.locator("[name=group]").select_option("month")
    await expect(page.locator("#table tbody tr")).to_have_count(1)
    assert (await shown(page))[0][:2] == ["2026-03", "5"]
    await page.locator("[name=compare]").check()
    # In the 31 days before there was one order, of two pieces.
    await expect(page.locator("#table .past").first).to_have_text("before: 1")
    await expect(page.locator("#table .past").nth(1)).to_have_text("before: 2")

    await page.locator("[name=group]").select_option("day")
    await expect(page.locator("#table tbody tr")).to_have_count(5)
    async with page.expect_download() as started:
        await page.get_by_role("link", name="CSV").click()
    download = await started.value
    path = tmp_path / "report.csv"
    await download.save_as(path)
    head, *rows = list(csv.reader(io.StringIO(path.read_text("utf-8-sig"))))
    assert head[:3] == ["period", "group", "orders"]
    now = [row[1:] for row in rows if row[0] == "this"]
    assert [[*row[:6], f"{float(row[6]):g} %"] for row in now] == await shown(page)
    assert [row[2:4] for row in rows if row[0] == "previous"] == [["1", "2"]]

    await page.emulate_media(media="print")
    for hidden in ("header", "#reports", "#filters", ".actions"):
        await expect(page.locator(hidden).first).to_be_hidden()
    await expect(page.locator("#table")).to_be_visible()
    assert await page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(255, 255, 255)"
    assert (await page.pdf(format="A4")).startswith(b"%PDF-")


async def test_what_is_asked_before_the_page_knows_its_reports_is_shown_once_it_does(
    stack: Stack, visitors: Visitors, reporting: str
) -> None:
    async with await a_member(stack, Role.ADMINISTRATOR, "Ida") as ida:
        badge = ida.badge
    page = await visitors.open(reporting)
    await sign_in(page, badge)
    known = asyncio.Event()

    async def late(route: Route) -> None:
        await known.wait()
        await route.continue_()

    await page.route("**/v1/reports", late)
    await page.reload(wait_until="domcontentloaded")
    await page.evaluate("location.hash = 'report=prices'")
    await page.get_by_role("button", name="Show", exact=True).click()
    known.set()
    await expect(page.get_by_role("link", name="Prices", exact=True)).to_have_attribute("aria-current", "page")


async def test_what_cannot_be_asked_is_told_in_words(stack: Stack, visitors: Visitors, reporting: str) -> None:
    async with await a_member(stack, Role.ADMINISTRATOR, "Ida") as ida:
        badge = ida.badge
    page = await visitors.open(reporting, told=["400"])
    await sign_in(page, badge)
    await page.goto(f"{reporting}/#report=orders&from=2026-03-31&to=2026-03-01")
    await expect(page.get_by_role("alert")).to_be_visible()
    await expect(page.locator("#table tbody tr")).to_have_count(0)
    await page.goto(f"{reporting}/#report=orders&from=2026-03-01&to=2026-03-31&alloy=%3Cimg+src%3Dx%3E")
    await expect(page.locator("#empty")).to_be_visible()
    assert await page.locator("main img").count() == 0
