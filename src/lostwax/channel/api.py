"""HTTP of a door's orders. `auth`: how its customers show who they are."""

from datetime import date
from decimal import Decimal
from types import TracebackType
from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import UNSET, Meta, UnsetType
from starlette.requests import Request
from starlette.responses import Response

from lostwax.channel import handlers, store
from lostwax.channel.callers import calling_client
from lostwax.channel.domain import Scope
from lostwax.channel.handlers import Beside, Door, Wish
from lostwax.channel.views import OrderView
from lostwax.contracts.ids import short_code
from lostwax.contracts.orders import (
    AcceptedQuote,
    Code,
    Sha256,
    Status,
)
from lostwax.kit.auth import ServiceVerifier
from lostwax.kit.commands import CommandView
from lostwax.kit.http import Operation, Parameter, answer, header, path_uuid, query
from lostwax.kit.objects import StorageAway
from lostwax.kit.paging import page_parameters, rows_wanted
from lostwax.kit.problems import Problem, not_found, try_later
from lostwax.kit.service_calls import CONSOLE, SERVICE_AUTH, for_services

Amount = Annotated[Decimal, Meta(description='a decimal as a string, e.g. "129.50"')]


class OrderByQuote(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The price to order at: your quote, the number of its option, and the amount that you saw."""

    quote_id: UUID
    option: Annotated[int, Meta(ge=1, le=24)]
    amount: Amount


class SubmitOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An order. Lengths in mm. Give a ring size (EU) or a scale, or neither: the model is made as it is drawn. With a
    `quote`, the order is approved at that price at once; should the quote not hold when the order is taken up, it is
    priced anew and approved up to that amount."""

    model: Sha256
    alloy: Code
    finish: Code
    quantity: Annotated[int, Meta(ge=1, le=1000)] = 1
    ring_size: Annotated[float, Meta(ge=38, le=80)] | None = None
    scale: Annotated[float, Meta(ge=0.1, le=10)] | None = None
    engraving: Annotated[str, Meta(min_length=1, max_length=60)] | None = None
    deadline: date | None = None
    reference: Annotated[str, Meta(max_length=100)] | None = None
    approve_up_to: Amount | None = None
    quote: OrderByQuote | None = None


class Accepted(msgspec.Struct, frozen=True):
    order_id: UUID
    code: str
    status: Status


class AcceptPrice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The price you accept, by its id and amount, so that you never accept one that you did not see."""

    quote_id: UUID
    amount: Amount


class CancelOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    reason: Annotated[str, Meta(min_length=1, max_length=200)]


class ResubmitOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is to be otherwise than before; what is left out stays. `{}` asks for the price once more as it was."""

    model: Sha256 | UnsetType = UNSET
    alloy: Code | UnsetType = UNSET
    finish: Code | UnsetType = UNSET
    quantity: Annotated[int, Meta(ge=1, le=1000)] | UnsetType = UNSET
    ring_size: Annotated[float, Meta(ge=38, le=80)] | UnsetType | None = UNSET
    scale: Annotated[float, Meta(ge=0.1, le=10)] | UnsetType | None = UNSET
    engraving: Annotated[str, Meta(min_length=1, max_length=60)] | UnsetType | None = UNSET
    deadline: date | UnsetType | None = UNSET


class OrdersPage(msgspec.Struct, frozen=True):
    """Newest first. Ask for the next page with `after=<next>`; no `next`: that was all. `source` is `redis`, or
    `database` for old orders and while Redis is being rebuilt: then it is slower, and just as true."""

    orders: list[OrderView]
    source: str
    next: UUID | None = None


class Resend(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Orders and quotes whose requests are to be sent once more."""

    order_ids: Annotated[list[UUID], Meta(max_length=1000)] = []
    quote_ids: Annotated[list[UUID], Meta(max_length=1000)] = []


class Resent(msgspec.Struct, frozen=True):
    """How many requests were put into the outbox again; those that still wait there are not."""

    resent: int


def resend_operation(door: Door, verifier: ServiceVerifier) -> Operation:
    """For Orders and the audit: send requests that did not arrive once more."""

    async def resend_requests(_: Request, body: Resend) -> Response:
        return answer(Resent(await handlers.resend_requests(door, body.order_ids, body.quote_ids)), 202)

    operation = Operation(
        "POST",
        "/v1/requests/resend",
        resend_requests,
        "Send requests that did not arrive at Orders once more",
        {202: Resent},
        body=Resend,
        auth=SERVICE_AUTH,
        callers=("orders", CONSOLE),
    )
    return for_services([operation], verifier)[0]


SUBMIT_PROBLEMS = {
    409: "the model is not uploaded or was refused, or the quote has expired or another amount",
    422: "does not fit, unknown model or quote, or the Idempotency-Key was used for another order",
}

IDEMPOTENCY_KEY = Parameter(
    "Idempotency-Key", "header", {"type": "string", "maxLength": 200}, "fresh for each order or quote", required=True
)


def idempotency_key(request: Request, what: str) -> str:
    """The key under which a request is sent, however often. Raises the 400 Problem."""
    key = header(request, b"idempotency-key")
    if not key or len(key) > 200 or not key.isprintable():
        raise Problem(
            400,
            "idempotency-key-missing",
            "Send an Idempotency-Key",
            f"A header of 1 to 200 printable characters, fresh for each {what}, so that sending twice is safe.",
        )
    return key


def _accepted_quote(body: SubmitOrder) -> AcceptedQuote | None:
    quote = body.quote
    if quote is None:
        return None
    if body.approve_up_to is not None:
        raise Problem(
            422, "quote-or-approval", "Give a quote or a standing approval, not both", "Leave out `approve_up_to`."
        )
    if not quote.amount.is_finite():
        raise Problem(422, "out-of-range", "The amount is out of range", "amount: a number.")
    return AcceptedQuote(quote.quote_id, quote.option, quote.amount)


async def accept_order(door: Door, request: Request, body: SubmitOrder, beside: Beside | None = None) -> Response:
    """The 202 of an order that is accepted for certain, with what the door keeps `beside` it. Raises the Problem."""
    client, key = calling_client(request), idempotency_key(request, "order")
    wish = Wish(
        model=body.model,
        alloy=body.alloy,
        finish=body.finish,
        quantity=body.quantity,
        ring_size=body.ring_size,
        scale=body.scale,
        engraving=body.engraving,
        deadline=body.deadline,
        reference=body.reference,
        approve_up_to=body.approve_up_to,
        quote=_accepted_quote(body),
    )
    with storage_known_to_be_away():
        order_id = await handlers.submit_order(door, client, key, wish, check=_check, beside=beside)
    accepted = Accepted(order_id=order_id, code=short_code(order_id), status=Status.SUBMITTED)
    return answer(accepted, 202, {"Location": f"/v1/orders/{order_id}"})


def operations(door: Door, auth: str) -> list[Operation]:
    async def submit_order(request: Request, body: SubmitOrder) -> Response:
        return await accept_order(door, request, body)

    async def get_order(request: Request) -> Response:
        client = calling_client(request)
        return answer(await handlers.own_order(door, client, path_uuid(request, "order_id", "order")))

    async def list_orders(request: Request) -> Response:
        client = calling_client(request)
        limit = rows_wanted(request)
        before = query(request, "after", UUID, None)
        status = query(request, "status", Status, None)
        return answer(await handlers.orders_page(door, client, status, before, limit))

    async def accept_price(request: Request, body: AcceptPrice) -> Response:
        client = calling_client(request)
        order_id = path_uuid(request, "order_id", "order")
        if not body.amount.is_finite():
            raise Problem(422, "out-of-range", "The amount is out of range", "amount: a number.")
        return answer(await handlers.accept_price(door, client, order_id, body.quote_id, body.amount), 202)

    async def cancel_order(request: Request, body: CancelOrder) -> Response:
        client = calling_client(request)
        order_id = path_uuid(request, "order_id", "order")
        return answer(await handlers.cancel_order(door, client, order_id, body.reason), 202)

    async def resubmit_order(request: Request, body: ResubmitOrder) -> Response:
        client = calling_client(request)
        order_id = path_uuid(request, "order_id", "order")
        changes = {name: value for name, value in msgspec.structs.asdict(body).items() if value is not UNSET}
        with storage_known_to_be_away():
            return answer(await handlers.resubmit_order(door, client, order_id, changes, check=_check), 202)

    async def get_command(request: Request) -> Response:
        client = calling_client(request)
        async with door.pool.acquire() as connection:
            row = await store.commands.find(connection, path_uuid(request, "command_id", "command"), client.client_id)
        if row is None:
            raise not_found("command")
        return answer(row)

    page = (
        *page_parameters(),
        Parameter("status", "query", {"type": "string", "enum": [s.value for s in Status]}, "only this status"),
    )
    return [
        Operation(
            "POST",
            "/v1/orders",
            submit_order,
            "Order a piece; accepted for certain once this answers 202",
            {202: Accepted},
            SUBMIT_PROBLEMS,
            body=SubmitOrder,
            parameters=(IDEMPOTENCY_KEY,),
            auth=auth,
            scope=Scope.ORDERS_WRITE,
        ),
        Operation(
            "GET",
            "/v1/orders",
            list_orders,
            "Your orders, newest first",
            {200: OrdersPage},
            {400: "a parameter is wrong"},
            parameters=page,
            auth=auth,
            scope=Scope.ORDERS_READ,
        ),
        Operation(
            "GET",
            "/v1/orders/{order_id}",
            get_order,
            "One of your orders",
            {200: OrderView},
            {404: "no such order"},
            auth=auth,
            scope=Scope.ORDERS_READ,
        ),
        Operation(
            "POST",
            "/v1/orders/{order_id}/accept",
            accept_price,
            "Accept the price of an order",
            {202: CommandView},
            {404: "no such order", 409: "no open price, or not this one"},
            body=AcceptPrice,
            auth=auth,
            scope=Scope.ORDERS_WRITE,
        ),
        Operation(
            "POST",
            "/v1/orders/{order_id}/cancel",
            cancel_order,
            "Cancel an order, as long as it is not being made",
            {202: CommandView},
            {404: "no such order", 409: "just being taken up"},
            body=CancelOrder,
            auth=auth,
            scope=Scope.ORDERS_WRITE,
        ),
        Operation(
            "POST",
            "/v1/orders/{order_id}/resubmit",
            resubmit_order,
            "Change an order or ask for its price again; an open price is superseded",
            {202: CommandView},
            {404: "no such order", 409: "just being taken up, or the model is not there"},
            body=ResubmitOrder,
            auth=auth,
            scope=Scope.ORDERS_WRITE,
        ),
        Operation(
            "GET",
            "/v1/commands/{command_id}",
            get_command,
            "What became of what you asked for",
            {200: CommandView},
            {404: "no such command"},
            auth=auth,
            scope=Scope.ORDERS_READ,
        ),
    ]


class storage_known_to_be_away:
    """`with` it, a file storage that does not answer becomes a 503 that says so. A class, as `tracing.span` is, for it
    stands in the path of every order."""

    def __enter__(self) -> None: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, StorageAway):
            raise try_later(
                "The file storage does not answer, so the upload cannot be seen. Nothing was stored; send it again.",
                after_s=5,
                code="storage-away",
            ) from None


def _check(wish: Wish, today: date) -> None:
    """What the fields cannot say one by one. Raises the 422 Problem."""
    if wish.ring_size is not None and wish.scale is not None:
        raise Problem(
            422, "ring-size-or-scale", "Give a ring size or a scale, not both", "Leave out `ring_size` or `scale`."
        )
    if wish.deadline is not None and wish.deadline < today:
        raise Problem(422, "deadline-passed", "The deadline has passed", f"{wish.deadline} is before {today}.")
    bound = wish.approve_up_to
    if bound is not None and not (bound.is_finite() and 0 < bound <= 1_000_000):  # NaN cannot even be compared
        raise Problem(422, "out-of-range", "The standing approval is out of range", "approve_up_to: 0 to 1000000.")
