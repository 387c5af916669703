"""HTTP of the CRM, for sellers, for administrators, and for other doors of the staff."""

import time
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import UNSET, Meta, UnsetType
from starlette.requests import Request
from starlette.responses import Response

from lostwax.contracts.ids import short_code
from lostwax.contracts.orders import (
    Action,
    Actor,
    Approve,
    Cancel,
    Close,
    Code,
    Hold,
    Order,
    Reason,
    Resume,
    Status,
)
from lostwax.contracts.staff import Role
from lostwax.crm import clients, domain, handlers, store
from lostwax.crm.handlers import Office
from lostwax.crm.sign_in import Failures
from lostwax.crm.store import StaffRow
from lostwax.kit.auth import BadCredentials, Member, ServiceVerifier, StaffSigner
from lostwax.kit.commands import CommandView
from lostwax.kit.http import Operation, Parameter, answer, bearer, path_uuid, query
from lostwax.kit.neighbours import Neighbour
from lostwax.kit.problems import Problem, unauthorized
from lostwax.kit.staff import STAFF_AUTH, StaffDoor

SELLERS = (Role.SELLER, Role.ADMINISTRATOR)
LOOKERS = (*SELLERS, Role.SUPERVISOR)

Version = Annotated[int, Meta(ge=1, le=2**31 - 1, description="the version that you saw; left out: the newest known")]
Amount = Annotated[Decimal, Meta(description='a decimal as a string, e.g. "129.50"')]
Name = Annotated[str, Meta(min_length=1, max_length=100, pattern=r"\S")]


class SignIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    badge: Annotated[str, Meta(min_length=1, max_length=200)]


class StaffView(msgspec.Struct, frozen=True):
    """A member of the staff. `active` false: withdrawn."""

    staff_id: UUID
    name: str
    role: Role
    active: bool
    created_at: datetime


class SignedIn(msgspec.Struct, frozen=True):
    """Send `token` with every request: Authorization: Bearer <token>. It ends at `expires_at`, or when the account is
    withdrawn or gets another role."""

    token: str
    expires_at: datetime
    staff: StaffView


class AddStaff(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: Name
    role: Role


class Added(msgspec.Struct, frozen=True):
    """A new member. The badge is shown this once."""

    staff: StaffView
    badge: str


class SetRole(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    role: Role


class StaffPage(msgspec.Struct, frozen=True):
    """In the order in which they came. Ask for the next page with `after=<next>`; no `next`: that was all."""

    staff: list[StaffView]
    next: UUID | None = None


class OrderLine(msgspec.Struct, frozen=True):
    """What a list shows of an order. `account` is whose it is, `maker` who has it in hand."""

    order_id: UUID
    code: str
    version: int
    status: Status
    account: UUID
    channel: str
    reference: str | None
    model_name: str
    alloy: str
    quantity: int
    submitted_at: datetime
    updated_at: datetime
    deadline: date | None
    amount: Decimal | None
    currency: str | None
    maker: str | None
    reason: str | None


class OrdersPage(msgspec.Struct, frozen=True):
    """Newest first. Ask for the next page with `after=<next>`; no `next`: that was all."""

    orders: list[OrderLine]
    next: UUID | None = None


class OrderView(msgspec.Struct, frozen=True):
    """An order as it is now, as far as the CRM has heard."""

    order: Order
    code: str


class Step(msgspec.Struct, frozen=True):
    """One version of an order: what it became, from what, by whom, when and why."""

    version: int
    status: Status
    source: Status | None
    by: Actor
    at: datetime
    reason: str | None
    amount: Decimal | None


class TimeLine(msgspec.Struct, frozen=True):
    """Oldest first. Ask for the next page with `after=<next>`; no `next`: that was all."""

    steps: list[Step]
    next: int | None = None


class ApproveOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The price that the customer agreed to, by its id and amount, so that none is approved that nobody saw."""

    quote_id: UUID
    amount: Amount
    version: Version | None = None


class HoldOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    reason: Reason
    version: Version | None = None


class CancelOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    reason: Reason
    version: Version | None = None


class ResumeOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: Version | None = None


class CloseOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The customer has it."""

    version: Version | None = None


class ResubmitOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is to be otherwise than before; what is left out stays. `{}` asks for the price once more as it was."""

    alloy: Code | UnsetType = UNSET
    finish: Code | UnsetType = UNSET
    quantity: Annotated[int, Meta(ge=1, le=1000)] | UnsetType = UNSET
    ring_size: Annotated[float, Meta(ge=38, le=80)] | UnsetType | None = UNSET
    scale: Annotated[float, Meta(ge=0.1, le=10)] | UnsetType | None = UNSET
    engraving: Annotated[str, Meta(min_length=1, max_length=60)] | UnsetType | None = UNSET
    deadline: date | UnsetType | None = UNSET
    version: Version | None = None


def sign_in_operation(office: Office, signer: StaffSigner, verifier: ServiceVerifier) -> Operation:
    """Sign-in, by anybody with a badge. Another door of the staff passes on the address that the badge came from."""
    failures = Failures()

    async def sign_in(request: Request, body: SignIn) -> Response:
        address = _address(request, verifier)
        wait_s = failures.wait_s(address, time.monotonic())
        if wait_s:
            raise Problem(
                429,
                "too-many-failures",
                "Too many badges from here were unknown",
                f"Try again in {wait_s} s.",
                headers={"Retry-After": str(wait_s)},
            )
        holder = await handlers.badge_holder(office, body.badge)
        if holder is None:
            failures.failed(address, time.monotonic())
            raise unauthorized("This badge is not known, or was withdrawn.")
        member = Member(holder.staff_id, holder.name, holder.role, holder.version)
        token, expires_at = signer.token(member, office.now(), domain.SHIFT)
        return answer(SignedIn(token, expires_at, _staff_view(holder)), headers={"Cache-Control": "no-store"})

    return Operation(
        "POST",
        "/v1/sign-in",
        sign_in,
        "Sign in with a badge, for a shift of twelve hours",
        {200: SignedIn},
        {401: "no such badge", 429: "too many unknown badges from this address; see Retry-After"},
        body=SignIn,
    )


def _address(request: Request, verifier: ServiceVerifier) -> str:
    """Where a badge came from: what a service of ours says by X-Forwarded-For, else the other end of the line."""
    forwarded, token = request.headers.get("x-forwarded-for"), bearer(request)
    if forwarded is not None and token is not None:
        try:
            verifier.caller(token)
        except BadCredentials as error:
            raise unauthorized(str(error)) from None
        return forwarded[:100]
    return request.client.host if request.client is not None else ""


def staff_operations(office: Office, door: StaffDoor) -> list[Operation]:
    """Accounts, for administrators."""

    async def list_staff(request: Request) -> Response:
        await door.enter(request, Role.ADMINISTRATOR)
        limit = query(request, "limit", Annotated[int, Meta(ge=1, le=200)], 50)
        after = query(request, "after", UUID, None)
        async with office.pool.acquire() as connection:
            rows = await store.staff_page(connection, after, limit + 1)
        shown = [_staff_view(row) for row in rows[:limit]]
        return answer(StaffPage(shown, shown[-1].staff_id if len(rows) > limit else None))

    async def add_staff(request: Request, body: AddStaff) -> Response:
        await door.enter(request, Role.ADMINISTRATOR)
        async with office.pool.acquire() as connection:
            row, badge = await handlers.add_staff(connection, body.name, body.role, office.now())
        return answer(Added(_staff_view(row), badge), 201, {"Cache-Control": "no-store"})

    async def withdraw_staff(request: Request) -> Response:
        await door.enter(request, Role.ADMINISTRATOR)
        staff_id = path_uuid(request, "staff_id", "member of the staff")
        async with office.pool.acquire() as connection:
            return answer(_staff_view(await handlers.withdraw_staff(connection, staff_id, office.now())))

    async def set_role(request: Request, body: SetRole) -> Response:
        await door.enter(request, Role.ADMINISTRATOR)
        staff_id = path_uuid(request, "staff_id", "member of the staff")
        async with office.pool.acquire() as connection:
            return answer(_staff_view(await handlers.set_role(connection, staff_id, body.role)))

    role = {403: "for administrators"}
    absent = role | {404: "no such member"}
    page = (
        Parameter("limit", "query", {"type": "integer", "minimum": 1, "maximum": 200, "default": 50}, "rows a page"),
        Parameter("after", "query", {"type": "string", "format": "uuid"}, "`next` of the page before"),
    )
    return [
        Operation(
            "GET",
            "/v1/staff",
            list_staff,
            "Everybody who works here, or did",
            {200: StaffPage},
            role | {400: "a parameter is wrong"},
            parameters=page,
            auth=STAFF_AUTH,
        ),
        Operation(
            "POST",
            "/v1/staff",
            add_staff,
            "Add a member of the staff; shows the badge this once",
            {201: Added},
            role,
            body=AddStaff,
            auth=STAFF_AUTH,
        ),
        Operation(
            "POST",
            "/v1/staff/{staff_id}/withdraw",
            withdraw_staff,
            "End an account; whoever is signed in by it is refused at once",
            {200: StaffView},
            absent,
            auth=STAFF_AUTH,
        ),
        Operation(
            "POST",
            "/v1/staff/{staff_id}/role",
            set_role,
            "Give a member another role; they sign in again",
            {200: StaffView},
            absent | {409: "the account was withdrawn"},
            body=SetRole,
            auth=STAFF_AUTH,
        ),
    ]


def order_operations(office: Office, door: StaffDoor, orders: Neighbour) -> list[Operation]:
    """Orders of every channel, for sellers and administrators; supervisors look."""

    async def list_orders(request: Request) -> Response:
        await door.enter(request, *LOOKERS)
        limit = query(request, "limit", Annotated[int, Meta(ge=1, le=200)], 50)
        before = query(request, "after", UUID, None)
        status = query(request, "status", Status, None)
        async with office.pool.acquire() as connection:
            found = await store.orders_page(connection, status, before, limit + 1)
        shown = [_line(order) for order in found[:limit]]
        return answer(OrdersPage(shown, shown[-1].order_id if len(found) > limit else None))

    async def get_order(request: Request) -> Response:
        await door.enter(request, *LOOKERS)
        order = await handlers.known_order(office, path_uuid(request, "order_id", "order"))
        return answer(OrderView(order, short_code(order.order_id)))

    async def get_time_line(request: Request) -> Response:
        await door.enter(request, *LOOKERS)
        order_id = path_uuid(request, "order_id", "order")
        after = query(request, "after", Annotated[int, Meta(ge=0, le=2**31 - 1)], 0)
        await handlers.known_order(office, order_id)
        versions = await clients.history(orders, order_id, after)
        steps = [_step(version) for version in versions]
        return answer(TimeLine(steps, steps[-1].version if len(steps) == 100 else None))

    async def _wish(request: Request, action: str, wish: Action, version: int | None) -> Response:
        member = await door.enter(request, *SELLERS)
        order_id = path_uuid(request, "order_id", "order")
        return answer(await handlers.command(office, member, order_id, action, wish, version), 202)

    async def approve_order(request: Request, body: ApproveOrder) -> Response:
        if not body.amount.is_finite():
            raise Problem(422, "out-of-range", "The amount is out of range", "amount: a number.")
        return await _wish(request, "approve", Approve(body.quote_id, body.amount), body.version)

    async def hold_order(request: Request, body: HoldOrder) -> Response:
        return await _wish(request, "hold", Hold(body.reason), body.version)

    async def resume_order(request: Request, body: ResumeOrder) -> Response:
        return await _wish(request, "resume", Resume(), body.version)

    async def cancel_order(request: Request, body: CancelOrder) -> Response:
        return await _wish(request, "cancel", Cancel(body.reason), body.version)

    async def close_order(request: Request, body: CloseOrder) -> Response:
        return await _wish(request, "close", Close(), body.version)

    async def resubmit_order(request: Request, body: ResubmitOrder) -> Response:
        member = await door.enter(request, *SELLERS)
        order_id = path_uuid(request, "order_id", "order")
        fields = msgspec.structs.asdict(body)
        version = fields.pop("version")
        changes = {name: value for name, value in fields.items() if value is not UNSET}
        return answer(await handlers.resubmit_order(office, member, order_id, changes, version), 202)

    async def get_command(request: Request) -> Response:
        await door.enter(request, *LOOKERS)
        return answer(await handlers.find_command(office, path_uuid(request, "command_id", "command")))

    page = (
        Parameter("limit", "query", {"type": "integer", "minimum": 1, "maximum": 200, "default": 50}, "rows a page"),
        Parameter("after", "query", {"type": "string", "format": "uuid"}, "`next` of the page before"),
        Parameter("status", "query", {"type": "string", "enum": [s.value for s in Status]}, "only this status"),
    )
    look = {403: "for sellers, supervisors and administrators"}
    absent = look | {404: "no such order"}

    def wish(name: str, endpoint: object, summary: str, body: type[msgspec.Struct]) -> Operation:
        return Operation(
            "POST",
            f"/v1/orders/{{order_id}}/{name}",
            endpoint,  # type: ignore[arg-type]
            summary,
            {202: CommandView},
            {
                403: "for sellers and administrators",
                404: "no such order",
                409: "known to be refused; `changed` says what happened to the order, and who did it",
            },
            body=body,
            auth=STAFF_AUTH,
        )

    return [
        Operation(
            "GET",
            "/v1/orders",
            list_orders,
            "Orders of every channel, newest first",
            {200: OrdersPage},
            look | {400: "a parameter is wrong"},
            parameters=page,
            auth=STAFF_AUTH,
        ),
        Operation("GET", "/v1/orders/{order_id}", get_order, "One order", {200: OrderView}, absent, auth=STAFF_AUTH),
        Operation(
            "GET",
            "/v1/orders/{order_id}/time-line",
            get_time_line,
            "Everything that happened to an order, from Orders' history",
            {200: TimeLine},
            absent | {400: "a parameter is wrong", 503: "Orders is away; the order itself can still be read"},
            parameters=(Parameter("after", "query", {"type": "integer", "default": 0}, "versions above this one"),),
            auth=STAFF_AUTH,
        ),
        wish("approve", approve_order, "Approve the price for the customer", ApproveOrder),
        wish("hold", hold_order, "Put an order on hold", HoldOrder),
        wish("resume", resume_order, "End a hold: back to the status that the order left", ResumeOrder),
        wish("cancel", cancel_order, "Cancel an order that is not shipped", CancelOrder),
        wish("close", close_order, "The customer has it", CloseOrder),
        wish("resubmit", resubmit_order, "Change an order or ask for its price again", ResubmitOrder),
        Operation(
            "GET",
            "/v1/commands/{command_id}",
            get_command,
            "What became of what was asked for",
            {200: CommandView},
            look | {404: "no such command"},
            auth=STAFF_AUTH,
        ),
    ]


def _staff_view(row: StaffRow) -> StaffView:
    return StaffView(row.staff_id, row.name, row.role, row.withdrawn_at is None, row.created_at)


def _line(order: Order) -> OrderLine:
    specification = order.specification
    return OrderLine(
        order_id=order.order_id,
        code=short_code(order.order_id),
        version=order.version,
        status=order.status,
        account=order.account,
        channel=order.channel,
        reference=order.reference,
        model_name=specification.model.name,
        alloy=specification.alloy,
        quantity=specification.quantity,
        submitted_at=order.submitted_at,
        updated_at=order.updated_at,
        deadline=specification.deadline,
        amount=order.quote.amount if order.quote else None,
        currency=order.quote.currency if order.quote else None,
        maker=order.maker.name if order.maker else None,
        reason=order.transition.reason,
    )


def _step(order: Order) -> Step:
    step = order.transition
    amount = order.quote.amount if order.quote else None
    return Step(order.version, order.status, step.source, step.actor, step.at, step.reason, amount)
