"""The house of all pages, without a server: words and languages, what protects a page, and trouble told as a page."""

import re
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response

import lostwax
from lostwax.channel.piece import PIECE
from lostwax.contracts.ids import new_id
from lostwax.contracts.staff import Role
from lostwax.kit.auth import Member
from lostwax.kit.house import HEADERS, House, form_of
from lostwax.kit.house import WEB as HOUSE_WEB
from lostwax.kit.http import Operation, build_app
from lostwax.kit.problems import Problem, unauthorized
from lostwax.kit.staff_pages import StaffHouse

NAME = 'Ida <b onclick="x">'
HOME = '{% extends "house.html" %}{% block main %}<p>{{ _("Hello, {name}", name=member.name) }}</p>{% endblock %}'


@pytest.fixture
async def browser(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    (tmp_path / "home.html").write_text(HOME)
    (tmp_path / "ru.toml").write_text('"Hello, {name}" = "Привет, {name}"\n')
    house = House("Workshop", tmp_path, policy={"img-src": "'self' blob:"})

    async def entrance(badge: str, address: str) -> str:
        if badge != "good":
            raise unauthorized("This badge is not known, or was withdrawn.")
        return "token"

    async def member(token: str) -> Member:
        if token != "token":
            raise unauthorized("Sign in again: no.")
        return Member(new_id(), NAME, Role.SELLER, 1)

    staff = StaffHouse(house, entrance, member)

    async def home(request: Request, member: Member) -> Response:
        if request.method == "POST":
            await form_of(request, 100)
        return house.page(request, "home.html", member=member)

    async def broken(request: Request) -> Response:
        raise Problem(503, "away", "Not now", "<i>Redis</i> is away")

    async def fails(request: Request) -> Response:
        raise RuntimeError(f"nobody foresaw this, {len(request.path_params['token'])} letters long")

    async def lost(request: Request) -> Response:
        raise OSError("no route")

    routes = [
        house.route("/", staff.signed_in(home), ("GET", "POST")),
        house.route("/broken", broken),
        house.route("/lost", lost),
        house.route("/l/{token}", fails, secret=True),
        *staff.routes(),
    ]

    async def gone(request: Request) -> Response:
        raise OSError("no route") if request.path_params["token"] != "odd" else RuntimeError("nobody foresaw this")

    shared = Operation("GET", "/v1/shared/{token}", gone, "What a link shows", {200: None}, {})
    app = build_app("test", [shared], checks={}, extra_routes=routes)
    url = "http://house.test"
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url=url, headers={"Origin": url}) as client:
        yield client


async def test_a_name_is_text_in_every_language(browser: httpx.AsyncClient) -> None:
    assert (await browser.post("/sign-in", data={"badge": "good"})).status_code == 303
    page = await browser.get("/")
    assert "Hello, Ida &lt;b onclick=&#34;x&#34;&gt;" in page.text
    assert '<html lang="en">' in page.text
    in_russian = await browser.get("/", headers={"Accept-Language": "ru-RU,ru;q=0.9,en;q=0.8"})
    assert "Привет, Ida &lt;b" in in_russian.text
    chosen = await browser.get("/?lang=ru")
    assert chosen.cookies["lang"] == "ru"
    assert "Привет" in (await browser.get("/")).text
    assert "Hello" in (await browser.get("/?lang=en", headers={"Accept-Language": "ru"})).text
    assert "Hello" in (await browser.get("/?lang=<script>")).text


async def test_trouble_is_told_as_a_page_and_as_text(browser: httpx.AsyncClient) -> None:
    page = await browser.get("/broken")
    assert (page.status_code, page.headers["content-type"]) == (503, "text/html; charset=utf-8")
    assert "&lt;i&gt;Redis&lt;/i&gt; is away" in page.text
    assert 'data-page="trouble"' in page.text
    assert (await browser.get("/lost")).status_code == 503


async def test_no_log_is_told_an_address_that_lets_somebody_in(
    browser: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    assert (await browser.get("/l/very-secret")).status_code == 500
    assert (await browser.get("/v1/shared/very-secret")).status_code == 503  # with the database away
    assert (await browser.get("/v1/shared/odd")).status_code == 500
    assert (await browser.post("/l/very-secret")).status_code == 405
    told = [str(record.__dict__) for record in caplog.records if record.name.startswith("lostwax")]
    for path in ("/l/{token}", "/v1/shared/{token}"):
        assert any(path in line for line in told)
    assert not any("very-secret" in line for line in told)


async def test_every_page_carries_the_policy(browser: httpx.AsyncClient) -> None:
    for path in ("/", "/broken", "/lost"):
        page = await browser.get(path)
        for name, value in HEADERS.items():
            if name != "Content-Security-Policy":
                assert page.headers[name] == value
        policy = dict(part.strip().split(" ", 1) for part in page.headers["content-security-policy"].split(";"))
        assert (policy["script-src"], policy["img-src"], policy["default-src"]) == ("'self'", "'self' blob:", "'none'")
        assert re.search(r"<style|\sstyle=|\son\w+=|javascript:|<script(?![^>]*\ssrc=)", page.text) is None


@pytest.mark.parametrize("headers", [{"Sec-Fetch-Site": "same-site"}, {"Origin": "http://evil.test"}])
async def test_another_page_posts_nothing(browser: httpx.AsyncClient, headers: dict[str, str]) -> None:
    await browser.post("/sign-in", data={"badge": "good"})
    assert (await browser.post("/", data={}, headers=headers)).status_code == 403
    assert (await browser.post("/sign-in", data={"badge": "good"}, headers=headers)).status_code == 403
    assert (await browser.post("/", data={})).status_code == 200
    assert (await browser.post("/", data={"text": "x" * 200})).status_code == 413


async def test_who_is_not_signed_in_any_more_is_told_why(browser: httpx.AsyncClient) -> None:
    page = await browser.get("/", headers={"Cookie": "staff=old"})
    assert "Sign in again: no." in page.text
    part = await browser.get("/", headers={"Cookie": "staff=old", "HX-Request": "true"})
    assert part.headers["hx-refresh"] == "true"
    refused = await browser.post("/sign-in", data={"badge": "bad"})
    assert (refused.status_code, "set-cookie" in refused.headers) == (401, False)


def untranslated(web: Path) -> set[str]:
    """What templates say through `_(..)`, and scripts through `inWords(..)`, and nobody has put into Russian."""
    said = {text for path in web.glob("*.html") for text in re.findall(r'_\("([^"]+)"', path.read_text())}
    said |= {text for path in web.glob("*.js") for text in re.findall(r'inWords\("([^"]+)"', path.read_text())}
    words: set[str] = set()
    for folder in (web, PIECE, HOUSE_WEB):
        path = folder / "ru.toml"
        words |= set(tomllib.loads(path.read_text())) if path.exists() else set()
    return said - words


@pytest.mark.parametrize("web", [HOUSE_WEB, *sorted(Path(lostwax.__file__).parent.glob("*/web"))], ids=str)
def test_everything_is_said_in_russian_too(web: Path) -> None:
    assert untranslated(web) == set()


def test_what_nobody_has_translated_would_be_seen(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text('{{ _("Sign in") }} {{ _("Nobody said this") }}')
    (tmp_path / "page.js").write_text('inWords("Sign out"); inWords("Nor this", { n: 1 });')
    assert untranslated(tmp_path) == {"Nobody said this", "Nor this"}
