"""HTTP of orders of every channel, for sellers."""

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
    Code,
    Hold,
    Order,
    Reason,
    Resume,
    Status,
)
from lostwax.contracts.staff import Role
from lostwax.crm import clients, desk_store, domain, handlers, selling
from lostwax.crm.desk_store import Filters
from lostwax.crm.domain import OrderLine, line
from lostwax.crm.handlers import Office
from lostwax.crm.selling import Column
from lostwax.kit.commands import CommandView
from lostwax.kit.http import Operation, Parameter, answer, path_uuid, query
from lostwax.kit.neighbours import Neighbour
from lostwax.kit.paging import AN_ID, page_parameters, rows_wanted
from lostwax.kit.problems import Problem
from lostwax.kit.staff import STAFF_AUTH, StaffDoor

SELLERS = (Role.SELLER, Role.ADMINISTRATOR)
LOOKERS = (*SELLERS, Role.SUPERVISOR)

Version = Annotated[int, Meta(ge=1, le=2**31 - 1, description="the version that you saw; left out: the newest known")]
Amount = Annotated[Decimal, Meta(description='a decimal as a string, e.g. "129.50"')]


class OrdersPage(msgspec.Struct, frozen=True):
    """Newest first. Ask for the next page with `after=<next>`; no `next`: that was all."""

    orders: list[OrderLine]
    next: UUID | None = None


class BoardView(msgspec.Struct, frozen=True):
    """`source` is `redis`, or `database` for one seller's board and while Redis is being rebuilt."""

    columns: list[Column]
    source: str


class OrderView(msgspec.Struct, frozen=True):
    """An order as it is now, as far as the CRM has heard. Version 0: accepted here, not yet confirmed by Orders."""

    order: Order
    code: str


class Step(msgspec.Struct, frozen=True):
    """One version of an order: what it became, from what, by whom, when and why, and the service that it came from."""

    version: int
    status: Status
    source: Status | None
    by: Actor
    at: datetime
    reason: str | None
    amount: Decimal | None
    service: str


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
    """The customer has it: since when, and who took it, as far as is known."""

    delivered_on: date | None = None
    received_by: Annotated[str, Meta(max_length=100)] = ""
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


def filters_of(request: Request) -> Filters:
    """The filters of a list in its address. Raises the 400 Problem."""
    name = Annotated[str, Meta(max_length=40)]
    return Filters(
        query(request, "status", Status, None),
        query(request, "seller", UUID, None),
        query(request, "customer", UUID, None),
        query(request, "channel", name, None),
        query(request, "alloy", name, None),
        query(request, "reference", Annotated[str, Meta(max_length=100)], None),
    )


def operations(office: Office, door: StaffDoor, orders: Neighbour) -> list[Operation]:
    """Orders of every channel, for sellers and administrators; supervisors look."""

    async def list_orders(request: Request) -> Response:
        await door.enter(request, *LOOKERS)
        limit = rows_wanted(request)
        before = query(request, "after", UUID, None)
        async with office.pool.acquire() as connection:
            found = await desk_store.orders_page(connection, filters_of(request), before, limit + 1)
        shown = [line(placed) for placed in found[:limit]]
        return answer(OrdersPage(shown, shown[-1].order_id if len(found) > limit else None))

    async def get_board(request: Request) -> Response:
        await door.enter(request, *LOOKERS)
        rows = rows_wanted(request, most=50, usual=12)
        seller_id = query(request, "seller", UUID, None)
        columns, source = await selling.board(office, seller_id, rows)
        return answer(BoardView(columns, source))

    async def get_order(request: Request) -> Response:
        await door.enter(request, *LOOKERS)
        order = await handlers.seen_order(office, path_uuid(request, "order_id", "order"))
        return answer(OrderView(order, short_code(order.order_id)))

    async def get_time_line(request: Request) -> Response:
        await door.enter(request, *LOOKERS)
        order_id = path_uuid(request, "order_id", "order")
        after = query(request, "after", Annotated[int, Meta(ge=0, le=2**31 - 1)], 0)
        await handlers.seen_order(office, order_id)
        versions = await clients.history(orders, order_id, after)
        steps = [step_of(version) for version in versions]
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
        member = await door.enter(request, *SELLERS)
        order_id = path_uuid(request, "order_id", "order")
        sent = await selling.close_order(office, member, order_id, body.delivered_on, body.received_by, body.version)
        return answer(sent, 202)

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
        *page_parameters(),
        Parameter("status", "query", {"type": "string", "enum": [s.value for s in Status]}, "only this status"),
        Parameter("seller", "query", dict(AN_ID), "only what this seller looks after"),
        Parameter("customer", "query", dict(AN_ID), "only this customer's"),
        Parameter("channel", "query", {"type": "string", "maxLength": 40}, "only from this door"),
        Parameter("alloy", "query", {"type": "string", "maxLength": 40}, "only of this alloy"),
        Parameter("reference", "query", {"type": "string", "maxLength": 100}, "references that begin so"),
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
        Operation(
            "GET",
            "/v1/board",
            get_board,
            "Orders that are not over, by status: how many, and those that have been there longest",
            {200: BoardView},
            look | {400: "a parameter is wrong"},
            parameters=(
                Parameter("limit", "query", {"type": "integer", "minimum": 1, "maximum": 50}, "orders of each status"),
                Parameter("seller", "query", dict(AN_ID), "only what this seller looks after"),
            ),
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


def step_of(order: Order) -> Step:
    """The step that led to a version of an order."""
    step = order.transition
    amount = order.quote.amount if order.quote else None
    service = domain.service_of(step.actor, order.channel)
    return Step(order.version, order.status, step.source, step.actor, step.at, step.reason, amount, service)
