"""Takes the pictures of docs/images anew, from a stack of its own: `python -m tests.browser.screenshots [NAME ..]`.

Look at each of them afterwards: what nobody looked at is not shown to others. No test; takes some two minutes.
"""

import asyncio
import os
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Literal

from playwright.async_api import Page, async_playwright, expect
from tests.browser.test_shop import priced
from tests.browser.visitors import Visitors, a_browser, sign_in
from tests.builders import (
    Member,
    Partner,
    a_member,
    a_partner,
    an_approved_order,
    an_operator,
    an_uploaded_model,
    order_at,
    ship_by_api,
    submit,
    wait_for,
)
from tests.e2e.test_two_processes import ready, second_process
from tests.reporting.rows import small_business
from tests.reporting.warehouses import a_warehouse

from lostwax import samples
from lostwax.contracts.ids import UUID, short_code
from lostwax.contracts.staff import Role
from lostwax.local.places import PROJECT, STACKS
from lostwax.local.stack import Stack
from lostwax.samples.broken import broken
from lostwax.samples.files import binary

IMAGES = PROJECT / "docs" / "images"
MOST_BYTES = 150_000
SETTLED_MS = 120_000
"""How long alerts may take to know that nothing is wrong with a stack that has just been started."""

DESK, TALL_DESK, TELEPHONE, TABLET = (1200, 800), (1200, 1360), (390, 844), (1280, 800)
Theme = Literal["light", "dark"]

PIECES: list[dict[str, Any]] = [
    {"alloy": "gold-14k", "finish": "polished", "engraving": "Anna & Piotr 12.06.2026"},
    {"alloy": "sterling-925", "finish": "satin", "quantity": 12, "ring_size": 58},
    {"alloy": "platinum-950", "finish": "polished", "ring_size": 49.5},
    {"alloy": "brass", "finish": "as-cast", "quantity": 3, "ring_size": None, "scale": 1.02},
    {"alloy": "gold-18k", "finish": "rhodium-plated", "ring_size": 61},
    {"alloy": "resin", "finish": "as-cast", "quantity": 40, "ring_size": None},
    {"alloy": "gold-10k", "finish": "satin", "engraving": "toujours"},
]


class Photographer:
    """Takes pictures under their names; with `wanted`, only those."""

    def __init__(self, visitors: Visitors, wanted: list[str]) -> None:
        self._visitors, self._wanted = visitors, wanted
        self.too_large: list[str] = []

    def wants(self, *names: str) -> bool:
        return not self._wanted or bool(set(names) & set(self._wanted))

    async def open(
        self, url: str, size: tuple[int, int], *, theme: Theme = "light", language: str = "en", touch: bool = False
    ) -> Page:
        width, height = size
        return await self._visitors.open(
            url, width=width, height=height, theme=theme, language=language, touch=touch, told=["40", "503"]
        )

    async def take(self, page: Page, name: str) -> None:
        await page.mouse.move(0, 0)
        await page.evaluate("document.activeElement?.blur()")
        path = IMAGES / f"{name}.png"
        await page.screenshot(path=path, animations="disabled")
        size = path.stat().st_size
        print(f"{path.relative_to(PROJECT)}: {size / 1000:.0f} kB", flush=True)
        if size > MOST_BYTES:
            self.too_large.append(name)


async def workshop(stack: Stack, camera: Photographer, partner: Partner) -> None:
    async with await an_operator(stack, "Ada") as ada:
        orders = [await an_approved_order(partner, **piece) for piece in PIECES]
        for order, steps in ((orders[0], 1), (orders[1], 2), (orders[2], 3)):
            for step in ("claim", "complete", "pack")[:steps]:

                async def done(order: str = order, step: str = step) -> bool:
                    return (await ada.post(f"/v1/orders/{order}/{step}")).status_code in (200, 202)

                await wait_for(done, 60)
        looks: list[tuple[str, str, tuple[int, int], Theme, str]] = [
            ("queue", "queue", TABLET, "light", "en"),
            ("queue-dark", "queue", TABLET, "dark", "ru"),
            ("queue-phone", "queue", TELEPHONE, "dark", "en"),
            ("packing-tablet", "packing", (800, 1280), "light", "en"),
        ]
        for name, view, size, theme, language in looks:
            page = await camera.open(stack.url("mes"), size, theme=theme, language=language, touch=True)
            await sign_in(page, ada.badge)
            await page.goto(f"{stack.url('mes')}/#{view}")
            await expect(page.locator(f"[data-view={view}] .card:visible").first).to_be_visible()
            await camera.take(page, name)


async def desk(stack: Stack, camera: Photographer, partner: Partner, klara: Member) -> None:
    body = {"kind": "firm", "name": "Goldschmiede Aurum", "phone": "+49 89 123 456", "email": "a@example.org"}
    customer = (await klara.post("/v1/customers", json=body)).raise_for_status().json()["customer_id"]
    order = await submit(partner, await an_uploaded_model(partner), reference="PO-7731")
    await order_at(partner, order, "PRICE_CALCULATED")

    async def linked() -> bool:
        path = f"/v1/orders/{order}/customer"
        return (await klara.post(path, json={"customer_id": customer})).status_code < 300

    await wait_for(linked, 60)
    await submit(partner, await an_uploaded_model(partner), reference="PO-7732", alloy="brass")
    layout = (await klara.post(f"/v1/orders/{order}/layouts", json={"note": "as drawn"})).raise_for_status().json()
    signet = binary(samples.signet(size=58).triangles)
    cookie = {"Cookie": f"staff={klara.token}", "Origin": stack.url("crm")}
    files = {"file": ("signet.stl", signet, "model/stl")}
    await klara.post(f"/orders/{order}/layouts", files=files, data={"note": "broader, as you asked"}, headers=cookie)
    found = (await klara.get(f"/v1/orders/{order}/layouts")).raise_for_status().json()["layouts"]
    second = next(one["layout_id"] for one in found if one["layout_id"] != layout["layout_id"])
    remark = {"text": "A little less here, please.", "place": [0, 11.5, 2]}
    (await klara.post(f"/v1/layouts/{second}/remarks", json=remark)).raise_for_status()
    sent = (await klara.post(f"/v1/layouts/{second}/send")).raise_for_status().json()
    looks: list[tuple[str, str, tuple[int, int], Theme, str]] = [
        ("board", "/", DESK, "light", "en"),
        ("board-phone", "/", TELEPHONE, "dark", "ru"),
        ("order", f"/orders/{order}", DESK, "light", "en"),
        ("layouts", f"/orders/{order}/layouts", DESK, "light", "en"),
        ("new-order", "/new-order", DESK, "dark", "en"),
    ]
    for name, path, size, theme, language in looks:
        page = await camera.open(stack.url("crm"), size, theme=theme, language=language)
        await sign_in(page, klara.badge)
        await page.goto(stack.url("crm") + path)
        if name == "layouts":
            await expect(page.locator("[data-fact=volume]").filter(has_text="mm³")).to_have_count(2)
        await camera.take(page, name)
    page = await camera.open(f"{stack.url('crm')}/l/{sent['token']}", TELEPHONE)
    await expect(page.locator("[data-fact=volume]")).to_contain_text("mm³")
    await camera.take(page, "layout-phone")


async def shop(stack: Stack, camera: Photographer) -> None:
    signet = {"name": "signet.stl", "mimeType": "model/stl", "buffer": binary(samples.signet(size=58).triangles)}
    folder = Path(tempfile.mkdtemp())
    hole = next(sample.path for sample in broken(folder) if sample.name == "hole.stl").read_bytes()
    for name, size, theme, language in (("shop", TALL_DESK, "light", "en"), ("shop-phone", TELEPHONE, "dark", "ru")):
        page = await camera.open(stack.url("shop"), size, theme=theme, language=language)  # type: ignore[arg-type]
        await page.locator("#file").set_input_files(signet)  # type: ignore[arg-type]
        await expect(page.locator("#viewer-words")).not_to_have_text("")
        await priced(page)
        await page.evaluate(
            "scrollTo(0, 0)" if size == TALL_DESK else "document.querySelector('#viewer').scrollIntoView()"
        )
        await camera.take(page, name)
    page = await camera.open(stack.url("shop"), TALL_DESK)
    ring = {"name": "hole.stl", "mimeType": "model/stl", "buffer": hole}
    await page.locator("#file").set_input_files(ring)  # type: ignore[arg-type]
    await expect(page.locator("#prices-words")).to_contain_text("holes")
    await page.evaluate("scrollTo(0, 0)")
    await camera.take(page, "shop-hole")


async def reports(stack: Stack, camera: Photographer, boss: Member) -> None:
    folder = Path(tempfile.mkdtemp())
    async with a_warehouse("duckdb", folder) as warehouse:
        await warehouse.write(small_business())
    with second_process(stack, "reporting", LOSTWAX_WAREHOUSE=f"duckdb://{folder / 'reports.duckdb'}") as url:
        await ready(url)
        for name, size, theme in (("reports", DESK, "light"), ("reports-phone", TELEPHONE, "dark")):
            page = await camera.open(url, size, theme=theme)  # type: ignore[arg-type]
            await sign_in(page, boss.badge)
            await page.goto(f"{url}/#report=orders&from=2026-03-01&to=2026-03-31&compare=previous&group=week")
            await expect(page.locator("#chart canvas")).to_be_visible()
            await camera.take(page, name)
            if name == "reports":
                await page.emulate_media(media="print")
                await camera.take(page, "reports-print")


async def telemetry(stack: Stack, camera: Photographer, partner: Partner, boss: Member) -> None:
    async with await an_operator(stack, "Ben") as ben:
        order = await an_approved_order(partner)
        await ship_by_api(partner, ben, order)

    async def told() -> bool:
        headers = {"Authorization": f"Bearer {boss.token}"}
        answer = await boss.get(f"{stack.url('telemetry')}/v1/orders/{order}/story", headers=headers)
        return answer.status_code == 200 and "mes" in {hop["service"] for hop in answer.json()["hops"]}

    await wait_for(told, 90)
    for view, name in ((f"story={short_code(UUID(order))}", "one-order"), ("services", "services")):
        for kind, size, theme in (("", DESK, "light"), ("-phone", TELEPHONE, "dark")):
            page = await camera.open(f"{stack.url('telemetry')}/", size, theme=theme)  # type: ignore[arg-type]
            await sign_in(page, boss.badge)
            await page.goto(f"{stack.url('telemetry')}/#{view}")
            shown = "#fall li:visible" if name == "one-order" else "#alerts .none"
            await expect(page.locator(shown).first).to_be_visible(timeout=SETTLED_MS)
            if name == "services":
                await expect(page.locator("#board li").nth(3)).to_be_visible()
            await camera.take(page, name + kind)


async def main(wanted: list[str]) -> int:
    folder = STACKS / f"screenshots-{os.getpid()}"
    stack = await asyncio.to_thread(Stack.start, folder, owned=True, fresh=True)
    try:
        async with (
            async_playwright() as playwright,
            await a_partner(stack, "Aurum & Söhne") as partner,
            await a_member(stack, Role.SELLER, "Klara") as klara,
            await a_member(stack, Role.ADMINISTRATOR, "Ida") as boss,
        ):
            visitors = Visitors(await a_browser(playwright))
            camera = Photographer(visitors, wanted)
            scenes: list[tuple[tuple[str, ...], Callable[[], Awaitable[None]]]] = [
                (("queue", "queue-dark", "queue-phone", "packing-tablet"), lambda: workshop(stack, camera, partner)),
                (
                    ("board", "order", "layouts", "layout-phone", "new-order"),
                    lambda: desk(stack, camera, partner, klara),
                ),
                (("shop", "shop-phone", "shop-hole"), lambda: shop(stack, camera)),
                (("reports", "reports-phone", "reports-print"), lambda: reports(stack, camera, boss)),
                (("one-order", "services"), lambda: telemetry(stack, camera, partner, boss)),
            ]
            for names, scene in scenes:
                if camera.wants(*names):
                    await scene()
            await visitors.leave()
        for trouble in [*visitors.wrong, *(f"{name} is larger than {MOST_BYTES} bytes" for name in camera.too_large)]:
            print(trouble, file=sys.stderr)
        return 1 if visitors.wrong or camera.too_large else 0
    finally:
        await asyncio.to_thread(stack.down, remove=True)


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
