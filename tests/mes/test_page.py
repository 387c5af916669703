"""The operators' page over HTTP: sign-in and out, what protects it, its files."""

import re
import tomllib
from collections.abc import AsyncIterator
from http.cookies import Morsel, SimpleCookie

import httpx
import pytest
import pytest_asyncio
from tests.builders import an_operator

from lostwax.kit.house import LANGUAGES
from lostwax.local.stack import Stack
from lostwax.mes.pages import WEB

NAME = "Ida <b>Gold</b> & Söhne"
NOBODY = "lwo_of_nobody"


@pytest_asyncio.fixture(scope="module")
async def badge(stack: Stack) -> str:
    member = await an_operator(stack, NAME)
    await member.aclose()
    return member.badge


@pytest_asyncio.fixture
async def browser(stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    """Keeps cookies, and is at the page's own address."""
    url = stack.url("mes")
    async with httpx.AsyncClient(base_url=url, headers={"Origin": url}) as client:
        yield client


def cookie_set(response: httpx.Response) -> Morsel[str]:
    return SimpleCookie(response.headers["set-cookie"])["staff"]


def test_what_the_script_says_has_words_in_both_languages() -> None:
    words = {language: tomllib.loads((WEB / f"{language}.toml").read_text()) for language in LANGUAGES}
    said = {f"page {key}" for key in re.findall(r'say\("([^"]+)"', (WEB / "page.js").read_text())}
    assert len(said) > 20
    assert said <= set(words["en"])
    assert set(words["en"]) <= set(words["ru"])
    for key, english in words["en"].items():
        assert set(re.findall(r"\{\w+\}", english)) == set(re.findall(r"\{\w+\}", words["ru"][key])), key


async def test_who_is_not_signed_in_is_asked_for_a_badge(browser: httpx.AsyncClient) -> None:
    page = await browser.get("/")
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert 'action="/sign-in"' in page.text
    assert 'data-page="work"' not in page.text


async def test_a_badge_signs_in_and_sign_out_forgets_it(browser: httpx.AsyncClient, badge: str) -> None:
    signed_in = await browser.post("/sign-in", data={"badge": f" {badge}\r\n"})  # as scanners send it
    assert (signed_in.status_code, signed_in.headers["location"]) == (303, "/")
    morsel = cookie_set(signed_in)
    assert (morsel.value.count("."), morsel["path"], morsel["httponly"]) == (2, "/", True)
    assert morsel["samesite"].lower() == "strict"

    page = (await browser.get("/")).text
    assert 'data-page="work"' in page
    assert "Ida &lt;b&gt;Gold&lt;/b&gt; &amp; Söhne" in page
    assert (await browser.get("/v1/me")).json()["name"] == NAME

    signed_out = await browser.post("/sign-out")
    assert (signed_out.status_code, signed_out.headers["location"]) == (303, "/")
    assert cookie_set(signed_out)["max-age"] == "0"
    assert (await browser.get("/v1/me")).status_code == 401
    assert 'action="/sign-in"' in (await browser.get("/")).text


async def test_the_script_signs_in_by_json(browser: httpx.AsyncClient, badge: str) -> None:
    signed_in = await browser.post("/sign-in", data={"badge": badge}, headers={"Accept": "application/json"})
    assert (signed_in.status_code, signed_in.json()["name"]) == (200, NAME)
    assert cookie_set(signed_in).value.count(".") == 2
    assert badge not in str(signed_in.headers)


@pytest.mark.parametrize("form", [{"badge": NOBODY}, {"badge": ""}, {}])
async def test_an_unknown_badge_is_refused_in_words(browser: httpx.AsyncClient, form: dict[str, str]) -> None:
    page = await browser.post("/sign-in", data=form)
    assert page.status_code == 401
    assert "set-cookie" not in page.headers
    assert "This badge is not known, or was withdrawn." in page.text
    assert 'action="/sign-in"' in page.text
    problem = await browser.post("/sign-in", data=form, headers={"Accept": "application/json"})
    assert (problem.status_code, problem.json()["detail"]) == (401, "This badge is not known, or was withdrawn.")


async def test_a_cookie_that_is_no_good_leads_to_the_sign_in(browser: httpx.AsyncClient) -> None:
    page = await browser.get("/", headers={"Cookie": f"staff={NOBODY}"})
    assert page.status_code == 200
    assert "Sign in again: not a valid staff token" in page.text


async def test_a_huge_form_is_not_read(browser: httpx.AsyncClient) -> None:
    assert (await browser.post("/sign-in", content=b"badge=" + b"x" * 100_000)).status_code == 413


async def test_the_page_runs_nothing_but_its_own_files(browser: httpx.AsyncClient, badge: str) -> None:
    for signed_in in (False, True):
        if signed_in:
            await browser.post("/sign-in", data={"badge": badge})
        page = await browser.get("/")
        policy = dict(part.strip().split(" ", 1) for part in page.headers["content-security-policy"].split(";"))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert page.headers["x-frame-options"] == "DENY"
        assert page.headers["referrer-policy"] == "same-origin"
        assert page.headers["cache-control"] == "no-store"
        # What the policy would block would be missing from the page: nothing inline, nothing from elsewhere.
        assert re.search(r"<style|\sstyle=|\son\w+=|javascript:", page.text) is None
        assert re.search(r"<script(?![^>]*\ssrc=)", page.text) is None
        assert all(
            address.startswith("/web/")
            for address in re.findall(r'(?:src|href)="(\w*[:/][^"]+)"', page.text)
            if not address.startswith("data:")
        )


async def test_its_files_are_kept_by_browsers_until_they_change(browser: httpx.AsyncClient, badge: str) -> None:
    await browser.post("/sign-in", data={"badge": badge})
    page = (await browser.get("/")).text
    css, js = "text/css; charset=utf-8", "text/javascript; charset=utf-8"
    types = {"house.css": css, "page.css": css, "house.js": js, "page.js": js}
    for name, media_type in types.items():
        found = re.search(rf'"(/web/{re.escape(name)}\?v=\w+)"', page)
        assert found is not None
        file = await browser.get(found[1])
        assert (file.status_code, file.headers["content-type"]) == (200, media_type)
        assert "immutable" in file.headers["cache-control"]
        assert file.headers["x-content-type-options"] == "nosniff"
        other = await browser.get(f"/web/{name}?v=older")
        assert other.headers["cache-control"] == "no-cache"
    for name in ("page.html", "nothing.js", "..%2fpages.py"):
        assert (await browser.get(f"/web/{name}")).status_code == 404


@pytest.fixture(params=["same-site", "cross-site", "origin of another port", "origin null"])
def from_elsewhere(request: pytest.FixtureRequest) -> dict[str, str]:
    """Headers of a browser on another page: with Sec-Fetch-Site, or over plain HTTP with Origin alone."""
    return {
        "same-site": {"Sec-Fetch-Site": "same-site"},
        "cross-site": {"Sec-Fetch-Site": "cross-site"},
        "origin of another port": {"Origin": "http://127.0.0.1:1"},
        "origin null": {"Origin": "null"},
    }[request.param]


async def test_another_page_cannot_act_for_who_is_signed_in(
    browser: httpx.AsyncClient, badge: str, from_elsewhere: dict[str, str]
) -> None:
    token = cookie_set(await browser.post("/sign-in", data={"badge": badge})).value
    no_order = "/v1/orders/018f0000-0000-7000-8000-000000000000/claim"
    refused = await browser.post(no_order, headers=from_elsewhere)
    assert (refused.status_code, refused.json()["type"]) == (403, "/problems/cross-site")
    assert (await browser.post("/sign-out", headers=from_elsewhere)).status_code == 403
    assert (await browser.post("/sign-in", data={"badge": badge}, headers=from_elsewhere)).status_code == 403

    own = await browser.post(no_order, headers={"Sec-Fetch-Site": "same-origin"})
    assert own.status_code == 404  # the order, not the sender
    assert (await browser.post(no_order)).status_code == 404  # its Origin is the page's
    by_bearer = await browser.post(no_order, headers={**from_elsewhere, "Authorization": f"Bearer {token}"})
    assert by_bearer.status_code == 404  # no page can send that of its own accord
