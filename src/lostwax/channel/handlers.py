"""Use cases of a door, each one transaction; the network is never waited for inside one."""

import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec

from lostwax.channel import quotes_store, store
from lostwax.channel.clients import OrderViews, Untrusted, accepted, entry
from lostwax.channel.domain import Client
from lostwax.channel.models import Models, last_upload, usable_model
from lostwax.channel.quotes import check_accepted
from lostwax.channel.store import Intake, RequestRow, Stored
from lostwax.channel.views import OwnView
from lostwax.contracts import topics
from lostwax.contracts.ids import derived_id, new_id
from lostwax.contracts.metrics import ORDERS_ACCEPTED
from lostwax.contracts.orders import (
    AcceptedQuote,
    Action,
    Actor,
    ActorKind,
    Approve,
    Cancel,
    Command,
    Order,
    OrderRequested,
    Outcome,
    Resubmit,
    Specification,
    Status,
)
from lostwax.kit import metrics, outbox
from lostwax.kit.announcing import NextBatch
from lostwax.kit.coalescer import Coalescer
from lostwax.kit.commands import CommandView
from lostwax.kit.postgres import Connection, Pool
from lostwax.kit.problems import Problem, not_found
from lostwax.kit.projection import newest

_order = msgspec.json.Decoder(Order)
_requested = msgspec.json.Decoder(OrderRequested)


class _OrderId(msgspec.Struct, frozen=True):
    order_id: UUID


_order_id = msgspec.json.Decoder(_OrderId)
_encode = msgspec.json.Encoder().encode
_accepted = metrics.counter(ORDERS_ACCEPTED)


class Wish(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a client wants made, checked in itself; the model is one of the client's own, by its digest. Its JSON is
    what an idempotency key is held against: fields that are added are left out of it by default."""

    model: str
    alloy: str
    finish: str
    quantity: int
    ring_size: float | None
    scale: float | None
    engraving: str | None
    deadline: date | None
    reference: str | None
    approve_up_to: Decimal | None
    quote: AcceptedQuote | None = None


class Beside(msgspec.Struct, frozen=True):
    """What a door keeps with an order, in the same transaction. `mark`: what of it the idempotency key is held against;
    `check` raises the Problem for what cannot be kept; `keep` must not fail for anything else than a database that is
    away, for it would take others' orders with it."""

    mark: bytes
    check: Callable[[], Awaitable[None]]
    keep: Callable[[Connection, UUID], Awaitable[None]]


class Door:
    """What the use cases need: the channel that this is the door of, what its clients are to Orders, database, the
    clients' models, their orders in Redis (None: they are shown otherwise), clock, and the coalescer that intake goes
    through."""

    def __init__(
        self,
        channel: str,
        owner: ActorKind,
        pool: Pool,
        models: Models,
        views: OrderViews | None,
        *,
        now: Callable[[], datetime],
    ) -> None:
        self.channel = channel
        self.owner = owner
        self.pool = pool
        self.models = models
        self.views = views
        self.now = now
        self.intake: Coalescer[Intake, Stored] = Coalescer(self._store_intakes, finish=self._show_intakes)

    async def _store_intakes(self, intakes: Sequence[Intake]) -> Sequence[Stored]:
        async with self.pool.acquire() as connection:
            if not any(intake.keep for intake in intakes):
                # One statement is one transaction: no BEGIN and COMMIT of our own, no round trips for them.
                return await store.store_intakes(connection, intakes)
            async with connection.transaction():
                stored = await store.store_intakes(connection, intakes)
                for intake, s in zip(intakes, stored, strict=True):
                    if intake.keep is not None and s.order_id == intake.order_id:
                        await intake.keep(connection, intake.order_id)
                return stored

    async def _show_intakes(self, intakes: Sequence[Intake], stored: Sequence[Stored]) -> None:
        """Shown before it is answered: whoever has the 202 finds the order. Once for a whole flush."""
        if self.views is not None:
            pairs = zip(intakes, stored, strict=True)
            await self.views.push([accepted(i.client_id, i.order_id) for i, s in pairs if s.order_id == i.order_id])


async def submit_order(
    door: Door,
    client: Client,
    idempotency_key: str,
    wish: Wish,
    *,
    check: Callable[[Wish, date], None],
    beside: Beside | None = None,
) -> UUID:
    """Accept an order for certain: request and outbox in one transaction. The same key and wish again give the same
    id; another wish under the same key is a 422. `check` raises the Problem for a wish that does not hold together."""
    request_hash = hashlib.sha256(_encode(wish) + (b"" if beside is None else beside.mark)).digest()
    try:
        check(wish, door.now().date())
        if beside is not None:
            await beside.check()
        specification = await _specification(door, client, wish)
        if wish.quote is not None:
            await check_accepted(door.pool, client, wish.quote, specification, door.now())
    except Problem:
        # Sent again because the first answer was lost: what was accepted stays so, whatever became of its model since
        # and whether or not its deadline has passed by now.
        async with door.pool.acquire() as connection:
            before = await store.stored_under(connection, client.client_id, idempotency_key)
        if before is None:
            raise
        return _if_the_same(before, request_hash)
    now = door.now()
    requested = OrderRequested(
        order_id=new_id(),
        account=client.client_id,
        channel=door.channel,
        specification=specification,
        requested_at=now,
        reference=wish.reference,
        approve_up_to=wish.approve_up_to,
        accepted=wish.quote,
    )
    message = outbox.message(topics.ORDER_REQUESTS, requested.order_id, requested)
    stored = await door.intake.submit(
        Intake(
            order_id=requested.order_id,
            client_id=client.client_id,
            idempotency_key=idempotency_key,
            request_hash=request_hash,
            accepted_at=now,
            body=message.payload.decode(),
            message=message,
            keep=None if beside is None else beside.keep,
        )
    )
    if stored.order_id == requested.order_id:
        _accepted.add(1, door.channel)
    return _if_the_same(stored, request_hash)


def _if_the_same(stored: Stored, request_hash: bytes) -> UUID:
    """Id of what stands under an idempotency key, or the 422 Problem when another wish stands there."""
    if stored.request_hash != request_hash:
        raise Problem(
            422,
            "idempotency-key-reused",
            "This Idempotency-Key was used for another order",
            "Use a fresh key for each order, and the same key only to send the same order again.",
            order_id=str(stored.order_id),
        )
    return stored.order_id


async def _specification(door: Door, client: Client, wish: Wish) -> Specification:
    """The wish with its model, which must be one of the client's own and be there."""
    model = await usable_model(door.models, client.client_id, wish.model)
    return Specification(
        model=model,
        alloy=wish.alloy,
        finish=wish.finish,
        quantity=wish.quantity,
        ring_size=wish.ring_size,
        scale=wish.scale,
        engraving=wish.engraving,
        deadline=wish.deadline,
    )


async def next_announcement(pool: Pool, limit: int) -> NextBatch:
    """What is to be announced to Orders next."""
    async with pool.acquire() as connection:
        return await store.unannounced(connection, limit)


async def announced(pool: Pool, batch: NextBatch) -> None:
    """Orders has taken the announcement of this batch."""
    async with pool.acquire() as connection:
        await store.move_announced(connection, batch)


async def resend_requests(door: Door, order_ids: Sequence[UUID], quote_ids: Sequence[UUID] = ()) -> int:
    """Send these requests to Orders once more, but for those that still wait to be sent; returns how many."""
    async with door.pool.acquire() as connection, connection.transaction():
        bodies = await store.unsent_requests(connection, order_ids, topics.ORDER_REQUESTS.name)
        orders = [_requested.decode(body) for body in bodies]
        quotes = await quotes_store.unsent_requests(connection, quote_ids, topics.QUOTE_REQUESTS.name)
        messages = [
            *(outbox.message(topics.ORDER_REQUESTS, order.order_id, order) for order in orders),
            *(outbox.message(topics.QUOTE_REQUESTS, quote.quote_id, quote) for quote in quotes),
        ]
        await outbox.add(connection, messages)
    return len(messages)


async def own_request(door: Door, client: Client, order_id: UUID) -> RequestRow:
    """Raises the 404 Problem for another's order as for one that never was."""
    async with door.pool.acquire() as connection:
        row = await store.request(connection, client.client_id, order_id)
    if row is None:
        raise not_found("order")
    return row


class OrdersPage(msgspec.Struct, frozen=True):
    """Orders as JSON, each an OrderView, newest first. `next`: the last one's id, when there are more."""

    orders: list[msgspec.Raw]
    source: str
    next: UUID | None = None


async def orders_page(door: Door, client: Client, status: Status | None, before: UUID | None, limit: int) -> OrdersPage:
    """A client's orders from below `before`. From `redis`; from the `database` as far as Redis does not go back, and
    while it is not to be trusted."""
    if door.views is None:
        raise TypeError("this door shows its orders otherwise")
    try:
        cached = await door.views.of_client(client.client_id, status, before, limit + 1)
    except Untrusted:
        found, source = await _from_database(door, client, status, before, limit + 1), "database"
        await door.views.read_elsewhere([entry(own) for own in found])
        bodies = [_encode(own.view) for own in found]
    else:
        bodies, source = cached.orders, "redis"
        if (floor := cached.goes_on_below) is not None:
            below = floor if before is None else min(floor, before)
            older = await _from_database(door, client, status, below, limit + 1 - len(bodies))
            bodies, source = bodies + [_encode(own.view) for own in older], "database"
    last = _order_id.decode(bodies[limit - 1]).order_id if len(bodies) > limit else None
    return OrdersPage([msgspec.Raw(body) for body in bodies[:limit]], source, last)


async def _from_database(
    door: Door, client: Client, status: Status | None, before: UUID | None, limit: int
) -> list[OwnView]:
    async with door.pool.acquire() as connection:
        rows = await store.requests_page(
            connection, client.client_id, before, None if status is None else status.value, limit
        )
    return [store.own_view(row) for row in rows]


async def own_order(door: Door, client: Client, order_id: UUID) -> msgspec.Raw:
    """A client's order as JSON, an OrderView. Raises the 404 Problem as `own_request` does."""
    if door.views is None:
        raise TypeError("this door shows its orders otherwise")
    try:
        if (cached := await door.views.own(client.client_id, order_id)) is not None:
            return msgspec.Raw(cached)
    except Untrusted:
        pass
    own = store.own_view(await own_request(door, client, order_id))
    await door.views.read_elsewhere([entry(own)])
    return msgspec.Raw(_encode(own.view))


async def cancel_order(door: Door, client: Client, order_id: UUID, reason: str) -> CommandView:
    """Ask Orders to cancel; it does so until the piece is being made."""
    order = await _own_order(door, client, order_id)
    return await _command(door, client, order, "cancel", Cancel(reason), reason)


async def resubmit_order(
    door: Door, client: Client, order_id: UUID, changes: Mapping[str, Any], *, check: Callable[[Wish, date], None]
) -> CommandView:
    """Ask Orders to price the order again, with these fields of the wish changed (none: a retry). `check` raises the
    Problem for a wish that does not hold together."""
    order = await _own_order(door, client, order_id)
    model = order.specification.model
    if not changes and await last_upload(door.models, client.client_id, model.sha256) in (None, model.upload):
        return await _command(door, client, order, "resubmit", Resubmit(), "")
    wanted: dict[str, Any] = msgspec.structs.asdict(order.specification)
    wanted |= {"model": order.specification.model.sha256, **changes}
    wish = Wish(**wanted, reference=order.reference, approve_up_to=order.approve_up_to)
    check(wish, door.now().date())
    specification = await _specification(door, client, wish)
    mark = hashlib.sha256(_encode(wish)).hexdigest()
    return await _command(door, client, order, "resubmit", Resubmit(specification), mark)


async def _own_order(door: Door, client: Client, order_id: UUID) -> Order:
    """The client's order as Orders last told of it. 404 for another's, 409 before Orders has told of it."""
    row = await own_request(door, client, order_id)
    if row.order_body is None:
        raise Problem(409, "not-yet", "The order is just being taken up", "Ask again in a moment.")
    return _order.decode(row.order_body)


async def _command(door: Door, client: Client, order: Order, action: str, wish: Action, mark: str) -> CommandView:
    """Send a command to Orders. The same wish (`mark`) for the same version is one command, however often it is
    sent."""
    now = door.now()
    command = Command(
        command_id=derived_id(action, str(order.order_id), str(order.version), mark),
        order_id=order.order_id,
        actor=Actor(kind=door.owner, id=str(client.client_id), name=client.name, account=client.client_id),
        seen_version=order.version,
        issued_at=now,
        action=wish,
    )
    async with door.pool.acquire() as connection, connection.transaction():
        return await store.commands.send(connection, command, action, client.client_id)


async def accept_price(door: Door, client: Client, order_id: UUID, quote_id: UUID, amount: Decimal) -> CommandView:
    """Send the client's acceptance to Orders, which decides. 409 for what is already known to be refused."""
    row = await own_request(door, client, order_id)
    order = _order.decode(row.order_body) if row.order_body else None
    if order is not None and order.status is Status.MANUFACTURING_APPROVED and _approved(order, quote_id, amount):
        raise Problem(409, "already-accepted", "This price is already accepted", "Nothing more needs to be done.")
    if order is None or order.status is not Status.PRICE_CALCULATED or order.quote is None:
        raise Problem(
            409,
            "no-open-price",
            "There is no price to accept now",
            f"The order is {row.status}.",
            status_now=row.status,
        )
    if order.quote.quote_id != quote_id:
        raise Problem(409, "quote-superseded", "This price is no longer the order's", "Read the order again.")
    if order.quote.amount != amount:
        raise Problem(
            409,
            "amount-differs",
            "This is not the quoted amount",
            f"The price is {order.quote.amount} {order.quote.currency}.",
        )
    now = door.now()
    if order.quote.expires_at < now:
        raise Problem(409, "quote-expired", "The price has expired", f"It was held until {order.quote.expires_at}.")
    return await _command(door, client, order, "accept", Approve(quote_id=quote_id, amount=amount), str(quote_id))


def _approved(order: Order, quote_id: UUID, amount: Decimal) -> bool:
    return order.quote is not None and order.quote.quote_id == quote_id and order.quote.amount == amount


async def _keep(connection: Connection, _: Sequence[Order], changed: Sequence[Order]) -> None:
    await store.take_changes(connection, changed)


Keep = Callable[[Connection, Sequence[Order], Sequence[Order]], Awaitable[None]]
"""Keeps changed orders: gets every version that came, and the newest of each order."""


async def take_changes(door: Door, orders: Sequence[Order], *, keep: Keep = _keep) -> None:
    """Keep what Orders says of this channel's orders, the newest version of each."""
    own = [order for order in orders if order.channel == door.channel]
    changed = newest(own)
    if not changed:
        return
    async with door.pool.acquire() as connection:
        await keep(connection, own, changed)
        if door.views is None:
            return
        shown = await store.own_views(connection, [order.order_id for order in changed])
    await door.views.push([entry(own) for own in shown])


async def take_outcomes(door: Door, outcomes: Sequence[Outcome]) -> None:
    """Keep what became of this channel's commands; those of others are not known here."""
    async with door.pool.acquire() as connection:
        await store.commands.take_outcomes(connection, outcomes)
