"""HTTP of orders that sellers take for customers: the CRM as a door of its own, beside the partners' and the shop's."""

from collections.abc import Sequence
from functools import partial
from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from lostwax.channel import handlers as channel
from lostwax.channel.api import IDEMPOTENCY_KEY, SUBMIT_PROBLEMS, Accepted, SubmitOrder, accept_order
from lostwax.channel.callers import let_in
from lostwax.channel.domain import Client, Scope
from lostwax.channel.offer_api import Taken
from lostwax.crm import taking
from lostwax.crm.api import LOOKERS, SELLERS
from lostwax.crm.customers_api import AddCustomer
from lostwax.crm.domain import DESK
from lostwax.crm.handlers import Office
from lostwax.crm.taking import NewCustomer
from lostwax.kit.http import Operation, answer, path_uuid
from lostwax.kit.neighbours import Neighbour
from lostwax.kit.problems import Problem
from lostwax.kit.staff import STAFF_AUTH, StaffDoor

_LOOKS = frozenset({Scope.ORDERS_READ, Scope.MODELS_READ, Scope.QUOTES_READ})


class TakeOrder(SubmitOrder, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An order that a seller takes for a customer: of the CRM, by id, or a new one, who is added with it. The model is
    one of the desk's: upload it, or take that of an earlier order."""

    customer_id: UUID | None = None
    customer: AddCustomer | None = None
    remarks: Annotated[str, Meta(max_length=4000)] = ""


def _whom(body: TakeOrder) -> UUID | NewCustomer:
    if body.customer_id is not None and body.customer is None:
        return body.customer_id
    if body.customer is not None and body.customer_id is None:
        new = body.customer
        return NewCustomer(new.kind, new.name.strip(), new.phone, new.email, new.consent)
    raise Problem(
        422,
        "one-customer",
        "Say for whom the order is, once",
        'Give `customer_id`, or `customer` for somebody new: {"name": ..., "phone": ...}.',
    )


def guarded(operations: Sequence[Operation], door: StaffDoor) -> list[Operation]:
    """The operations of a door, for the staff: who reads looks, who writes sells. All of them are the desk."""

    async def admit(request: Request, scope: str) -> None:
        member = await door.enter(request, *(LOOKERS if scope in _LOOKS else SELLERS))
        let_in(request, Client(DESK, member.name))

    return [
        o if o.scope is None else msgspec.structs.replace(o, scope=None, admit=partial(admit, scope=o.scope))
        for o in operations
    ]


def operations(office: Office, own: channel.Door, staff: StaffDoor, orders: Neighbour) -> list[Operation]:
    async def take_order(request: Request, body: TakeOrder) -> Response:
        member = await staff.enter(request, *SELLERS)
        return await accept_order(own, request, body, taking.for_customer(office, member, _whom(body), body.remarks))

    async def take_model(request: Request) -> Response:
        row = await taking.take_model(office, own.models, orders, DESK, path_uuid(request, "order_id", "order"))
        return answer(Taken(row.sha256, row.name, row.size_bytes))

    return [
        Operation(
            "POST",
            "/v1/orders",
            take_order,
            "Take an order for a customer; accepted for certain once this answers 202",
            {202: Accepted},
            SUBMIT_PROBLEMS,
            body=TakeOrder,
            parameters=(IDEMPOTENCY_KEY,),
            auth=STAFF_AUTH,
            scope=Scope.ORDERS_WRITE,
        ),
        Operation(
            "POST",
            "/v1/orders/{order_id}/model/take",
            take_model,
            "Put the model of an earlier order, of any door, among the desk's models, to order it again",
            {200: Taken},
            {
                404: "no such order",
                409: "the model store does not have it, or the order is just being taken up",
                503: "the order book does not answer",
            },
            auth=STAFF_AUTH,
            scope=Scope.MODELS_WRITE,
        ),
    ]
