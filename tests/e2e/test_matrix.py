"""Every route of every service, asked by every kind of caller, against the table in `matrix_table.py`."""

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from tests.builders import (
    Customer,
    Member,
    Partner,
    a_customer,
    a_member,
    a_model_file,
    a_partner,
    an_approved_order,
    an_uploaded_model,
    letters_to,
    order_at,
    submit,
    wait_for,
)
from tests.e2e.matrix_table import (
    ABSENT,
    ADMINISTRATOR,
    CALLERS,
    CONSOLE,
    CUSTOMER,
    ELSEWHERE,
    EXPIRED,
    GUEST,
    IN,
    MAY_NOT,
    NOBODY,
    NOT_THEIRS,
    OPERATOR,
    OTHER_OPERATOR,
    OTHER_PARTNER,
    PARTNER,
    SELLER,
    SERVICES,
    SIGNED_OUT,
    STAFF,
    SUPERVISOR,
    SUSPENDED,
    TABLE,
    WHO,
    WITHDRAWN,
    WITHOUT_SCOPE,
    Row,
)

import lostwax
from lostwax.contracts.ids import new_id
from lostwax.contracts.staff import Role
from lostwax.crm import pages as crm_pages
from lostwax.kit import auth
from lostwax.kit.auth import ServiceSigner, StaffSigner
from lostwax.kit.http import build_app
from lostwax.local import credentials
from lostwax.local.stack import Stack
from lostwax.mes import pages
from lostwax.partner_api import keys_store
from lostwax.partner_api.domain import ALL_SCOPES
from lostwax.reporting import pages as reporting_pages
from lostwax.schemas import openapi
from lostwax.shop import pages as shop_pages
from lostwax.telemetry import pages as telemetry_pages

NOTHING: Any = None
AT_ONCE = 12

LET_IN_AND_THEN = ("no-price-due", "search-away", "bad-parameter")
"""Of whom is let in: the order is there, its price too; OpenSearch is away; what is asked for cannot be."""

MISFITS = ("unknown-field", "missing-field", "wrong-type", "out-of-range", "digest-differs")
"""422 for a body of the table's that does not fit: it says nothing of who may."""


# -- the table and the routes -----------------------------------------------------------------------------------------


def every_route() -> set[str]:
    """As the services wire them: a test holds that each serves the operations of SERVICES and no others."""
    found = set()
    for service, (_, operations) in openapi.SERVICES.items():
        found |= {f"{service} {o.method} {o.path}" for o in operations()}
        router: Any = build_app(service, [], checks={}, extra_routes=EXTRA.get(service, ())).app
        found |= {f"{service} {m} {r.path}" for r in router.routes for m in r.methods or ("GET",) if m != "HEAD"}
    return found


EXTRA = {
    "mes": pages.routes(NOTHING, NOTHING, NOTHING),
    "crm": crm_pages.routes(NOTHING, NOTHING, NOTHING, NOTHING, "http://s3", 1),
    "telemetry": telemetry_pages.routes(NOTHING, NOTHING, NOTHING),
    "shop": shop_pages.routes(NOTHING, NOTHING, NOTHING, NOTHING, "http://s3", 1, NOTHING),
    "reporting": reporting_pages.routes(NOTHING, NOTHING),
}


def without_a_row(routes: Iterable[str], rows: Iterable[str]) -> set[str]:
    return set(routes) - set(rows)


def without_a_route(routes: Iterable[str], rows: Iterable[str]) -> set[str]:
    return set(rows) - set(routes)


def test_every_route_has_a_row_and_every_row_a_route() -> None:
    assert without_a_row(every_route(), TABLE) == set(), "say in matrix_table.py who may"
    assert without_a_route(every_route(), TABLE) == set()
    for row in TABLE.values():
        assert set(row.becomes) == set(CALLERS)


@pytest.mark.parametrize("route", ["mes POST /sign-in", "crm GET /metrics", "orders GET /v1/orders/{order_id}/history"])
def test_a_route_without_a_row_and_a_row_without_a_route_are_seen(route: str) -> None:
    assert without_a_row(every_route(), TABLE.keys() - {route}) == {route}
    assert without_a_route(every_route() - {route}, TABLE) == {route}


def test_only_pages_are_routes_beside_its_operations() -> None:
    """`every_route` would not know of others."""
    mains = Path(lostwax.__file__).parent.glob("*/main.py")
    assert {m.parent.name for m in mains if "extra_routes" in m.read_text()} == set(EXTRA)


# -- the world that is asked about ------------------------------------------------------------------------------------


class Matrix:
    """Who asks, and what there is to ask about. `world`: by the names that rows use."""

    def __init__(self, stack: Stack, http: httpx.AsyncClient) -> None:
        self.urls = {service: stack.url(service) for service in openapi.SERVICES}
        self.http = http
        keys = credentials.load(stack.folder).service_keys
        self.signers = {name: ServiceSigner(name, json.dumps(keys[name])) for name in SERVICES}
        self.world: dict[str, Any] = {}
        self.tokens: dict[str, str] = {}
        self.keys_without: dict[str, str] = {}
        self.at_once = asyncio.Semaphore(AT_ONCE)

    def credential(self, service: str, row: Row, caller: str) -> str | None:
        if caller in SERVICES:
            return self.signers[caller].token(service)
        if caller == ELSEWHERE:
            may = next((c for c in SERVICES if row.becomes[c] == IN), CONSOLE)
            return self.signers[may].token("mes" if service != "mes" else "crm")
        if caller == WITHOUT_SCOPE:
            return self.keys_without[row.scope]
        return self.tokens.get(caller)

    async def becomes(self, route: str, row: Row, caller: str) -> str:
        """What becomes of a caller: as in the table, or what is none of it."""
        service, method, path = route.split(" ")
        path = re.sub(r"\{(\w+)\}", lambda m: self._object(row, m.group(1)), path)
        asked = {**row.ask(self.world, caller)}
        headers = {**asked.pop("headers", {})}
        credential = self.credential(service, row, caller)
        if credential is not None and row.page and caller in (*STAFF, WITHDRAWN, EXPIRED):
            headers["Cookie"] = f"staff={credential}"
        elif credential is not None:
            headers["Authorization"] = f"Bearer {credential}"
        async with self.at_once:
            asking = self.http.stream(method, self.urls[service] + path, headers=headers, **asked)
            async with asking as response:
                if not response.headers.get("content-type", "").startswith("text/event-stream"):  # which does not end
                    await response.aread()
                return verdict(response)

    def _object(self, row: Row, parameter: str) -> str:
        named = row.objects[parameter]
        return str(self.world.get(named, named))


def verdict(response: httpx.Response) -> str:
    problem = response.headers.get("content-type") == "application/problem+json"
    code = response.json()["type"].removeprefix("/problems/") if problem else ""
    if code in ("not-yours", "model-unknown"):
        return NOT_THEIRS
    if response.status_code < 400 or code in LET_IN_AND_THEN:
        return IN
    if response.status_code == 410 or (response.status_code in (409, 422) and code not in MISFITS):
        return IN
    expected = {401: WHO, 403: MAY_NOT, 404: ABSENT}.get(response.status_code)
    return expected or f"{response.status_code} {response.text[:200]}"


@pytest.fixture(scope="module")
async def matrix(stack: Stack) -> AsyncIterator[Matrix]:
    async with AsyncExitStack() as open_ones:
        http = await open_ones.enter_async_context(httpx.AsyncClient(timeout=30, follow_redirects=False))
        made = Matrix(stack, http)

        async def partner_of(name: str) -> Partner:
            return await open_ones.enter_async_context(await a_partner(stack, name))

        async def member_of(role: Role, name: str, door: str = "mes") -> Member:
            return await open_ones.enter_async_context(await a_member(stack, role, name, door=door))

        partner, other, suspended, ada, ben, sam, cleo, dora, gone, spare = await asyncio.gather(
            partner_of("Owner"),
            partner_of("Other"),
            partner_of("Suspended"),
            member_of(Role.OPERATOR, "Ada"),
            member_of(Role.OPERATOR, "Ben"),
            member_of(Role.SUPERVISOR, "Sam"),
            member_of(Role.SELLER, "Cleo", "crm"),
            member_of(Role.ADMINISTRATOR, "Dora", "crm"),
            member_of(Role.ADMINISTRATOR, "Gone", "crm"),
            member_of(Role.OPERATOR, "Spare", "crm"),
        )
        made.tokens = {PARTNER: partner.key, OTHER_PARTNER: other.key, SUSPENDED: suspended.key}
        staff = {
            OPERATOR: ada,
            OTHER_OPERATOR: ben,
            SUPERVISOR: sam,
            SELLER: cleo,
            ADMINISTRATOR: dora,
            WITHDRAWN: gone,
        }
        nora, guest, spare_customer = await asyncio.gather(
            *(a_customer(stack, name, guest=name == "Guest") for name in ("Nora", "Guest", "Gone"))
        )
        for customer in (nora, guest, spare_customer):
            await open_ones.enter_async_context(customer)
        (await spare_customer.post("/v1/sign-out")).raise_for_status()
        made.tokens |= {CUSTOMER: nora.token, GUEST: guest.token, SIGNED_OUT: spare_customer.token}
        made.tokens |= {caller: member.token for caller, member in staff.items()}
        made.tokens[EXPIRED] = _expired(stack, dora)
        made.world = {"badges": {NOBODY: "lwb_nobodys"} | {caller: member.badge for caller, member in staff.items()}}
        made.world["member"] = str(spare.staff_id)
        await asyncio.gather(
            _leave(stack, suspended, dora, gone),
            _keys(partner, made),
            _orders(partner, ada, cleo, made.world),
            _hook(partner, made.world),
            _upload(partner, made.world, "parts"),
            _shop(nora, made.world),
            _letters(stack, made.world),
            _door_of_the_crm(cleo, made.world),
        )
        await _customers(cleo, made.world)
        await _layout_for_the_shop(stack, nora, cleo, made.world)
        yield made


def _expired(stack: Stack, member: Member) -> str:
    signer = StaffSigner("crm", stack.env("crm")["LOSTWAX_SERVICE_KEY"])
    was = auth.Member(member.staff_id, member.name, Role.ADMINISTRATOR, 1)
    return signer.token(was, datetime.now(UTC) - timedelta(hours=13), timedelta(hours=12))[0]


async def _leave(stack: Stack, suspended: Partner, administrator: Member, gone: Member) -> None:
    connection = await asyncpg.connect(stack.env("partner_api")["LOSTWAX_DATABASE_URL"], timeout=5)
    try:
        await keys_store.suspend_client(connection, suspended.client_id, suspended=True)
    finally:
        await connection.close()
    (await administrator.post(f"/v1/staff/{gone.staff_id}/withdraw")).raise_for_status()

    async def refused_by_both() -> bool:
        at_mes = await gone.get(stack.url("mes") + "/v1/me")
        return (at_mes.status_code, (await gone.get("/v1/staff")).status_code) == (401, 401)

    await wait_for(refused_by_both)


async def _keys(partner: Partner, made: Matrix) -> None:
    for scope in ALL_SCOPES:
        body = {"name": f"all but {scope}", "scopes": [s for s in ALL_SCOPES if s is not scope]}
        made.keys_without[scope] = (await partner.post("/v1/keys", json=body)).raise_for_status().json()["key"]
    spare = (await partner.post("/v1/keys", json={"name": "spare"})).raise_for_status().json()
    made.world["key"] = spare["key_id"]


async def _orders(partner: Partner, ada: Member, cleo: Member, world: dict[str, Any]) -> None:
    world["file"] = a_model_file()
    model = world["model"] = await an_uploaded_model(partner, world["file"])
    spare = await submit(partner, model)
    for name, price in (("order", "price"), ("at the desk", "price at the desk")):
        world[name] = await submit(partner, model)
        priced = await order_at(partner, world[name], "PRICE_CALCULATED", seconds=30)
        world[price] = {"quote_id": priced["quote"]["quote_id"], "amount": priced["quote"]["amount"]}
    await order_at(partner, spare, "PRICE_CALCULATED")
    world["approved"], world["in hand"] = await asyncio.gather(*(an_approved_order(partner, model) for _ in range(2)))
    option = {"alloy": "gold-14k", "finish": "polished"}
    body, key = {"model": model, "options": [option]}, {"Idempotency-Key": new_id().hex}
    world["quote"] = (await partner.post("/v1/quotes", json=body, headers=key)).raise_for_status().json()["quote_id"]

    async def claimed() -> Any:
        response = await ada.post(f"/v1/orders/{world['in hand']}/claim")
        return response.status_code == 200 and response.json()["claim_id"]

    # A claim's command goes by the claim's id.
    world["step"] = await wait_for(claimed)

    async def held() -> Any:
        response = await cleo.post(f"/v1/orders/{spare}/hold", json={"reason": "the matrix"})
        return response.status_code == 202 and response.json()["command_id"]

    world["hold"] = await wait_for(held)
    cancelled = await partner.post(f"/v1/orders/{spare}/cancel", json={"reason": "the matrix"})
    world["cancellation"] = cancelled.raise_for_status().json()["command_id"]

    async def known_everywhere() -> bool:
        """So that it is not for want of news that somebody is told it is absent."""
        for member, names in ((ada, ("order", "approved", "in hand")), (cleo, ("at the desk",))):
            for name in names:
                if (await member.get(f"/v1/orders/{world[name]}")).status_code != 200:
                    return False
        view = (await ada.get(f"/v1/orders/{world['in hand']}")).json()
        return bool(view["order"]["status"] == "MANUFACTURING_STARTED" and view["claim"]["state"] == "confirmed")

    await wait_for(known_everywhere)
    await wait_for(lambda: _stored(partner, model))


async def _stored(partner: httpx.AsyncClient, model: str) -> bool:
    return bool((await partner.get(f"/v1/models/{model}")).json()["state"] == "stored")


async def _door_of_the_crm(cleo: Member, world: dict[str, Any]) -> None:
    model = world["desk's model"] = await an_uploaded_model(cleo)
    world["taken"] = await submit(cleo, model, customer={"name": "Taken"})
    body = {"model": model, "options": [{"alloy": "gold-14k", "finish": "polished"}]}
    quoted = await cleo.post("/v1/quotes", json=body, headers={"Idempotency-Key": new_id().hex})
    world["desk's quote"] = quoted.raise_for_status().json()["quote_id"]
    await _upload(cleo, world, "desk's parts")
    await wait_for(lambda: _stored(cleo, model))


async def _customers(cleo: Member, world: dict[str, Any]) -> None:
    async def added(name: str) -> dict[str, Any]:
        body = {"name": name, "phone": "+7 900 123-45-67"}
        answer: dict[str, Any] = (await cleo.post("/v1/customers", json=body)).raise_for_status().json()
        return answer

    customer, double = await added("Olga"), await added("Olga P.")
    world |= {"customer": customer["customer_id"], "double": double["customer_id"]}
    world["contact"] = customer["contacts"][0]["contact_id"]
    added_layout = (await cleo.post(f"/v1/orders/{world['at the desk']}/layouts", json={})).raise_for_status().json()
    world["layout"] = added_layout["layout_id"]
    sent = (await cleo.post(f"/v1/layouts/{world['layout']}/send")).raise_for_status().json()
    world["link"] = sent["token"]
    world["seller"] = str(cleo.staff_id)
    task = (await cleo.post("/v1/tasks", json={"text": "call", "due_on": "2030-01-01"})).raise_for_status().json()
    world["task"] = task["task_id"]


async def _hook(partner: Partner, world: dict[str, Any]) -> None:
    url = f"https://127.0.0.1:9/{new_id().hex}"
    hook = (await partner.post("/v1/hooks", json={"url": url})).raise_for_status().json()["hook_id"]
    sent = (await partner.post(f"/v1/hooks/{hook}/test")).raise_for_status().json()
    world |= {"hook": hook, "delivery": sent["webhook_id"]}


async def _shop(nora: Customer, world: dict[str, Any]) -> None:
    model = world["customer's model"] = await an_uploaded_model(nora)
    bought, spare = await submit(nora, model), await submit(nora, model)
    priced = await order_at(nora, bought, "PRICE_CALCULATED", seconds=30)
    await order_at(nora, spare, "PRICE_CALCULATED", seconds=30)
    world["bought"] = bought
    world["price in the shop"] = {"quote_id": priced["quote"]["quote_id"], "amount": priced["quote"]["amount"]}
    cancelled = await nora.post(f"/v1/orders/{spare}/cancel", json={"reason": "the matrix"})
    world["customer's cancellation"] = cancelled.raise_for_status().json()["command_id"]
    body = {"model": model, "options": [{"alloy": "gold-14k", "finish": "polished"}]}
    quoted = await nora.post("/v1/quotes", json=body, headers={"Idempotency-Key": new_id().hex})
    world["customer's quote"] = quoted.raise_for_status().json()["quote_id"]
    world["order's link"] = (await nora.post(f"/v1/orders/{bought}/links")).raise_for_status().json()["token"]
    me = (await nora.get("/v1/me")).raise_for_status().json()
    world |= {"customer's address": me["email"], "password": "battery staple"}  # changed by the row before
    sign_in = {"email": me["email"], "password": "correct horse"}
    world["spare session"] = (await nora.post("/v1/sign-in", json=sign_in)).raise_for_status().json()["session_id"]
    await _upload(nora, world, "customer's parts")
    await wait_for(lambda: _stored(nora, model))


async def _letters(stack: Stack, world: dict[str, Any]) -> None:
    """What came to somebody who has signed up and then lost their password."""
    async with await a_customer(stack) as spare:
        (await spare.post("/v1/password-letters", json={"email": spare.email})).raise_for_status()
        letters = await letters_to(stack, spare.email, 2)
    links = [letter["links"][0].rsplit("/", 2) for letter in letters]
    world |= {{"confirm": "confirmation", "password": "password letter"}[purpose]: token for _, purpose, token in links}


async def _layout_for_the_shop(stack: Stack, nora: Customer, cleo: Member, world: dict[str, Any]) -> None:
    async def known() -> bool:
        return (await cleo.get(f"/v1/orders/{world['bought']}")).status_code == 200

    await wait_for(known)
    added = (await cleo.post(f"/v1/orders/{world['bought']}/layouts", json={})).raise_for_status().json()
    world["layout for the shop"] = added["layout_id"]
    (await cleo.post(f"/v1/layouts/{added['layout_id']}/send")).raise_for_status()
    (letter,) = await letters_to(stack, nora.email, subject="The model of your order")
    world["mailed link"] = letter["links"][0].rpartition("/")[2]


async def _upload(partner: httpx.AsyncClient, world: dict[str, Any], name: str) -> None:
    content = a_model_file()
    digest = hashlib.sha256(content).hexdigest()
    body = {"name": "ring.stl", "size_bytes": len(content), "sha256": digest, "multipart": True}
    (await partner.post("/v1/models", json=body)).raise_for_status()
    world[name] = digest


# -- asking -----------------------------------------------------------------------------------------------------------


def wrong(table: Mapping[str, Row], found: Mapping[tuple[str, str], str]) -> list[str]:
    """Whom the services treat otherwise than the table says."""
    return [
        f"{route}: {caller}: {became}, not {table[route].becomes[caller]}"
        for (route, caller), became in found.items()
        if became != table[route].becomes[caller]
    ]


async def test_everybody_is_treated_as_the_table_says(matrix: Matrix) -> None:
    """First all who should be refused, and all who only look: everything is still there. Then, one by one and in the
    table's order, who may change something; that they get in shows that the others asked for what there was."""
    cases = [(route, caller) for route, row in TABLE.items() for caller in CALLERS]
    changing = [(r, c) for r, c in cases if TABLE[r].becomes[c] == IN and " GET " not in r]
    first = [case for case in cases if case not in set(changing)]
    answers = await asyncio.gather(*(matrix.becomes(r, TABLE[r], c) for r, c in first))
    found = dict(zip(first, answers, strict=True))
    assert not wrong(TABLE, found), "\n".join(wrong(TABLE, found))
    for route, caller in changing:
        found[route, caller] = await matrix.becomes(route, TABLE[route], caller)
    assert not wrong(TABLE, found), "\n".join(wrong(TABLE, found))
    assert len(found) == len(TABLE) * len(CALLERS)


@pytest.mark.parametrize(
    ("route", "caller", "instead"),
    [
        ("orders GET /v1/orders/{order_id}", "pricing", IN),
        ("partner_api GET /v1/orders/{order_id}", OTHER_PARTNER, IN),
        ("mes GET /v1/in-hand", OPERATOR, IN),
        ("crm GET /v1/staff", ADMINISTRATOR, MAY_NOT),
        ("partner_api GET /v1/keys", SUSPENDED, WHO),
    ],
)
async def test_who_is_treated_otherwise_is_named(matrix: Matrix, route: str, caller: str, instead: str) -> None:
    right = TABLE[route]
    seeded = {route: Row({**right.becomes, caller: instead}, right.objects, right.ask, right.scope, right.page)}
    found = {(route, caller): await matrix.becomes(route, right, caller)}
    assert wrong(seeded, found) == [f"{route}: {caller}: {right.becomes[caller]}, not {instead}"]
