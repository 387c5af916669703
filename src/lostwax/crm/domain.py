"""Pure rules of the CRM: what a seller can be told at once that Orders would refuse.

Orders alone decides; this only spares a round trip and says more, since what a seller saw and what is known now can be
compared here. A test holds that the statuses are those of Orders' own table.
"""

import re
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import msgspec

from lostwax.contracts.ids import derived_id, short_code
from lostwax.contracts.orders import (
    Action,
    Actor,
    ActorKind,
    Approve,
    Cancel,
    Close,
    Hold,
    Order,
    OrderRequested,
    Resubmit,
    Resume,
    Specification,
    Status,
    Transition,
)

CHANNEL = "crm"
DESK = derived_id("crm", "desk")
"""Whose the orders are that sellers take, to everybody else: whom they are for is nobody's business but the CRM's."""

SHIFT = timedelta(hours=12)
"""How long a sign-in lasts."""

_BEFORE_SHIPPING = frozenset(
    {
        Status.SUBMITTED,
        Status.PRICE_CALCULATED,
        Status.PRICE_FAILED,
        Status.MANUFACTURING_APPROVED,
        Status.MANUFACTURING_STARTED,
        Status.REWORK,
        Status.MANUFACTURING_COMPLETED,
        Status.PACKAGING,
    }
)

OVER = frozenset({Status.SHIPPED, Status.CLOSED, Status.CANCELLED})
"""About an order that is there nobody is waited for."""

FROM: Mapping[type[Action], frozenset[Status]] = {
    Approve: frozenset({Status.PRICE_CALCULATED}),
    Resubmit: frozenset({Status.PRICE_CALCULATED, Status.PRICE_FAILED, Status.MANUFACTURING_APPROVED}),
    Hold: _BEFORE_SHIPPING,
    Resume: frozenset({Status.ON_HOLD}),
    Cancel: _BEFORE_SHIPPING | {Status.ON_HOLD},
    Close: frozenset({Status.SHIPPED}),
}
"""From which statuses a seller's action leads on."""


class Hopeless(Exception):
    """What Orders would refuse for certain. `code` is for programs, `title` and `detail` for the seller."""

    def __init__(self, code: str, title: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code, self.title, self.detail = code, title, detail


def check(order: Order, action: Action, seen_version: int, now: datetime) -> None:
    """Raises Hopeless for a wish that cannot succeed. `order` is what is known here; a seller may have seen a newer
    version already, and then Orders is asked."""
    if seen_version > order.version:
        return
    if seen_version < order.version:
        raise Hopeless("stale", "The order has changed since you looked", f"{happened(order)} Look at it again.")
    if order.status not in FROM[type(action)]:
        wanted = " or ".join(sorted(FROM[type(action)]))
        raise Hopeless("wrong-status", "This does not fit the order now", f"{happened(order)} It is not {wanted}.")
    if isinstance(action, Approve):
        _check_quote(order, action, now)


def _check_quote(order: Order, action: Approve, now: datetime) -> None:
    quote = order.quote
    if quote is None or quote.quote_id != action.quote_id:
        raise Hopeless("quote-superseded", "This price is no longer the order's", "Look at the order again.")
    if quote.amount != action.amount:
        detail = f"The price is {quote.amount} {quote.currency}, not {action.amount}."
        raise Hopeless("amount-differs", "This is not the quoted amount", detail)
    if quote.expires_at < now:
        detail = f"It was held until {quote.expires_at:%Y-%m-%d %H:%M} UTC; resubmit the order for a fresh one."
        raise Hopeless("quote-expired", "The price has expired", detail)


def happened(order: Order) -> str:
    """The step that led to the order's version, in a sentence."""
    step: Transition = order.transition
    why = f" ({step.reason})" if step.reason else ""
    return f"It is {order.status} by {step.actor.name} since {step.at:%Y-%m-%d %H:%M:%S} UTC{why}."


def misfit(specification: Specification, now: datetime) -> str | None:
    """What the fields of a specification cannot say one by one; None when it holds together."""
    if specification.ring_size is not None and specification.scale is not None:
        return "Give a ring size or a scale, not both."
    if specification.deadline is not None and specification.deadline < now.date():
        return f"The deadline {specification.deadline} has passed."
    return None


OFF_BOARD = frozenset({Status.CLOSED, Status.CANCELLED})
"""What is over stands on no board."""

BOARD = tuple(status for status in Status if status not in OFF_BOARD)
"""The board's columns, as an order walks through them."""


class Placed(msgspec.Struct, frozen=True):
    """An order with what the CRM itself knows of it. `status_since`: since when it has its status."""

    order: Order
    status_since: datetime
    customer_id: UUID | None = None
    customer: str | None = None
    seller_id: UUID | None = None
    seller: str | None = None


def as_accepted(request: OrderRequested, seller_id: UUID | None, seller: str | None) -> Order:
    """An order that was accepted here and that Orders has not told of yet: version 0."""
    taker = Actor(kind=ActorKind.SELLER, id=str(seller_id or ""), name=seller or CHANNEL)
    return Order(
        order_id=request.order_id,
        version=0,
        status=Status.SUBMITTED,
        account=request.account,
        channel=request.channel,
        reference=request.reference,
        specification=request.specification,
        submitted_at=request.requested_at,
        updated_at=request.requested_at,
        transition=Transition(source=None, target=Status.SUBMITTED, actor=taker, at=request.requested_at),
        approve_up_to=request.approve_up_to,
    )


class OrderLine(msgspec.Struct, frozen=True):
    """What a list shows of an order. `account` is whose it is to its channel, `maker` who has it in hand, `customer`
    for whom the sellers know it to be, `seller` who looks after it."""

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
    status_since: datetime
    customer_id: UUID | None = None
    customer: str | None = None
    seller_id: UUID | None = None
    seller: str | None = None


def line(placed: Placed) -> OrderLine:
    order = placed.order
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
        status_since=placed.status_since,
        customer_id=placed.customer_id,
        customer=placed.customer,
        seller_id=placed.seller_id,
        seller=placed.seller,
    )


def service_of(actor: Actor, channel: str) -> str:
    """From which service a step came, by who took it."""
    match actor.kind:
        case ActorKind.OPERATOR | ActorKind.SUPERVISOR:
            return "mes"
        case ActorKind.SELLER | ActorKind.ADMINISTRATOR:
            return "crm"
        case ActorKind.PARTNER | ActorKind.CUSTOMER:
            return channel
        case ActorKind.SYSTEM:
            return actor.id if actor.id in ("mes", "crm", "pricing") else "orders"


_DIGIT_WORD = re.compile(r"^[+(]?[\d()\-./]{4,}$")
_WORDS = re.compile(r"[\w.@+\-]+")
SHORTEST_WORD = 2


def digits(phone: str) -> str:
    """A telephone number as it is compared: its digits."""
    return "".join(c for c in phone if c.isdigit() and c.isascii())


def lexemes(texts: list[str], phones: list[str]) -> list[str]:
    """What somebody is found by: the words of these texts, in small letters, and these numbers backwards, since people
    know the end of one and write its beginning in many ways."""
    words = {word for text in texts for word in _WORDS.findall(text.casefold())}
    words |= {part for word in words for part in re.split(r"[.@+\-]", word) if len(part) >= SHORTEST_WORD}
    return sorted(word[:100] for word in words | {f"ph{digits(p)[::-1]}" for p in phones if digits(p)})


def search_query(text: str) -> str | None:
    """A search as PostgreSQL's tsquery: every word is the beginning of one, a number the end of one. None: nothing to
    search for."""
    compact = re.sub(r"[\s()\-./]", "", text)
    if re.fullmatch(r"\+?\d{4,15}", compact):
        return f"'ph{digits(compact)[::-1]}':*"
    words = [w for w in _WORDS.findall(text.casefold()) if len(w) >= SHORTEST_WORD][:6]
    quoted = []
    for word in words:
        if _DIGIT_WORD.match(word) and digits(word):
            quoted.append(f"'ph{digits(word)[::-1]}':*")
        else:
            quoted.append(f"'{word[:100]}':*")
    return " & ".join(quoted) or None
