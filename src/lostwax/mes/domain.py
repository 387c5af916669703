"""Pure rules of the MES: when an order is due, and what a list shows of it."""

from datetime import UTC, datetime, time, timedelta
from enum import StrEnum
from uuid import UUID

import msgspec

from lostwax.contracts.ids import short_code
from lostwax.contracts.orders import PROMISE, Order, Status
from lostwax.contracts.staff import Role

WORKSHOP = (Role.OPERATOR, Role.SUPERVISOR, Role.ADMINISTRATOR)
"""Who works here. Sellers may look at lists and orders, and do nothing."""

OVERSEERS = (Role.SUPERVISOR, Role.ADMINISTRATOR)
"""Who may release and rework what is in anybody's hands, and makes nothing."""


class ListName(StrEnum):
    QUEUE = "queue"
    PACKING = "packing"
    SHIPPING = "shipping"


class Card(msgspec.Struct, frozen=True):
    """What an operator sees of an order on a list. Sizes in mm."""

    order_id: UUID
    code: str
    version: int
    status: Status
    due_at: datetime
    model_name: str
    alloy: str
    finish: str
    quantity: int
    ring_size: float | None
    scale: float | None
    engraving: str | None
    box_mm: tuple[float, float, float] | None
    volume_mm3: float | None


class Placed(msgspec.Struct, frozen=True):
    """An order's card and where it stands: its rank, and the list that shows it (None: none)."""

    card: Card
    rank: int
    list: str | None


def due_at(order: Order) -> datetime:
    """When the order must have been shipped: three weeks from approval, or the end of its deadline's day if sooner.
    Rework is first in line. The time of submission within the day keeps equal deadlines apart and in order."""
    promised = (order.approved_at or order.submitted_at) + PROMISE
    deadline = order.specification.deadline
    if deadline is not None:
        submitted = order.submitted_at.astimezone(UTC)
        promised = min(
            promised,
            datetime.combine(
                deadline, time(submitted.hour, submitted.minute, submitted.second, submitted.microsecond), UTC
            ),
        )
    if order.status is Status.REWORK:
        promised -= timedelta(days=3650)
    # Whole milliseconds: what Redis keeps as a score, so that both sources of a list sort alike.
    return promised.replace(microsecond=promised.microsecond // 1000 * 1000)


def card(order: Order) -> Card:
    specification = order.specification
    geometry = order.quote.geometry if order.quote else None
    return Card(
        order_id=order.order_id,
        code=short_code(order.order_id),
        version=order.version,
        status=order.status,
        due_at=due_at(order),
        model_name=specification.model.name,
        alloy=specification.alloy,
        finish=specification.finish,
        quantity=specification.quantity,
        ring_size=specification.ring_size,
        scale=specification.scale,
        engraving=specification.engraving,
        box_mm=geometry.box_mm if geometry else None,
        volume_mm3=geometry.volume_mm3 if geometry else None,
    )


def rank(version: int, claim_seq: int) -> int:
    """One number that grows with every change of what lists show of an order."""
    return version * 100_000 + claim_seq
