"""What every page owes to everybody, in light and in dark, on a desk and on a telephone: that it can be used without
eyes or a mouse, that it is not wider than its window, and that it is light."""

from collections.abc import Sequence
from typing import Any, Literal

from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page

LIGHT_BYTES = 300_000
"""No page is heavier with its files, beside the 3D view."""

Look = tuple[int, int, Literal["light", "dark"]]
DESK: Look = (1280, 900, "light")
DESK_AT_NIGHT: Look = (1280, 900, "dark")
TELEPHONE: Look = (390, 800, "light")
TELEPHONE_AT_NIGHT: Look = (390, 800, "dark")

_WEIGHT = """() => [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")]
    .filter((entry) => entry.entryType === "navigation" || /\\/web\\/(?!three\\.js)/.test(entry.name))
    .reduce((sum, entry) => sum + entry.decodedBodySize, 0)"""

_WIDE = """() => document.documentElement.scrollWidth <= innerWidth ? [] : [...document.querySelectorAll("body *")]
    .filter((one) => one.getBoundingClientRect().right > innerWidth + 1).slice(0, 3)
    .map((one) => one.outerHTML.slice(0, 150))"""


async def bad_manners(page: Page, looks: Sequence[Look]) -> list[str]:
    """What is wrong with a page as it stands, looked at in each way."""
    found = []
    for width, height, theme in looks:
        await page.set_viewport_size({"width": width, "height": height})
        await page.emulate_media(color_scheme=theme)
        here = f"{page.url} at {width}, {theme}, {await page.get_attribute('html', 'lang')}"
        wide = await page.evaluate(_WIDE)
        found += [f"{here}: wider than its window by {html}" for html in wide]
        results: dict[str, Any] = (await Axe().run(page)).response
        for violation in results["violations"]:
            if violation["impact"] in ("serious", "critical"):
                nodes = [f"{node['html'][:160]} ({node['failureSummary'][:200]})" for node in violation["nodes"][:3]]
                found.append(f"{here}: {violation['impact']}, {violation['id']}: {' | '.join(nodes)}")
    weight = await page.evaluate(_WEIGHT)
    if weight > LIGHT_BYTES:
        found.append(f"{page.url}: {weight} bytes")
    return found
