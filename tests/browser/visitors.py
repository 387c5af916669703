"""People in front of a browser: every page that they open is watched for what must not happen on any page."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from playwright.async_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Dialog,
    Error,
    Page,
    Playwright,
    Response,
    expect,
)

from lostwax.local import places

PATIENCE_MS = 20_000.0
"""How long a page is waited for; a machine that is busy with other tests is slow."""

expect.set_options(timeout=PATIENCE_MS)


async def a_browser(playwright: Playwright) -> Browser:
    """The machine's own Chromium, drawing by the processor. Raises Missing."""
    path = places.chromium()
    if path is None:
        raise places.Missing("no Chromium: run ./lostwax test once, it installs one")
    drawing = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader")
    return await playwright.chromium.launch(executable_path=path, args=["--no-sandbox", *drawing])


class Visitors:
    """Opens pages, each for somebody with cookies of their own. `wrong`: what pages did that none may do: errors on the
    console (violations of the content security policy among them), exceptions, answers of 500 and more, dialogs that
    nobody expected."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._contexts: list[BrowserContext] = []
        self.wrong: list[str] = []

    async def open(
        self,
        url: str,
        *,
        width: int = 1280,
        height: int = 900,
        touch: bool = False,
        language: str = "en",
        theme: Literal["light", "dark"] = "light",
        told: Sequence[str] = (),
        sure: bool = False,
    ) -> Page:
        """A page for somebody new. `told`: parts of console errors that are as they should be, as of a request that is
        refused; `sure`: who answers yes to what a page asks."""
        context = await self._browser.new_context(
            viewport={"width": width, "height": height},
            has_touch=touch,
            locale=language,
            color_scheme=theme,
            timezone_id="UTC",
        )
        context.set_default_timeout(PATIENCE_MS)
        self._contexts.append(context)
        context.on("page", lambda page: self._watch(page, told, sure))
        page = await context.new_page()
        await page.goto(url)
        return page

    def _watch(self, page: Page, told: Sequence[str], sure: bool) -> None:
        def said(message: ConsoleMessage) -> None:
            if message.type == "error" and not any(part in message.text for part in told):
                self.wrong.append(f"{page.url} on the console: {message.text}")

        def threw(error: Error) -> None:
            self.wrong.append(f"{page.url} threw: {error}")

        def answered(response: Response) -> None:
            if response.status >= 500 and not any(part in str(response.status) for part in told):
                self.wrong.append(f"{response.url} answered {response.status}")

        async def asked(dialog: Dialog) -> None:
            if sure and dialog.type in ("confirm", "beforeunload"):
                await dialog.accept()
            else:
                self.wrong.append(f"{page.url} opened a dialog: {dialog.message}")
                await dialog.dismiss()

        page.on("console", said)
        page.on("pageerror", threw)
        page.on("response", answered)
        page.on("dialog", asked)

    async def pictures(self, folder: Path) -> list[Path]:
        """What every open page shows now."""
        made = []
        for number, page in enumerate(page for context in self._contexts for page in context.pages):
            path = folder / f"page-{number}.png"
            await page.screenshot(path=path, full_page=True)
            made.append(path)
        return made

    async def leave(self) -> None:
        for context in self._contexts:
            await context.close()


async def sign_in(page: Page, badge: str) -> None:
    """By the badge, on the sign-in page that is shown."""
    await page.locator("#badge").fill(badge)
    await page.get_by_role("button").first.click()
    await expect(page.locator("#badge")).to_have_count(0)
