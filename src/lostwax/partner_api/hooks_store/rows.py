"""What the web hooks' tables hold, row by row."""

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from lostwax.contracts.orders import Order

CHANNEL = "hooks"
"""Notified when there may be something new to deliver or to fill."""

AILING = 8
"""So many failures without a success, and a hook is tried by one delivery at a time, ever more rarely."""


class Hook(msgspec.Struct, frozen=True):
    hook_id: UUID
    url: str
    created_at: datetime
    disabled_at: datetime | None
    disabled_why: str | None


class DeliveryRow(msgspec.Struct, frozen=True):
    number: int
    delivery_id: UUID
    order_id: UUID | None
    version: int | None
    state: str
    created_at: datetime
    next_at: datetime
    attempts: int
    last_attempt_at: datetime | None
    duration_ms: int | None
    response_status: int | None
    response_body: str | None
    error: str | None


class Track(msgspec.Struct, frozen=True):
    """How far an order has come for a hook; see the table hook_orders."""

    hook_id: UUID
    order_id: UUID
    known: int
    enqueued: int
    settled: int


class NewDelivery(msgspec.Struct, frozen=True):
    """A version of an order for a hook. `due`: nothing of this order is before it."""

    delivery_id: UUID
    hook_id: UUID
    due: bool
    order: Order


class Due(msgspec.Struct, frozen=True):
    """The next delivery of an order, or a test (no `order_id`), to be sent in `wait_s` seconds (<= 0: now).

    `order_body` is there only when it is to be sent now, and not for what is sent once more. `secrets`: one, or two
    while it is being changed. `age_s`: since the first attempt.
    """

    number: int
    delivery_id: UUID
    hook_id: UUID
    url: str
    secrets: list[str]
    hook_failures: int
    order_id: UUID | None
    version: int | None
    attempts: int
    age_s: float
    wait_s: float
    created_at: datetime
    accepted_at: datetime | None
    order_body: str | None


class Settled(msgspec.Struct, frozen=True):
    """What came of an attempt. `state` delivered, given_up, or due: once more in `pause_s` seconds.

    `counts`: it says something of the hook's health. `gone`: the receiver wants no more. `after_failures`: so many
    there were before.
    """

    number: int
    hook_id: UUID
    order_id: UUID | None
    version: int | None
    state: str
    pause_s: float = 0
    duration_ms: int | None = None
    response_status: int | None = None
    response_body: str | None = None
    error: str | None = None
    counts: bool = True
    gone: bool = False
    after_failures: int = 0


class Gap(msgspec.Struct, frozen=True):
    """An order of which versions above `after` are missing."""

    order_id: UUID
    after: int


def plain(value: Any) -> Any:
    """A value without asyncpg's own UUID class, which is slow to hash and compare."""
    return UUID(int=value.int) if isinstance(value, UUID) else value


def as_row(struct: Any, row: Any) -> Any:
    """The row as a struct of the same fields."""
    return struct(**{name: plain(value) for name, value in row.items()})
