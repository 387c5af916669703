"""Every link and every form of every page, as each kind of visitor, with rubbish in every place: no 5xx, nothing of
what was sent comes back as markup, every page has its headers, no cookie is open to scripts or other pages."""

import re
from collections.abc import AsyncIterator, Iterator
from html.parser import HTMLParser
from random import Random
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import httpx
import msgspec
import pytest
from tests.builders import (
    a_customer,
    a_member,
    a_partner,
    an_approved_order,
    an_operator,
    an_uploaded_model,
    submit,
    wait_for,
)

from lostwax.contracts.staff import Role
from lostwax.kit.house import HEADERS
from lostwax.kit.staff import TOKEN_COOKIE
from lostwax.local.stack import Stack
from lostwax.shop.callers import COOKIE

MARK = "zq<b'\"&>qz"
RAW = "zq<b"
"""What must never be seen in a page."""

RUBBISH = [
    f"<script>alert(1)</script>{MARK}",
    f"{{{{7*7}}}}${{7*7}}'; DROP TABLE staff; --{MARK}",
    "\0\u202e\N{GRINNING FACE}",
    "9" * 400,
    "-1",
    "nan",
    "00000000-0000-7000-8000-000000000000",
    "",
    "x" * 70_000,
    "//evil.test/",
    "javascript:alert(1)",
]
MOST_PAGES = 40
EACH_FIELD = 3
"""How many kinds of rubbish a field is given, by lot."""

INLINE = re.compile(r"<style|\sstyle=|\son\w+=\"|<script(?![^>]*\s(?:src|type=\"application/json\"))")
UUID_IN_PATH = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


class Form(msgspec.Struct):
    """`dangerous`: it asks before it does what cannot be taken back."""

    action: str
    method: str
    multipart: bool
    dangerous: bool
    fields: dict[str, str]


class Reader(HTMLParser):
    """Links and forms of a page. A form of several buttons is as many forms."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.forms: list[Form] = []
        self._in: Form | None = None
        self._select: str | None = None
        self._buttons: list[tuple[str, str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag not in ("link", "script"):
            self.links += [given[name] for name in ("href", "hx-get", "data-model") if name in given]
        name = given.get("name", "")
        if tag == "form":
            multipart = given.get("enctype", "").startswith("multipart")
            dangerous = "data-confirm" in given or "sign-out" in given.get("action", "")
            self._in = Form(given.get("action", ""), given.get("method", "get"), multipart, dangerous, {})
            self._buttons = []
        elif self._in is None:
            return
        elif tag in ("input", "textarea") and name:
            self._in.fields.setdefault(name, given.get("value", ""))
        elif tag == "select" and name:
            self._select = name
            self._in.fields[name] = ""
        elif tag == "option" and self._select and ("selected" in given or not self._in.fields[self._select]):
            self._in.fields[self._select] = given.get("value", "")
        elif tag == "button" and name:
            self._buttons.append((name, given.get("value", "")))

    def handle_endtag(self, tag: str) -> None:
        if tag == "select":
            self._select = None
        if tag == "form" and self._in is not None:
            for name, value in self._buttons or [("", "")]:
                fields = {**self._in.fields, **({name: value} if name else {})}
                self.forms.append(msgspec.structs.replace(self._in, fields=fields))
            self._in = None


class Visitor(msgspec.Struct):
    """`cookies`: who they are; `starts`: where they begin."""

    kind: str
    url: str
    cookies: dict[str, str]
    starts: list[str]


class Crawl:
    """One visitor's walk. `wrong`: what was found; `pages` and `sent`: how much was looked at."""

    def __init__(self, visitor: Visitor) -> None:
        self._visitor = visitor
        self._lot = Random(visitor.kind)
        self._seen: set[str] = set()
        self._forms: set[tuple[str, str, tuple[str, ...], str]] = set()
        self.pages = self.sent = 0
        self.wrong: set[str] = set()

    async def walk(self) -> None:
        cookie = "; ".join(f"{name}={value}" for name, value in self._visitor.cookies.items())
        headers = {"Origin": self._visitor.url, **({"Cookie": cookie} if cookie else {})}
        async with httpx.AsyncClient(base_url=self._visitor.url, headers=headers, timeout=30) as self._http:
            waiting = list(self._visitor.starts)
            while waiting and self.pages < MOST_PAGES:
                address = waiting.pop(0)
                shape = UUID_IN_PATH.sub("*", address.partition("#")[0])
                if shape in self._seen or shape.startswith(("/web/", "data:")):
                    continue
                self._seen.add(shape)
                waiting += await self._look(address)

    async def _look(self, address: str) -> list[str]:
        response = await self._send("GET", address)
        self.pages += 1
        for path in self._spoiled(address):
            await self._send("GET", path)
        if not response.headers.get("content-type", "").startswith("text/html"):
            return []
        page = Reader(response.text)
        for form in page.forms:
            await self._fill(address, form)
        own = [link for link in page.links if link.startswith(("/", "?"))]
        base = urlsplit(address).path
        return [base + link if link.startswith("?") else link for link in own]

    def _spoiled(self, address: str) -> Iterator[str]:
        """The address with rubbish for what it names and for what it asks."""
        split = urlsplit(address)
        for found in UUID_IN_PATH.finditer(split.path):
            for rubbish in RUBBISH[:7]:
                yield split.path[: found.start()] + quote(rubbish, safe="") + split.path[found.end() :]
        names = [name for name, _ in parse_qsl(split.query, keep_blank_values=True)] or ["q", "after", "lang"]
        for name in names:
            for rubbish in self._lot.sample([r for r in RUBBISH if len(r) < 1000], EACH_FIELD):
                yield f"{split.path}?{urlencode({name: rubbish})}"

    async def _fill(self, address: str, form: Form) -> None:
        action = form.action or urlsplit(address).path
        shape = (UUID_IN_PATH.sub("*", action), form.method, tuple(sorted(form.fields)), form.fields.get("do", ""))
        if shape in self._forms:
            return
        self._forms.add(shape)
        if action == "/sign-in":  # who guesses is made to wait, and all tests come from one address
            wishes = [{"badge": RUBBISH[0]}]
        elif form.dangerous:
            wishes = [dict.fromkeys(form.fields, rubbish) for rubbish in RUBBISH[:4]]
        else:
            usual = {name: value or "1" for name, value in form.fields.items()}
            wishes = [
                {**usual, name: rubbish} for name in form.fields for rubbish in self._lot.sample(RUBBISH, EACH_FIELD)
            ]
            wishes += [{}, {"do": MARK, MARK: MARK}]
        for wish in wishes:
            if form.method.lower() != "post":
                short = {name: value[:2000] for name, value in wish.items()}
                await self._send("GET", f"{urlsplit(action).path}?{urlencode(short)}")
            elif form.multipart:
                files = {"file": (f"{MARK}.stl", wish.pop("file", MARK).encode(), "model/stl")}
                await self._send("POST", action, data=wish, files=files)
            else:
                await self._send("POST", action, data=wish)

    async def _send(self, method: str, address: str, **body: object) -> httpx.Response:
        self.sent += 1
        response = await self._http.request(method, address, **body)  # type: ignore[arg-type]
        where = f"{self._visitor.kind}: {method} {UUID_IN_PATH.sub('*', address)[:120]} {str(body)[:200]}"
        self.wrong |= {f"{where}: {what}" for what in faults(response)}
        return response


def faults(response: httpx.Response) -> Iterator[str]:
    """What is wrong with an answer, whatever was asked."""
    if response.status_code >= 500:
        yield f"answered {response.status_code}"
    for cookie in response.headers.get_list("set-cookie"):
        if "httponly" not in cookie.lower() or not re.search("samesite=(lax|strict)", cookie.lower()):
            yield f"an open cookie: {cookie.partition('=')[0]}"
    location = response.headers.get("location", "/")
    if not location.startswith("/") or location.startswith("//"):
        yield f"led elsewhere: {location[:60]}"
    if not response.headers.get("content-type", "").startswith("text/html"):
        return
    if RAW in response.text:
        yield "what was sent came back as markup"
    if found := INLINE.search(response.text):
        yield f"inline: {response.text[found.start() : found.start() + 60]}"
    for name, value in HEADERS.items():
        told = response.headers.get(name)
        if name == "Content-Security-Policy":
            if "default-src 'none'" not in (told or "") or "unsafe-" in (told or ""):
                yield f"without {name}, or with a weak one"
        elif told is None or (name in ("X-Frame-Options", "X-Content-Type-Options") and told != value):
            yield f"without {name}"


@pytest.fixture(scope="module")
async def visitors(stack: Stack) -> AsyncIterator[dict[str, Visitor]]:
    async with (
        await a_partner(stack) as partner,
        await a_member(stack, Role.SELLER, f"Klara {MARK}") as klara,
        await an_operator(stack, f"Ada {MARK}") as ada,
        await a_member(stack, Role.SUPERVISOR, "Sue") as sue,
        await a_member(stack, Role.ADMINISTRATOR, "Ida") as ida,
        await a_customer(stack, f"Nora {MARK}") as nora,
        await a_customer(stack, f"Guest {MARK}", guest=True) as guest,
    ):
        order = await submit(partner, await an_uploaded_model(partner), reference=MARK, engraving=MARK)
        await an_approved_order(partner, engraving=MARK)

        async def known() -> bool:
            return (await klara.get(f"/v1/orders/{order}")).status_code == 200

        await wait_for(known)
        (await klara.post("/v1/customers", json={"kind": "person", "name": MARK, "phone": "1", "consent": MARK}))
        layout = (await klara.post(f"/v1/orders/{order}/layouts", json={"note": MARK})).raise_for_status().json()
        sent = (await klara.post(f"/v1/layouts/{layout['layout_id']}/send")).raise_for_status().json()
        piece = await submit(nora, await an_uploaded_model(nora), reference=MARK, engraving=MARK)
        link = (await nora.post(f"/v1/orders/{piece}/links")).raise_for_status().json()["path"]
        staff = {"seller": klara, "supervisor": sue, "administrator": ida, "operator": ada}
        desk = ["/", "/orders", f"/orders/{order}", f"/orders/{order}/layouts", f"/search?q={quote(MARK)}"]
        doors = ("crm", "mes", "telemetry", "reporting", "shop")
        found = [Visitor(f"nobody at {door}", stack.url(door), {}, ["/"]) for door in doors]
        for role in ("seller", "supervisor", "administrator"):
            found.append(Visitor(role, stack.url("crm"), {TOKEN_COOKIE: staff[role].token}, desk))
        for door in ("mes", "telemetry", "reporting"):
            for role in ("operator", "administrator"):
                who = f"{role} at {door}"
                found.append(Visitor(who, stack.url(door), {TOKEN_COOKIE: staff[role].token}, ["/"]))
        found.append(Visitor("customer", stack.url("shop"), {COOKIE: nora.token}, ["/", link]))
        found.append(Visitor("guest", stack.url("shop"), {COOKIE: guest.token}, ["/"]))
        found.append(Visitor("who has a link", stack.url("crm"), {}, [f"/l/{sent['token']}"]))
        yield {visitor.kind: visitor for visitor in found}


async def test_no_page_is_shaken_by_rubbish(visitors: dict[str, Visitor]) -> None:
    wrong: set[str] = set()
    sent = 0
    for visitor in visitors.values():
        crawl = Crawl(visitor)
        await crawl.walk()
        wrong |= crawl.wrong
        sent += crawl.sent
        if visitor.kind == "seller":  # the crawl did not stay outside
            assert crawl.pages > 8
            assert crawl.sent > 200
    assert not wrong, f"{len(wrong)} of {sent}:\n" + "\n".join(sorted(wrong)[:40])


def test_what_is_wrong_with_an_answer_is_seen() -> None:
    """The proof that what is held above can fail."""
    html = {"content-type": "text/html", "set-cookie": "a=b; HttpOnly", "location": "//evil.test/"}
    found = " ".join(faults(httpx.Response(500, headers=html, text=f'<p onclick="x">{MARK}')))
    for what in ("answered 500", "open cookie", "led elsewhere", "as markup", "inline", "without X-Frame-Options"):
        assert what in found
