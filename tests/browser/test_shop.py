"""Customers in the shop: from a file to a delivered piece, and what may go wrong on the way."""

from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from playwright.async_api import FilePayload, Page, Request, Route, expect
from tests.browser.visitors import Visitors
from tests.builders import Operator, a_member, a_model_file, wait_for

from lostwax import samples
from lostwax.contracts.ids import new_id, short_code
from lostwax.contracts.staff import Role
from lostwax.local.stack import Stack
from lostwax.samples.broken import broken
from lostwax.samples.files import binary

HOSTILE = "<img src=x onerror=alert(1)>"
PRICES = 40
"""Alloys times finishes."""


def a_file(content: bytes, name: str = "ring.stl") -> FilePayload:
    return {"name": name, "mimeType": "model/stl", "buffer": content}


async def choose(page: Page, content: bytes, name: str = "ring.stl") -> None:
    await page.locator("#file").set_input_files(a_file(content, name))


async def priced(page: Page, alloy: str = "gold-14k", finish: str = "polished") -> None:
    """Every price is there, and one is chosen."""
    await expect(page.locator("#prices td button")).to_have_count(PRICES)
    await page.locator(f"[data-alloy={alloy}] [data-finish={finish}] button").click()
    await expect(page.locator("#chosen")).to_contain_text("14K")


async def ordered(page: Page, *, name: str | None = None) -> str:
    """Order what is chosen, as a guest if a name is given; returns the order's id."""
    if name is not None:
        await page.locator("#contact [name=email]").fill(f"{new_id().hex}@example.org")
        await page.locator("#contact [name=name]").fill(name)
    await page.get_by_role("button", name="Order at this price").click()
    await expect(page.locator("#one .status")).to_be_visible()
    return page.url.rpartition("/")[2]


async def make(operator: Operator, order_id: str, step: str, body: dict[str, str] | None = None) -> None:
    """A step of the workshop, as soon as the MES knows that it may be done."""

    async def done() -> bool:
        return (await operator.post(f"/v1/orders/{order_id}/{step}", json=body)).status_code in (200, 202)

    await wait_for(done)


async def test_a_guest_drops_a_model_orders_it_and_watches_it_until_it_is_delivered(
    stack: Stack, visitors: Visitors, ada: Operator
) -> None:
    page = await visitors.open(stack.url("shop"))
    content = a_model_file()
    drop = """([bytes, name]) => {
        const data = new DataTransfer();
        data.items.add(new File([new Uint8Array(bytes)], name));
        document.querySelector("#drop").dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true }));
    }"""
    await page.evaluate(drop, [list(content), f"{HOSTILE}.stl"])
    await expect(page.locator("#progress-words")).to_have_text("The model is there.")
    await expect(page.locator("#bar")).to_have_js_property("value", 100)
    await expect(page.locator("#viewer-words")).to_contain_text("The surface is closed.")
    await page.get_by_label("Engraving").fill(HOSTILE)
    await page.get_by_role("button", name="Show prices").click()
    await priced(page)
    order_id = await ordered(page, name=HOSTILE)
    assert page.url.endswith(f"#orders/{order_id}")

    one = page.locator("#one")
    await expect(one.get_by_role("heading")).to_have_text(short_code(UUID(order_id)))
    status = partial(expect, one.locator(".status"))
    await status().to_have_text("Waiting to be made")
    await expect(one.get_by_text("Shipped by")).to_be_visible()
    await expect(one.get_by_text(f"{HOSTILE}.stl")).to_be_visible()  # the name is text, and runs nothing
    assert await page.locator("img").count() == 0

    # From here on the order is told by the stream of events alone.
    later: list[str] = []
    page.on("request", lambda request: later.append(request.url))
    steps: list[tuple[str, dict[str, str] | None, str]] = [
        ("claim", None, "Being made"),
        ("complete", None, "Made"),
        ("pack", None, "Being packed"),
        ("ship", {"carrier": "DHL", "tracking_number": HOSTILE}, "On its way"),
    ]
    for step, body, says in steps:
        await make(ada, order_id, step, body)
        await status().to_have_text(says)
    await expect(one.get_by_text(f"DHL {HOSTILE}")).to_be_visible()
    async with await a_member(stack, Role.SELLER, "Klara") as seller:

        async def closed() -> bool:
            return (await seller.post(f"/v1/orders/{order_id}/close", json={})).status_code == 202

        await wait_for(closed)
    await status().to_have_text("Delivered")
    assert not [url for url in later if url.endswith((order_id, "/events"))]
    assert await page.locator("img").count() == 0


async def test_who_signs_up_finds_the_order_again_in_another_browser(stack: Stack, visitors: Visitors) -> None:
    email, password = f"{new_id().hex}@example.org", "correct horse"
    page = await visitors.open(f"{stack.url('shop')}/#account", told=["401"])
    form = page.locator("#sign-up-form")
    await form.locator("[name=email]").fill(email)
    await form.locator("[name=name]").fill("Nora")
    await form.locator("[name=password]").fill(password)
    await form.get_by_role("button").click()
    await expect(page.locator("#who")).to_have_text(f"You are Nora, {email}.")
    await page.get_by_role("link", name="New piece").click()
    await page.get_by_text("No model? Take one of ours").click()
    await page.get_by_role("button", name="Heart pendant").click()
    await priced(page)
    order_id = await ordered(page)
    await page.get_by_role("button", name="Make a link to show it").click()
    link = page.locator("#one a")
    await expect(link).to_be_visible()

    elsewhere = await visitors.open(f"{stack.url('shop')}/#account", told=["401"], width=390, height=800)
    enter = elsewhere.locator("#sign-in-form")
    await enter.locator("[name=email]").fill(email)
    await enter.locator("[name=password]").fill("guessed")
    await enter.get_by_role("button").click()
    await expect(elsewhere.locator("#trouble")).to_be_visible()
    await enter.locator("[name=password]").fill(password)
    await enter.get_by_role("button").click()
    mine = elsewhere.locator(f"[data-order='{order_id}']")
    await expect(mine).to_contain_text("Waiting to be made")
    await mine.click()
    await expect(elsewhere.locator("#one h2")).to_have_text(short_code(UUID(order_id)))
    # Whoever has the link sees the order, and who ordered it is not told.
    shown = await visitors.open(await link.inner_text())
    await expect(shown.locator("main .status")).to_have_text("Waiting to be made")
    assert "Nora" not in await shown.content()


async def test_an_upload_that_was_cut_off_goes_on_after_the_tab_was_closed(stack: Stack, visitors: Visitors) -> None:
    shape = samples.band(size=54, width=3 + new_id().int % 1000 / 1000, around=1280, across=40)
    content = binary(shape.triangles)
    assert 8 * 2**20 < len(content) < 16 * 2**20  # two parts
    page = await visitors.open(stack.url("shop"), told=["ERR_FAILED"])

    async def cut(route: Route) -> None:
        await route.abort()

    second = "**/*partNumber=2*"
    await page.context.route(second, cut)
    await choose(page, content, "large.stl")
    await expect(page.locator("#progress-words")).to_contain_text("The line is poor")
    await page.close()

    context = page.context
    await context.unroute(second)
    page = await context.new_page()
    sent: list[str] = []

    def seen(request: Request) -> None:
        if request.method == "PUT" and "partNumber" in request.url:
            sent.append(request.url)

    page.on("request", seen)
    await page.goto(stack.url("shop"))
    await expect(page.locator("#unfinished")).to_contain_text("large.stl")
    await choose(page, content, "large.stl")
    await expect(page.locator("#progress-words")).to_have_text("The model is there.")
    assert ["partNumber=2" in url for url in sent] == [True]  # the first part was there
    await expect(page.locator("#unfinished")).to_be_hidden()
    await priced(page)


async def test_a_guest_reads_why_an_order_is_held_and_cancels_it(stack: Stack, visitors: Visitors) -> None:
    page = await visitors.open(stack.url("shop"), sure=True)
    await choose(page, a_model_file())
    await priced(page)
    order_id = await ordered(page, name="Nora")
    await expect(page.locator("#one .status")).to_have_text("Waiting to be made")
    async with await a_member(stack, Role.SELLER, "Klara") as seller:

        async def held() -> bool:
            return (await seller.post(f"/v1/orders/{order_id}/hold", json={"reason": HOSTILE})).status_code == 202

        await wait_for(held)
    await expect(page.locator("#one .status")).to_have_text("On hold")
    await expect(page.locator("#one .message")).to_have_text(HOSTILE)
    await page.get_by_role("button", name="Cancel the order").click()
    await expect(page.locator("#one .status")).to_have_text("Cancelled")
    await expect(page.get_by_role("button", name="Cancel the order")).to_have_count(0)


@pytest.fixture(scope="module")
def hole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A ring of which some facets are missing."""
    made = broken(tmp_path_factory.mktemp("broken"))
    path: Path = next(sample.path for sample in made if sample.name == "hole.stl")
    return path.read_bytes()


WORDS: dict[str, dict[str, Any]] = {
    "en": {
        "shown": "The red lines show where the surface is not closed",
        "hole": "there is a face on one side only, so the model has holes and no volume. Please close them",
        "no price": "no price",
        "no model": "This is not STL, OBJ or 3MF.",
    },
    "ru": {
        "shown": "Красные линии показывают, где поверхность не замкнута",
        "hole": "В поверхности модели есть отверстия, поэтому у неё нет объёма.",
        "no price": "нет цены",
        "no model": "Это не STL, OBJ или 3MF.",
    },
}


@pytest.mark.parametrize("language", WORDS)
async def test_what_is_wrong_with_a_model_is_told_in_words(
    stack: Stack, visitors: Visitors, hole: bytes, language: str
) -> None:
    words = WORDS[language]
    page = await visitors.open(stack.url("shop"), language=language)
    await choose(page, hole, "hole.stl")
    await expect(page.locator("#viewer-words")).to_contain_text(words["shown"])
    await expect(page.locator("#prices-words")).to_contain_text(words["hole"])
    await expect(page.locator("td").filter(has_text=words["no price"])).to_have_count(PRICES)
    await choose(page, b"%PDF-1.7", "ring.pdf")
    await expect(page.locator("#trouble")).to_have_text(words["no model"])
