"""What may happen to an order, as pure functions: an order and a wish in, the next version out, or a named refusal."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from lostwax.contracts.ids import derived_id
from lostwax.contracts.orders import (
    Action,
    Actor,
    ActorKind,
    Approve,
    Command,
    CompleteManufacturing,
    Order,
    OrderRequested,
    Pack,
    PriceFailure,
    Quote,
    ReleaseClaim,
    Ship,
    StartManufacturing,
    Status,
    Transition,
)
from lostwax.contracts.pricing import Priced, PriceResult

ORDERS = Actor(kind=ActorKind.SYSTEM, id="orders", name="Orders")

HEAVY_MODEL_BYTES = 10_000_000
"""Models from this size on are priced in the heavy lane: a binary STL of 200,000 triangles."""


class Rule(msgspec.Struct, frozen=True):
    """From where an action may lead to `target`, and who may wish it."""

    sources: frozenset[Status]
    target: Status
    actors: frozenset[ActorKind]


_OPERATOR = frozenset({ActorKind.OPERATOR})

RULES: Mapping[type[Action], Rule] = {
    Approve: Rule(
        frozenset({Status.PRICE_CALCULATED}),
        Status.MANUFACTURING_APPROVED,
        frozenset({ActorKind.PARTNER, ActorKind.SELLER}),
    ),
    StartManufacturing: Rule(
        frozenset({Status.MANUFACTURING_APPROVED, Status.REWORK}), Status.MANUFACTURING_STARTED, _OPERATOR
    ),
    ReleaseClaim: Rule(frozenset({Status.MANUFACTURING_STARTED}), Status.MANUFACTURING_APPROVED, _OPERATOR),
    CompleteManufacturing: Rule(frozenset({Status.MANUFACTURING_STARTED}), Status.MANUFACTURING_COMPLETED, _OPERATOR),
    Pack: Rule(frozenset({Status.MANUFACTURING_COMPLETED}), Status.PACKAGING, _OPERATOR),
    Ship: Rule(frozenset({Status.PACKAGING}), Status.SHIPPED, _OPERATOR),
}


class Refused(Exception):
    """A command that changes nothing. `code` is for programs, `detail` for the person who wished it."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code, self.detail = code, detail


def submit(request: OrderRequested, now: datetime) -> Order:
    """Version 1 of an order, SUBMITTED."""
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
        approve_up_to=request.approve_up_to,
    )


def price_job(order: Order) -> UUID:
    """Id of the price job that this version of the order asks for; the same however often it is asked."""
    return derived_id("price", str(order.order_id), str(order.version))


def is_heavy(order: Order) -> bool:
    return order.specification.model.size_bytes >= HEAVY_MODEL_BYTES


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
    standing = Actor(kind=ActorKind.PARTNER, id=str(order.account), name=order.channel, account=order.account)
    reason = f"standing approval up to {order.approve_up_to} {quote.currency}"
    return [priced, _step(priced, Status.MANUFACTURING_APPROVED, standing, now, reason=reason, approved_at=now)]


def fail_price(order: Order, failure: PriceFailure, now: datetime) -> Order:
    """The order without a price, with the reason that its customer will read."""
    return _step(order, Status.PRICE_FAILED, ORDERS, now, reason=failure.detail, failure=failure)


def obey(order: Order, command: Command, now: datetime) -> Order:
    """The next version of the order after a command. Raises Refused."""
    action, actor = command.action, command.actor
    rule = RULES[type(action)]
    if actor.kind not in rule.actors:
        raise Refused("not_allowed", f"{actor.kind} may not do this.")
    if actor.kind is ActorKind.PARTNER and actor.account != order.account:
        raise Refused("not_allowed", "This order belongs to another account.")
    if order.status not in rule.sources:
        raise Refused("wrong_status", f"The order is {order.status}, not {' or '.join(sorted(rule.sources))}.")
    if command.seen_version != order.version:
        raise Refused("stale", f"The order has changed: version {order.version}, you saw {command.seen_version}.")
    reason = action.reason if isinstance(action, ReleaseClaim) else None
    changes = _consequences(order, action, actor, now)
    return _step(order, rule.target, actor, now, reason=reason, command_id=command.command_id, **changes)


def _consequences(order: Order, action: Action, actor: Actor, now: datetime) -> dict[str, object]:
    """What a legal action changes beside the status. Raises Refused for what only the action's data can tell."""
    match action:
        case Approve(quote_id, amount):
            quote = order.quote
            if quote is None or quote.quote_id != quote_id:
                raise Refused("quote_superseded", "This price is no longer the order's; look at the current one.")
            if quote.amount != amount:
                raise Refused("amount_differs", f"The price is {quote.amount} {quote.currency}, not {amount}.")
            if quote.expires_at < now:
                raise Refused("quote_expired", f"The price was held until {quote.expires_at:%Y-%m-%d %H:%M} UTC.")
            return {"approved_at": now}
        case StartManufacturing():
            return {"maker": actor}
        case ReleaseClaim():
            _only_the_maker(order, actor)
            return {"maker": None}
        case CompleteManufacturing():
            _only_the_maker(order, actor)
            return {}
        case Pack():
            return {}
        case Ship(shipment):
            return {"shipment": shipment}


def _only_the_maker(order: Order, actor: Actor) -> None:
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
