"""What a client sees of its orders. Pure."""

from datetime import datetime
from uuid import UUID

import msgspec

from lostwax.contracts.ids import short_code
from lostwax.contracts.orders import (
    PROMISE,
    Order,
    OrderRequested,
    PriceFailure,
    Quote,
    Shipment,
    Specification,
    Status,
)


class OrderView(msgspec.Struct, frozen=True):
    """One of your orders. `version` 0: accepted here, not yet confirmed by the workshop's order book. `promised_at`: by
    when it is shipped, once it is approved; `held_because`: why it rests."""

    order_id: UUID
    code: str
    status: Status
    version: int
    accepted_at: datetime
    updated_at: datetime
    reference: str | None
    specification: Specification
    quote: Quote | None = None
    failure: PriceFailure | None = None
    shipment: Shipment | None = None
    approved_at: datetime | None = None
    promised_at: datetime | None = None
    held_because: str | None = None


class OwnView(msgspec.Struct, frozen=True):
    """An order as the one client sees it that it belongs to."""

    client_id: UUID
    view: OrderView


def of_request(requested: OrderRequested, accepted_at: datetime) -> OrderView:
    """An order that has just been accepted here."""
    return OrderView(
        order_id=requested.order_id,
        code=short_code(requested.order_id),
        status=Status.SUBMITTED,
        version=0,
        accepted_at=accepted_at,
        updated_at=accepted_at,
        reference=requested.reference,
        specification=requested.specification,
    )


def of_order(order: Order, accepted_at: datetime) -> OrderView:
    """An order as Orders tells of it."""
    return OrderView(
        order_id=order.order_id,
        code=short_code(order.order_id),
        status=order.status,
        version=order.version,
        accepted_at=accepted_at,
        updated_at=order.updated_at,
        reference=order.reference,
        specification=order.specification,
        quote=order.quote,
        failure=order.failure,
        shipment=order.shipment,
        approved_at=order.approved_at,
        promised_at=None if order.approved_at is None else order.approved_at + PROMISE,
        held_because=None if order.on_hold is None else order.on_hold.reason,
    )
