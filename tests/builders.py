"""What tests are made of: plain functions that build messages, or do by HTTP what a partner and an operator do."""

import asyncio
import hashlib
import inspect
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import msgspec
from confluent_kafka import ConsumerGroupState, KafkaException
from confluent_kafka import Message as KafkaMessage
from confluent_kafka.admin import AdminClient

from lostwax import samples
from lostwax.channel.clients import OrderViews
from lostwax.contracts.ids import new_id
from lostwax.contracts.orders import (
    Action,
    Actor,
    ActorKind,
    Command,
    Geometry,
    ModelRef,
    OnHold,
    Order,
    OrderRequested,
    PriceFailure,
    PriceLine,
    Quote,
    Shipment,
    Specification,
    Status,
    Transition,
)
from lostwax.contracts.pricing import NotPriced, Priced, PriceResult
from lostwax.contracts.quotes import QuoteRequested
from lostwax.contracts.staff import Role
from lostwax.crm.handlers import add_staff
from lostwax.kit.auth import ServiceSigner
from lostwax.kit.clock import utc_now
from lostwax.kit.kafka import OutgoingRecord
from lostwax.kit.kafka_reading import read_to_end
from lostwax.kit.postgres import Pool
from lostwax.local.services import SPINE
from lostwax.local.stack import Stack
from lostwax.partner_api.changes import REQUESTS
from lostwax.partner_api.keys import add_client
from lostwax.samples.files import binary

NOON = datetime(2026, 11, 2, 12, 0, 0, 123_000, tzinfo=UTC)
ACCOUNT = UUID("0197f0a0-0000-7000-8000-00000000acc1")
PARTNER = Actor(kind=ActorKind.PARTNER, id=str(ACCOUNT), name="Partner & Co", account=ACCOUNT)
OPERATOR = Actor(kind=ActorKind.OPERATOR, id="0197f0a0-0000-7000-8000-0000000000a1", name="Ada")
OTHER_OPERATOR = Actor(kind=ActorKind.OPERATOR, id="0197f0a0-0000-7000-8000-0000000000b2", name="Ben")
SELLER = Actor(kind=ActorKind.SELLER, id="0197f0a0-0000-7000-8000-0000000000c3", name="Cleo")
SYSTEM = Actor(kind=ActorKind.SYSTEM, id="orders", name="Orders")
NOT_CLOSED = PriceFailure(code="not_closed", detail="The surface has a hole.", mended_by="customer")

VERSION_AT: Mapping[Status, int] = {
    Status.SUBMITTED: 1,
    Status.PRICE_CALCULATED: 2,
    Status.PRICE_FAILED: 2,
    Status.MANUFACTURING_APPROVED: 3,
    Status.MANUFACTURING_STARTED: 4,
    Status.MANUFACTURING_COMPLETED: 5,
    Status.PACKAGING: 6,
    Status.SHIPPED: 7,
    Status.CLOSED: 8,
    Status.REWORK: 6,
    Status.ON_HOLD: 4,
    Status.CANCELLED: 4,
}
"""The version at which an order that went straight there has each status."""

_UNPRICED = (Status.SUBMITTED, Status.PRICE_FAILED)
_UNAPPROVED = (*_UNPRICED, Status.PRICE_CALCULATED)
_IN_HAND = (Status.MANUFACTURING_STARTED, Status.MANUFACTURING_COMPLETED, Status.PACKAGING, Status.SHIPPED)


def a_digest() -> str:
    """A sha-256 that no file has."""
    return hashlib.sha256(new_id().bytes).hexdigest()


def a_specification(**changes: Any) -> Specification:
    model = ModelRef(sha256=a_digest(), size_bytes=100_084, name="ring.stl")
    whole = Specification(model=model, alloy="gold-14k", finish="polished", quantity=1, ring_size=54.0)
    return msgspec.structs.replace(whole, **changes)


def a_geometry(**changes: Any) -> Geometry:
    whole = Geometry(volume_mm3=412.5, area_mm2=890.25, box_mm=(21.0, 21.0, 4.0), triangles=2_000, closed=True)
    return msgspec.structs.replace(whole, **changes)


def a_quote(**changes: Any) -> Quote:
    """Held from NOON for a fortnight, 129.50 EUR."""
    line = PriceLine(
        code="metal",
        name="Gold 14K",
        quantity=Decimal("5.39"),
        unit="g",
        unit_price=Decimal("24.03"),
        amount=Decimal("129.50"),
    )
    whole = Quote(
        quote_id=new_id(),
        amount=Decimal("129.50"),
        currency="EUR",
        lines=(line,),
        geometry=a_geometry(),
        tariff_version="2026-11",
        priced_at=NOON,
        expires_at=NOON + timedelta(days=14),
    )
    return msgspec.structs.replace(whole, **changes)


def an_order(status: Status = Status.SUBMITTED, **changes: Any) -> Order:
    """An order that went straight to `status`: the version, price, maker and parcel are as they would be."""
    whole = Order(
        order_id=new_id(),
        version=VERSION_AT[status],
        status=status,
        account=ACCOUNT,
        channel="partner_api",
        reference="PO-1",
        specification=a_specification(),
        submitted_at=NOON,
        updated_at=NOON,
        transition=Transition(source=None, target=status, actor=PARTNER, at=NOON),
        quote=None if status in _UNPRICED else a_quote(),
        failure=NOT_CLOSED if status is Status.PRICE_FAILED else None,
        approved_at=None if status in _UNAPPROVED else NOON,
        maker=OPERATOR if status in _IN_HAND else None,
        shipment=Shipment("DHL", "42") if status is Status.SHIPPED else None,
        on_hold=OnHold(Status.MANUFACTURING_APPROVED, "wait", NOON) if status is Status.ON_HOLD else None,
    )
    return msgspec.structs.replace(whole, **changes)


def a_request(**changes: Any) -> OrderRequested:
    whole = OrderRequested(
        order_id=new_id(),
        account=ACCOUNT,
        channel="partner_api",
        specification=a_specification(),
        requested_at=NOON,
        reference="PO-1",
    )
    return msgspec.structs.replace(whole, **changes)


def a_quote_request(*options: Specification, **changes: Any) -> QuoteRequested:
    """A request for prices of one model, in two alloys unless told otherwise."""
    one = a_specification()
    whole = QuoteRequested(
        quote_id=new_id(),
        account=ACCOUNT,
        channel="partner_api",
        options=options or (one, msgspec.structs.replace(one, alloy="sterling-925")),
        requested_at=NOON,
        reference="Q-1",
    )
    return msgspec.structs.replace(whole, **changes)


def a_command(order: Order, action: Action, actor: Actor = OPERATOR, **changes: Any) -> Command:
    """A wish by somebody who saw the order as it is."""
    whole = Command(
        command_id=new_id(),
        order_id=order.order_id,
        actor=actor,
        seen_version=order.version,
        issued_at=NOON,
        action=action,
    )
    return msgspec.structs.replace(whole, **changes)


def a_price(job_id: UUID, subject_id: UUID, amount: str = "129.50", failure: PriceFailure | None = None) -> PriceResult:
    """The answer to a price job."""
    quote = a_quote()
    priced = Priced(amount=Decimal(amount), lines=quote.lines, geometry=quote.geometry)
    return PriceResult(
        job_id=job_id,
        subject_id=subject_id,
        currency="EUR",
        tariff_version="2026-11",
        result=priced if failure is None else NotPriced(failure),
    )


class Partner(httpx.AsyncClient):
    """A partner's program: speaks to the partner API with its key."""

    client_id: UUID
    key: str


class Member(httpx.AsyncClient):
    """A member of the staff, signed in: speaks to one of the staff's doors with their token."""

    staff_id: UUID
    name: str
    badge: str
    token: str

    @property
    def operator_id(self) -> UUID:
        return self.staff_id


Operator = Member


async def a_partner(stack: Stack, name: str = "Partner & Co", *, unlimited: bool = True) -> Partner:
    """A new partner, let in as `lostwax partner add` does, without a limit on its requests unless a test asks for the
    usual one. The caller closes it."""
    connection = await asyncpg.connect(stack.env("partner_api")["LOSTWAX_DATABASE_URL"], timeout=5)
    try:
        client, key = await add_client(connection, name, unlimited=unlimited)
    finally:
        await connection.close()
    partner = Partner(base_url=stack.url("partner_api"), headers={"Authorization": f"Bearer {key}"}, timeout=20)
    partner.client_id, partner.key = client.client_id, key
    return partner


class Customer(httpx.AsyncClient):
    """Who buys in the shop, with an HTTP client at its door."""

    customer_id: UUID
    token: str
    email: str


async def a_customer(stack: Stack, name: str = "Nora", *, guest: bool = False) -> Customer:
    """A customer who has signed up, or a guest who has said where they are reached. The caller closes it."""
    contact = {"email": f"{new_id().hex}@example.org", "name": name}
    async with httpx.AsyncClient(base_url=stack.url("shop"), timeout=20) as shop:
        if guest:
            entered = await shop.post("/v1/guests", json={})
        else:
            entered = await shop.post("/v1/customers", json={**contact, "password": "correct horse"})
        told = entered.raise_for_status().json()
        headers = {"Authorization": f"Bearer {told['token']}"}
        if guest:
            (await shop.put("/v1/me", json=contact, headers=headers)).raise_for_status()
    customer = Customer(base_url=stack.url("shop"), headers=headers, timeout=20)
    customer.token, customer.customer_id, customer.email = told["token"], UUID(told["customer_id"]), contact["email"]
    return customer


async def letters_to(stack: Stack, address: str, at_least: int = 1, subject: str = "") -> list[dict[str, Any]]:
    """The letters that have come to an address, the oldest first, once there are so many, of those whose subject holds
    `subject`."""

    async def came() -> list[dict[str, Any]] | None:
        async with httpx.AsyncClient(base_url=stack.url("mail"), timeout=20) as box:
            told = (await box.get("/letters.json", params={"to": address})).raise_for_status().json()
        found = [letter for letter in told["letters"] if subject in letter["subject"]]
        return found if len(found) >= at_least else None

    return await wait_for(came, 30)


async def a_member(stack: Stack, role: Role, name: str, *, door: str = "crm") -> Member:
    """A new member of the staff, let in as `lostwax staff add` does, signed in, at the door of a service. The caller
    closes it."""
    connection = await asyncpg.connect(stack.env("crm")["LOSTWAX_DATABASE_URL"], timeout=5)
    try:
        row, badge = await add_staff(connection, name, role, datetime.now(UTC))
    finally:
        await connection.close()
    async with httpx.AsyncClient(base_url=stack.url("crm"), timeout=20) as crm:
        token = (await crm.post("/v1/sign-in", json={"badge": badge})).raise_for_status().json()["token"]
    member = Member(base_url=stack.url(door), headers={"Authorization": f"Bearer {token}"}, timeout=20)
    member.staff_id, member.name, member.badge, member.token = row.staff_id, name, badge, token
    return member


async def an_operator(stack: Stack, name: str = "Ada") -> Operator:
    """A new operator at the MES. The caller closes it."""
    return await a_member(stack, Role.OPERATOR, name, door="mes")


def a_model_file() -> bytes:
    """A sound ring, some 100 kB, of a width that no other has."""
    width = Random(new_id().int).uniform(2, 6)
    return binary(samples.band(size=54, width=width, around=64, across=8).triangles)


async def register_model(
    partner: Partner, content: bytes, *, name: str = "ring.stl", sha256: str | None = None
) -> tuple[str, dict[str, Any]]:
    """Announce a file; returns its digest and the model as the API shows it, with the link to upload it."""
    digest = sha256 or hashlib.sha256(content).hexdigest()
    response = await partner.post(
        "/v1/models", json={"name": name, "size_bytes": max(1, len(content)), "sha256": digest}
    )
    assert response.status_code in (200, 201), response.text
    return digest, response.json()


async def put_file(upload: Mapping[str, Any], content: bytes) -> httpx.Response:
    """Send a file to the link that a registration gave."""
    async with httpx.AsyncClient(timeout=20) as http:
        return await http.put(upload["url"], content=content, headers=upload["headers"])


async def an_uploaded_model(partner: Partner, content: bytes | None = None) -> str:
    """A model of the partner's in staging, ready to be ordered; returns its digest."""
    content = a_model_file() if content is None else content
    digest, model = await register_model(partner, content)
    if model.get("upload"):
        response = await put_file(model["upload"], content)
        assert response.status_code == 200, response.text
    return digest


def order_body(model: str, **changes: Any) -> dict[str, Any]:
    return {"model": model, "alloy": "gold-14k", "finish": "polished", "ring_size": 54, **changes}


async def submit(partner: Partner, model: str, *, key: str | None = None, **changes: Any) -> str:
    """Order a piece; returns the order's id."""
    response = await partner.post(
        "/v1/orders", json=order_body(model, **changes), headers={"Idempotency-Key": key or new_id().hex}
    )
    assert response.status_code == 202, response.text
    return str(response.json()["order_id"])


async def order_at(partner: Partner, order_id: str, *statuses: str, seconds: float = 20) -> dict[str, Any]:
    """The partner's order once it stands at one of `statuses`."""

    async def there() -> dict[str, Any] | None:
        order: dict[str, Any] = (await partner.get(f"/v1/orders/{order_id}")).raise_for_status().json()
        return order if order["status"] in statuses else None

    return await wait_for(there, seconds)


async def an_approved_order(partner: Partner, model: str | None = None, **changes: Any) -> str:
    """An order of the partner's that waits for an operator; returns its id."""
    model = model or await an_uploaded_model(partner)
    order_id = await submit(partner, model, approve_up_to="1000000", **changes)
    await order_at(partner, order_id, "MANUFACTURING_APPROVED")
    return order_id


def problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The problem that a response must be."""
    assert response.headers["content-type"] == "application/problem+json", response.text
    body: dict[str, Any] = response.json()
    assert (response.status_code, body["type"], body["status"]) == (status, f"/problems/{code}", status), body
    return body


async def ship_by_api(partner: Partner, operator: Operator, order_id: str) -> None:
    """The operator takes an approved order, makes, packs and ships it; ends when the partner sees it shipped."""
    await order_at(partner, order_id, "MANUFACTURING_APPROVED", "REWORK", seconds=30)
    steps = {
        "claim": (200, "MANUFACTURING_STARTED", None),
        "complete": (202, "MANUFACTURING_COMPLETED", None),
        "pack": (202, "PACKAGING", None),
        "ship": (202, "SHIPPED", {"carrier": "DHL", "tracking_number": "42"}),
    }
    for step, (status, leads_to, body) in steps.items():

        async def taken(step: str = step, status: int = status, body: object = body) -> bool:
            # 409 and 404: the MES has not heard of the step before yet.
            return (await operator.post(f"/v1/orders/{order_id}/{step}", json=body)).status_code == status

        await wait_for(taken)
        await order_at(partner, order_id, leads_to)


async def wait_for(condition: Callable[[], Any | Awaitable[Any]], seconds: float = 20) -> Any:
    """The first true value of `condition`, a plain or async function asked again and again. Fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not so within {seconds} s: {condition.__qualname__}, last {value!r}")
        await asyncio.sleep(0.02)


def wait_all_read(stack: Stack, seconds: float = 90) -> None:
    """Until the services that orders pass through read Kafka. They are ready before that, since none needs Kafka to
    take an order; Kafka, just started on a busy machine, has kept them waiting for half a minute."""
    groups = [process.name for process in stack.status() if process.name in SPINE and process.state == "ready"]
    admin = AdminClient({"bootstrap.servers": stack.env("orders")["LOSTWAX_KAFKA_BOOTSTRAP"], "log_level": 0})
    deadline = time.monotonic() + seconds
    while waited_for := [group for group in groups if not _is_read_by(admin, group)]:
        assert time.monotonic() < deadline, f"after {seconds} s Kafka is not read by {', '.join(waited_for)}"
        time.sleep(0.2)


def _is_read_by(admin: AdminClient, group: str) -> bool:
    try:
        described = admin.describe_consumer_groups([group], request_timeout=10)[group].result(timeout=15)
    except (KafkaException, TimeoutError):
        return False
    return bool(described.state == ConsumerGroupState.STABLE and described.members)


def own_redis(stack: Stack, database: int = 9) -> str:
    """A Redis database that no service uses."""
    return f"{stack.env('mes')['LOSTWAX_REDIS_URL'].rpartition('/')[0]}/{database}"


def order_views(stack: Stack, dsn: str, pool: Pool, cached: timedelta = timedelta(days=30)) -> OrderViews:
    """Partners' orders in a Redis of its own, as the partner API wires them; the caller runs and closes it."""
    return OrderViews("partner_api", own_redis(stack), dsn, pool, REQUESTS, cached=cached, now=utc_now)


def service_token(stack: Stack, caller: str, audience: str) -> str:
    """What `caller` sends with a request to `audience`."""
    return ServiceSigner(caller, stack.env(caller)["LOSTWAX_SERVICE_KEY"]).token(audience)


def as_record(topic: str, partition: int, type_name: str, payload: bytes, key: str = "k") -> OutgoingRecord:
    """A record as the relay would send it; `type_name` "" leaves the type out."""
    headers = {"ce_id": str(new_id()), "ce_source": "test", **({"ce_type": type_name} if type_name else {})}
    return OutgoingRecord(topic, key, payload, headers, partition)


def records_of(bootstrap: str, topics: Sequence[str]) -> list[KafkaMessage]:
    """Everything that stands in these topics now, in the order of each partition."""
    return read_to_end(bootstrap, dict.fromkeys(topics), limit_s=20)
