"""The shop's pages: what they say, what they allow, and that they are light."""

import json
import re
import tomllib
from html import unescape
from pathlib import Path

import httpx
import msgspec
import pytest
from tests.builders import a_customer, an_uploaded_model, submit

import lostwax
from lostwax.channel.catalogue import PIECES
from lostwax.channel.offer_api import offer
from lostwax.channel.piece import FAILURE, PIECE, PIECE_FILES
from lostwax.contracts.models import MODEL_REMOVED
from lostwax.contracts.orders import Status
from lostwax.kit.house import LANGUAGES
from lostwax.kit.house import WEB as HOUSE
from lostwax.local.stack import Stack
from lostwax.orders.settings import Settings
from lostwax.shop.pages import FILES, WEB

LIGHT = 300_000
"""No page is heavier, in bytes, beside the 3D view."""


def test_the_offer_is_the_tariffs() -> None:
    usual = next(f.default for f in msgspec.structs.fields(Settings) if f.name == "tariff")
    tariff = json.loads((Path(lostwax.__file__).parent / f"orders/tariffs/{usual}.json").read_text())
    offered = offer()
    assert {a.code for a in offered.alloys} == set(tariff["alloys"])
    assert {f.code for f in offered.finishes} == set(tariff["finishes"])


def test_everything_that_is_said_is_said_in_russian_too() -> None:
    said = {
        unescape(text)
        for web in (WEB, PIECE)
        for page in web.glob("*.html")
        for text in re.findall(r"_\(\"([^\"]+)\"", page.read_text())
    }
    said |= {piece.name for piece in PIECES.values()} | {status.value for status in Status}
    known = {
        english: russian
        for web in (WEB, PIECE, HOUSE)
        for english, russian in tomllib.loads((web / "ru.toml").read_text()).items()
    }
    assert said - set(known) - {"Lostwax"} == set()
    for english, russian in known.items():
        assert set(re.findall(r"\{\w+\}", english)) <= set(re.findall(r"\{\w+\}", russian)), english


def test_why_a_model_has_no_price_is_said_in_russian() -> None:
    source = Path(lostwax.__file__).parent
    written = [path.read_text() for folder in ("pricing", "orders") for path in (source / folder).rglob("*.py")]
    told = r"(?:ModelUnreadable|PriceFailure|_failure|_no)\(\s*(?:code=)?\"(\w+)\""
    codes = {code for text in written for code in re.findall(told, text)} | {MODEL_REMOVED}
    assert {"not_closed", "truncated", "price_not_answered"} <= codes
    words = tomllib.loads((PIECE / "ru.toml").read_text())
    assert codes == {key.removeprefix(FAILURE) for key in words if key.startswith(FAILURE)}


@pytest.mark.parametrize("language", LANGUAGES)
async def test_the_storefront_is_light_and_allows_nothing_from_elsewhere(stack: Stack, language: str) -> None:
    async with httpx.AsyncClient(base_url=stack.url("shop"), timeout=20) as browser:
        page = (await browser.get("/", params={"lang": language})).raise_for_status()
        assert page.headers["content-language"] == language
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert f"connect-src 'self' {stack.env('shop')['LOSTWAX_S3_ENDPOINT']}" in policy
        assert "unsafe" not in policy
        assert "<script>" not in page.text
        assert 'style="' not in page.text
        addresses = re.findall(r'"(/web/([\w.-]+)\?v=\w+)"', page.text)
        assert {*FILES, *(path.name for path in PIECE_FILES)} <= {name for _, name in addresses}
        weight = len(page.content)
        for address, name in addresses:
            file = (await browser.get(address)).raise_for_status()
            assert "immutable" in file.headers["cache-control"]
            weight += 0 if name == "three.js" else len(file.content)
        assert weight < LIGHT


async def test_a_piece_of_the_catalogue_is_ordered_without_a_model(stack: Stack) -> None:
    async with await a_customer(stack, guest=True) as guest:
        code = "signet"
        file = (await guest.get(f"/v1/catalogue/{code}")).raise_for_status()
        taken = (await guest.post(f"/v1/catalogue/{code}/take")).raise_for_status().json()
        assert taken["size_bytes"] == len(file.content)
        again = (await guest.post(f"/v1/catalogue/{code}/take")).raise_for_status().json()
        assert again == taken
        await submit(guest, taken["sha256"], ring_size=None)


async def test_a_linked_order_is_a_page_without_script_injection_or_names(stack: Stack) -> None:
    async with await a_customer(stack, "<script>alert(1)</script>") as nora:
        order_id = await submit(nora, await an_uploaded_model(nora), engraving="<img src=x>")
        path = (await nora.post(f"/v1/orders/{order_id}/links")).raise_for_status().json()["path"]
        async with httpx.AsyncClient(base_url=stack.url("shop"), timeout=20) as whoever:
            page = (await whoever.get(path, headers={"Accept-Language": "ru"})).raise_for_status()
            assert "Золото 14K" in page.text
            assert "alert(1)" not in page.text
            assert "img src" not in page.text
            assert nora.email not in page.text
            assert page.headers["x-robots-tag"] == "noindex"
            ended = await whoever.get("/o/lwo_nobodys")
            assert ended.status_code == 404
            assert ended.headers["content-type"].startswith("text/html")
