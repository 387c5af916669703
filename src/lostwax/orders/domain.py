"""What may happen to an order, as pure functions: an order and a wish in, the next version out, or a named refusal."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

import msgspec

from lostwax.contracts.ids import derived_id
from lostwax.contracts.orders import (
    Action,
    Actor,
    ActorKind,
    Approve,
    Cancel,
    Close,
    Command,
    CompleteManufacturing,
    Hold,
    OnHold,
    Order,
    OrderRequested,
    Pack,
    PriceFailure,
    Quote,
    ReleaseClaim,
    Resubmit,
    Resume,
    Rework,
    Ship,
    Specification,
    StartManufacturing,
    Status,
    Transition,
)
from lostwax.contracts.pricing import Priced, PriceResult

ORDERS = Actor(kind=ActorKind.SYSTEM, id="orders", name="Orders")

HEAVY_MODEL_BYTES = 10_000_000
"""Models from this size on are priced in the heavy lane: a binary STL of 200,000 triangles. A 3MF packs four times as
many into a byte; it is still read in a second."""


class Rule(msgspec.Struct, frozen=True):
    """From where an action may lead to `target`, and who may wish it. `target` None: to where a hold came from."""

    sources: frozenset[Status]
    target: Status | None
    actors: frozenset[ActorKind]


def _rule(sources: Iterable[Status], target: Status | None, *actors: ActorKind) -> Rule:
    return Rule(frozenset(sources), target, frozenset(actors))


_BEFORE_MAKING = frozenset(
    {Status.SUBMITTED, Status.PRICE_CALCULATED, Status.PRICE_FAILED, Status.MANUFACTURING_APPROVED}
)
_BEFORE_SHIPPING = _BEFORE_MAKING | {
    Status.MANUFACTURING_STARTED,
    Status.REWORK,
    Status.MANUFACTURING_COMPLETED,
    Status.PACKAGING,
}
_OWNERS = (ActorKind.PARTNER, ActorKind.CUSTOMER)
_SELLERS = (ActorKind.SELLER, ActorKind.ADMINISTRATOR)
_OVERSEERS = (ActorKind.SUPERVISOR, ActorKind.ADMINISTRATOR)

RULES: Mapping[type[Action], Rule] = {
    Resubmit: _rule(
        (Status.PRICE_CALCULATED, Status.PRICE_FAILED, Status.MANUFACTURING_APPROVED),
        Status.SUBMITTED,
        *_OWNERS,
        *_SELLERS,
    ),
    Approve: _rule((Status.PRICE_CALCULATED,), Status.MANUFACTURING_APPROVED, *_OWNERS, *_SELLERS),
    StartManufacturing: _rule(
        (Status.MANUFACTURING_APPROVED, Status.REWORK), Status.MANUFACTURING_STARTED, ActorKind.OPERATOR
    ),
    ReleaseClaim: _rule(
        (Status.MANUFACTURING_STARTED,),
        Status.MANUFACTURING_APPROVED,
        ActorKind.OPERATOR,
        *_OVERSEERS,
        ActorKind.SYSTEM,
    ),
    CompleteManufacturing: _rule((Status.MANUFACTURING_STARTED,), Status.MANUFACTURING_COMPLETED, ActorKind.OPERATOR),
    Rework: _rule(
        (Status.MANUFACTURING_STARTED, Status.MANUFACTURING_COMPLETED),
        Status.REWORK,
        ActorKind.OPERATOR,
        *_OVERSEERS,
    ),
    Pack: _rule((Status.MANUFACTURING_COMPLETED,), Status.PACKAGING, ActorKind.OPERATOR),
    Ship: _rule((Status.PACKAGING,), Status.SHIPPED, ActorKind.OPERATOR),
    Close: _rule((Status.SHIPPED,), Status.CLOSED, *_SELLERS, ActorKind.SYSTEM),
    Hold: _rule(_BEFORE_SHIPPING, Status.ON_HOLD, *_SELLERS),
    Resume: _rule((Status.ON_HOLD,), None, *_SELLERS),
    # Owners only before it is being made: see _consequences.
    Cancel: _rule(_BEFORE_SHIPPING | {Status.ON_HOLD}, Status.CANCELLED, *_OWNERS, *_SELLERS),
}

PRODUCERS: Mapping[ActorKind, frozenset[str]] = {
    ActorKind.PARTNER: frozenset({"partner_api"}),
    ActorKind.CUSTOMER: frozenset({"shop"}),
    ActorKind.OPERATOR: frozenset({"mes"}),
    ActorKind.SUPERVISOR: frozenset({"mes", "crm"}),
    ActorKind.SELLER: frozenset({"crm"}),
    ActorKind.ADMINISTRATOR: frozenset({"crm", "mes"}),
    ActorKind.SYSTEM: frozenset({"mes", "crm"}),
}
"""Which services may send commands in whose name."""


class Refused(Exception):
    """A command that changes nothing. `code` is for programs, `detail` for the person who wished it."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code, self.detail = code, detail


def submit(request: OrderRequested, now: datetime, *, quoted: bool = False) -> Order:
    """Version 1 of an order, SUBMITTED. One that accepts a quote which does not hold (`quoted` False) is priced anew
    and approved up to the amount that was accepted: nothing is lost, and nobody pays more than they agreed to."""
    anew = request.accepted.amount if request.accepted is not None and not quoted else None
    actor = Actor(kind=ActorKind.PARTNER, id=str(request.account), name=request.channel, account=request.account)
    return Order(
        order_id=request.order_id,
        version=1,
        status=Status.SUBMITTED,
        account=request.account,
        channel=request.channel,
        reference=request.reference,
        specification=request.specification,
        submitted_at=request.requested_at,
        updated_at=now,
        transition=Transition(source=None, target=Status.SUBMITTED, actor=actor, at=now),
        approve_up_to=request.approve_up_to if anew is None else anew,
    )


def by_quote(order: Order, quote: Quote, now: datetime) -> list[Order]:
    """The versions that follow when a new order is placed at a price that its owner has accepted before."""
    priced = _step(order, Status.PRICE_CALCULATED, ORDERS, now, reason="by an accepted quote", quote=quote)
    reason = f"accepted before: {quote.amount} {quote.currency}"
    return [priced, _step(priced, Status.MANUFACTURING_APPROVED, _owner(order), now, reason=reason, approved_at=now)]


def _owner(order: Order) -> Actor:
    return Actor(kind=ActorKind.PARTNER, id=str(order.account), name=order.channel, account=order.account)


def price_job(order: Order) -> UUID:
    """Id of the price job that this version of the order asks for; the same however often it is asked."""
    return derived_id("price", str(order.order_id), str(order.version))


def is_heavy(specification: Specification) -> bool:
    """Whether it is priced in the heavy lane."""
    return specification.model.size_bytes >= HEAVY_MODEL_BYTES


def awaits_price(order: Order) -> bool:
    """Whether a price result is due: the order is SUBMITTED, or was when it was put on hold."""
    return standing(order) is Status.SUBMITTED


def standing(order: Order) -> Status:
    """The order's status, looking through a hold."""
    return order.status if order.on_hold is None else order.on_hold.source


def take_price(
    order: Order, job_id: UUID | None, result: PriceResult, held_for_days: int, now: datetime
) -> list[Order]:
    """The versions that follow from a price result: none when it is not the current job's, else the priced (or
    failed) order and, where a standing approval covers the amount, the approved one."""
    if order.status is not Status.SUBMITTED or result.job_id != job_id:
        return []
    if not isinstance(result.result, Priced):
        return [fail_price(order, result.result.failure, now)]
    quote = Quote(
        quote_id=result.job_id,
        amount=result.result.amount,
        currency=result.currency,
        lines=result.result.lines,
        geometry=result.result.geometry,
        tariff_version=result.tariff_version,
        priced_at=now,
        expires_at=now + timedelta(days=held_for_days),
    )
    priced = _step(order, Status.PRICE_CALCULATED, ORDERS, now, quote=quote, failure=None)
    if order.approve_up_to is None or quote.amount > order.approve_up_to:
        return [priced]
    reason = f"standing approval up to {order.approve_up_to} {quote.currency}"
    return [priced, _step(priced, Status.MANUFACTURING_APPROVED, _owner(order), now, reason=reason, approved_at=now)]


def fail_price(order: Order, failure: PriceFailure, now: datetime) -> Order:
    """The order without a price, with the reason that its customer will read."""
    return _step(order, Status.PRICE_FAILED, ORDERS, now, reason=failure.detail, failure=failure)


def obey(order: Order, command: Command, now: datetime) -> Order:
    """The next version of the order after a command. Raises Refused."""
    action, actor = command.action, command.actor
    rule = RULES[type(action)]
    if actor.kind not in rule.actors:
        raise Refused("not_allowed", f"{actor.kind} may not do this.")
    if actor.kind in _OWNERS and actor.account != order.account:
        raise Refused("not_allowed", "This order belongs to another account.")
    if order.status not in rule.sources:
        raise Refused("wrong_status", f"The order is {order.status}, not {' or '.join(sorted(rule.sources))}.")
    if command.seen_version != order.version:
        raise Refused("stale", f"The order has changed: version {order.version}, you saw {command.seen_version}.")
    changes = _consequences(order, action, actor, now)
    target = standing(order) if rule.target is None else rule.target
    reason = getattr(action, "reason", None)
    return _step(order, target, actor, now, reason=reason, command_id=command.command_id, **changes)


def _consequences(order: Order, action: Action, actor: Actor, now: datetime) -> dict[str, object]:
    """What a legal action changes beside the status. Raises Refused for what only the action's data can tell."""
    match action:
        case Approve(quote_id, amount):
            _check_quote(order.quote, quote_id, amount, now)
            return {"approved_at": now}
        case StartManufacturing():
            return {"maker": actor}
        case ReleaseClaim():
            _only_the_maker(order, actor)
            return {"maker": None}
        case CompleteManufacturing():
            _only_the_maker(order, actor)
            return {}
        case Rework():
            if order.status is Status.MANUFACTURING_STARTED:
                _only_the_maker(order, actor)
            return {"maker": None}
        case Ship(shipment):
            return {"shipment": shipment}
        case Resubmit(specification):
            return {
                "specification": order.specification if specification is None else specification,
                "quote": None,
                "failure": None,
                "approved_at": None,
            }
        case Hold(reason):
            return {"on_hold": OnHold(source=order.status, reason=reason, since=now)}
        case Resume():
            return {"on_hold": None}
        case Cancel():
            if actor.kind in _OWNERS and standing(order) not in _BEFORE_MAKING:
                raise Refused("too_late", "The piece is being made already; only the workshop can cancel it now.")
            return {"on_hold": None, "maker": None}
        case Pack() | Close():
            return {}


def _check_quote(quote: Quote | None, quote_id: UUID, amount: Decimal, now: datetime) -> None:
    if quote is None or quote.quote_id != quote_id:
        raise Refused("quote_superseded", "This price is no longer the order's; look at the current one.")
    if quote.amount != amount:
        raise Refused("amount_differs", f"The price is {quote.amount} {quote.currency}, not {amount}.")
    if quote.expires_at < now:
        raise Refused("quote_expired", f"The price was held until {quote.expires_at:%Y-%m-%d %H:%M} UTC.")


def _only_the_maker(order: Order, actor: Actor) -> None:
    """Operators may act on what they have in hand; overseers and the system on anybody's."""
    if actor.kind is not ActorKind.OPERATOR:
        return
    if order.maker is None or order.maker.id != actor.id:
        name = order.maker.name if order.maker else "nobody"
        raise Refused("not_the_maker", f"The order is in the hands of {name}.")


def _step(
    order: Order,
    target: Status,
    actor: Actor,
    now: datetime,
    *,
    reason: str | None = None,
    command_id: UUID | None = None,
    **changes: object,
) -> Order:
    transition = Transition(
        source=order.status, target=target, actor=actor, at=now, reason=reason, command_id=command_id
    )
    return msgspec.structs.replace(
        order, version=order.version + 1, status=target, updated_at=now, transition=transition, **changes
    )
