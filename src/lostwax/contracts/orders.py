"""Orders as every service sees them: the specification, the status, the price, the whole order, commands, outcomes."""

from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import Meta

Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$", description="sha-256 of the file, 64 lower-case hex digits")]
Code = Annotated[str, Meta(pattern="^[a-z0-9][a-z0-9_-]{0,39}$")]


PROMISE = timedelta(weeks=3)
"""From approval to shipping, as customers are promised."""


class Status(StrEnum):
    """Where an order stands. The table of who may move it where is `orders.domain.machine`."""

    SUBMITTED = "SUBMITTED"
    PRICE_CALCULATED = "PRICE_CALCULATED"
    PRICE_FAILED = "PRICE_FAILED"
    MANUFACTURING_APPROVED = "MANUFACTURING_APPROVED"
    MANUFACTURING_STARTED = "MANUFACTURING_STARTED"
    REWORK = "REWORK"
    MANUFACTURING_COMPLETED = "MANUFACTURING_COMPLETED"
    PACKAGING = "PACKAGING"
    SHIPPED = "SHIPPED"
    CLOSED = "CLOSED"
    ON_HOLD = "ON_HOLD"
    CANCELLED = "CANCELLED"


class ModelRef(msgspec.Struct, frozen=True):
    """A 3D model by its content. `size_bytes` is the exact length of the file; `upload` counts the account's uploads of
    it, by its channel, from 1 (0: not counted), so that what is told of an earlier one is not held against this one."""

    sha256: Sha256
    size_bytes: Annotated[int, Meta(ge=1)]
    name: Annotated[str, Meta(min_length=1, max_length=200)]
    upload: Annotated[int, Meta(ge=0)] = 0


class Specification(msgspec.Struct, frozen=True):
    """What is to be made. Lengths in millimetres; the model is drawn in millimetres unless `scale` says else."""

    model: ModelRef
    alloy: Code
    finish: Code
    quantity: Annotated[int, Meta(ge=1, le=1000)] = 1
    ring_size: Annotated[float, Meta(ge=38, le=80, description="EU size: inner circumference, mm")] | None = None
    scale: Annotated[float, Meta(ge=0.1, le=10, description="uniform factor on the drawn model")] | None = None
    engraving: Annotated[str, Meta(max_length=60)] | None = None
    deadline: date | None = None


class PriceLine(msgspec.Struct, frozen=True):
    """One line of a breakdown: `amount` = `quantity` x `unit_price`, rounded to cents, in the quote's currency."""

    code: str
    name: str
    quantity: Decimal
    unit: str
    unit_price: Decimal
    amount: Decimal


class Geometry(msgspec.Struct, frozen=True):
    """What was measured of the model as it is to be made (after `scale`). mm, mm2, mm3."""

    volume_mm3: float
    area_mm2: float
    box_mm: tuple[float, float, float]
    triangles: int
    closed: bool
    notes: tuple[str, ...] = ()
    kernel: str = ""


class Quote(msgspec.Struct, frozen=True):
    """A price that is held until `expires_at`. `amount` is for the whole quantity, tax not included."""

    quote_id: UUID
    amount: Decimal
    currency: str
    lines: tuple[PriceLine, ...]
    geometry: Geometry
    tariff_version: str
    priced_at: datetime
    expires_at: datetime


class PriceFailure(msgspec.Struct, frozen=True):
    """Why there is no price, in words a customer understands, and who can mend it: customer, seller or operator."""

    code: str
    detail: str
    mended_by: str


class Shipment(msgspec.Struct, frozen=True):
    carrier: Annotated[str, Meta(min_length=1, max_length=60)]
    tracking_number: Annotated[str, Meta(min_length=1, max_length=80)]


class ActorKind(StrEnum):
    PARTNER = "partner"
    CUSTOMER = "customer"
    OPERATOR = "operator"
    SUPERVISOR = "supervisor"
    SELLER = "seller"
    ADMINISTRATOR = "administrator"
    SYSTEM = "system"


class Actor(msgspec.Struct, frozen=True):
    """Who does a thing. `account` is set for partners and customers: whose orders they may touch."""

    kind: ActorKind
    id: str
    name: str
    account: UUID | None = None


class Transition(msgspec.Struct, frozen=True):
    """The step that led to a version. `source` is None for an order's first version."""

    source: Status | None
    target: Status
    actor: Actor
    at: datetime
    reason: str | None = None
    command_id: UUID | None = None


class OnHold(msgspec.Struct, frozen=True):
    """Why an order rests, since when, and the status that it left and will return to."""

    source: Status
    reason: str
    since: datetime


class Order(msgspec.Struct, frozen=True):
    """The whole order at one version. `version` is raised by exactly one in each change, starting at 1."""

    order_id: UUID
    version: int
    status: Status
    account: UUID
    channel: str
    reference: str | None
    specification: Specification
    submitted_at: datetime
    updated_at: datetime
    transition: Transition
    approve_up_to: Decimal | None = None
    quote: Quote | None = None
    failure: PriceFailure | None = None
    approved_at: datetime | None = None
    maker: Actor | None = None
    shipment: Shipment | None = None
    on_hold: OnHold | None = None


class AcceptedQuote(msgspec.Struct, frozen=True):
    """The price that an order is placed at: an option of a quote, numbered from 1, and its amount as it was seen."""

    quote_id: UUID
    option: Annotated[int, Meta(ge=1, le=24)]
    amount: Decimal


class OrderRequested(msgspec.Struct, frozen=True):
    """A channel's request for an order: all that Orders needs to create it."""

    order_id: UUID
    account: UUID
    channel: str
    specification: Specification
    requested_at: datetime
    reference: Annotated[str, Meta(max_length=100)] | None = None
    approve_up_to: Decimal | None = None
    accepted: AcceptedQuote | None = None


class OrderChanged(msgspec.Struct, frozen=True):
    """The whole order after a change. Readers keep it if its version is newer than what they have, else drop it."""

    order: Order


class ModelReady(msgspec.Struct, frozen=True):
    """To an order that waited for its model: the model is stored, or why it never will be (`failure`). A failure says
    nothing of uploads after `upload`."""

    order_id: UUID
    sha256: Sha256
    failure: PriceFailure | None = None
    upload: Annotated[int, Meta(ge=0)] = 0


class Approve(msgspec.Struct, frozen=True, tag="approve"):
    """Accept the named quote at the named amount."""

    quote_id: UUID
    amount: Decimal


class StartManufacturing(msgspec.Struct, frozen=True, tag="start"):
    """An operator takes the order. `claim_id` names the claim that waits for the answer."""

    claim_id: UUID


Reason = Annotated[str, Meta(min_length=1, max_length=200)]


class ReleaseClaim(msgspec.Struct, frozen=True, tag="release"):
    """Put the order back into the queue: by who has it, a supervisor, or the system when it has been held too long."""

    claim_id: UUID
    reason: Reason


class CompleteManufacturing(msgspec.Struct, frozen=True, tag="complete"):
    pass


class Pack(msgspec.Struct, frozen=True, tag="pack"):
    pass


class Ship(msgspec.Struct, frozen=True, tag="ship"):
    shipment: Shipment


class Rework(msgspec.Struct, frozen=True, tag="rework"):
    """The quality check failed: back into the queue, first in line."""

    reason: Reason


class Resubmit(msgspec.Struct, frozen=True, tag="resubmit"):
    """Price the order again: as it is now specified (None: as it was, a retry). The open quote is superseded."""

    specification: Specification | None = None


class Hold(msgspec.Struct, frozen=True, tag="hold"):
    reason: Reason


class Resume(msgspec.Struct, frozen=True, tag="resume"):
    """End a hold: back to the status that the order left."""


class Cancel(msgspec.Struct, frozen=True, tag="cancel"):
    reason: Reason


class Close(msgspec.Struct, frozen=True, tag="close"):
    """The customer has it."""


Action = (
    Approve
    | StartManufacturing
    | ReleaseClaim
    | CompleteManufacturing
    | Pack
    | Ship
    | Rework
    | Resubmit
    | Hold
    | Resume
    | Cancel
    | Close
)


class Command(msgspec.Struct, frozen=True):
    """A wish to change an order, with its own id, who wishes it, and the version that they saw."""

    command_id: UUID
    order_id: UUID
    actor: Actor
    seen_version: int
    issued_at: datetime
    action: Action


class Outcome(msgspec.Struct, frozen=True):
    """The one answer to a command: accepted with the new version, or refused with a reason that changes nothing."""

    command_id: UUID
    order_id: UUID
    accepted: bool
    version: int
    status: Status
    at: datetime
    code: str | None = None
    detail: str | None = None
