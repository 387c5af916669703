"""Use cases of the MES, each one transaction; lists are shown anew after it, never inside it."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime
from uuid import UUID

from lostwax.contracts import topics
from lostwax.contracts.ids import derived_id, new_id
from lostwax.contracts.metrics import CLAIMS, LIST_PAGES
from lostwax.contracts.orders import (
    Action,
    Actor,
    ActorKind,
    Command,
    CompleteManufacturing,
    Order,
    Outcome,
    Pack,
    ReleaseClaim,
    Rework,
    Ship,
    Shipment,
    StartManufacturing,
    Status,
)
from lostwax.kit import metrics, outbox
from lostwax.kit.auth import digest_of_key, new_api_key
from lostwax.kit.postgres import Connection, Pool
from lostwax.kit.problems import Problem, not_found
from lostwax.mes import store
from lostwax.mes.clients import Lists, Standings, Untrusted
from lostwax.mes.domain import Card, ListName
from lostwax.mes.store import ClaimRow, Operator, StepRow

_claims = metrics.counter(CLAIMS)
_pages = metrics.counter(LIST_PAGES)

TAKABLE = (Status.MANUFACTURING_APPROVED, Status.REWORK)


class Workshop:
    """What the use cases need: database, lists, clock."""

    def __init__(self, pool: Pool, lists: Lists, *, now: Callable[[], datetime]) -> None:
        self.pool = pool
        self.lists = lists
        self.now = now

    async def show(self, order_ids: Iterable[UUID]) -> None:
        """Bring the lists up to what the database says of these orders now."""
        async with self.pool.acquire() as connection:
            placed = await store.placed(connection, order_ids)
        await self.lists.show(placed)


STANDINGS = Standings(store.all_on_lists, store.count_on_lists, store.placed)
"""What the lists in Redis are built from."""


async def add_operator(connection: Connection, name: str) -> tuple[Operator, str]:
    """A new operator and their badge, which is shown once and kept only as a digest."""
    operator, badge = Operator(new_id(), name), new_api_key("lwo")
    await store.add_operator(connection, operator, digest_of_key(badge))
    return operator, badge


async def list_page(
    workshop: Workshop, list_name: ListName, after: tuple[datetime, UUID] | None, limit: int
) -> tuple[list[Card], str]:
    """A page of a list, and where it came from: `redis`, or `database` while Redis is not to be trusted."""
    try:
        cards = await workshop.lists.cards(list_name, after, limit)
        _pages.add(1, list_name, "redis")
        return cards, "redis"
    except Untrusted:
        _pages.add(1, list_name, "database")
        async with workshop.pool.acquire() as connection:
            placed = await store.page(connection, list_name.value, after, limit)
        await workshop.lists.shown_elsewhere(placed)
        return [p.card for p in placed], "database"


async def claim_order(workshop: Workshop, operator: Operator, order_id: UUID) -> ClaimRow:
    """Take an order: one operator gets in, the others get 409 with the winner's name. The claim is pending until
    Orders has confirmed the start."""
    async with workshop.pool.acquire() as connection:
        if (winner := await store.active_claim(connection, order_id)) is not None:
            raise _taken(winner, operator)
        claim_id = new_id()
        async with connection.transaction():
            order = await _known_order(connection, order_id)
            if order.status not in TAKABLE:
                raise Problem(
                    409,
                    "not-in-the-queue",
                    "This order cannot be taken now",
                    f"It is {order.status}.",
                    status_now=order.status,
                )
            now = workshop.now()
            won = await store.insert_claim(connection, claim_id, order_id, operator.operator_id, now)
            if won:
                await store.replace_on_lists(connection, [order_id])
                await _ask(connection, operator, order, "claim", StartManufacturing(claim_id), claim_id, now)
        if not won:
            winner = await store.active_claim(connection, order_id)
            if winner is None:
                raise Problem(409, "claim-voided", "This order was being taken", "Look at the list again.")
            raise _taken(winner, operator)
        mine = await store.claim(connection, claim_id)
    _claims.add(1, "won")
    await workshop.show([order_id])
    assert mine is not None
    return mine


def _taken(winner: ClaimRow, operator: Operator) -> Problem:
    _claims.add(1, "lost")
    yours = winner.operator_id == operator.operator_id
    return Problem(
        409,
        "already-yours" if yours else "already-taken",
        "You have this order already" if yours else f"{winner.operator} has this order",
        "It is under your work." if yours else f"{winner.operator} took it at {winner.claimed_at:%H:%M:%S} UTC.",
        taken_by=winner.operator,
    )


async def release_order(workshop: Workshop, operator: Operator, order_id: UUID, reason: str) -> StepRow:
    """Give an order back to the queue."""

    async def release(connection: Connection, _: Order) -> Action:
        claim = await _own_claim(connection, operator, order_id)
        return ReleaseClaim(claim_id=claim.claim_id, reason=reason)

    return await _step(workshop, operator, order_id, "release", (Status.MANUFACTURING_STARTED,), release)


async def complete_order(workshop: Workshop, operator: Operator, order_id: UUID) -> StepRow:
    """The piece is made. Only by who has the order."""

    async def complete(connection: Connection, _: Order) -> Action:
        await _own_claim(connection, operator, order_id)
        return CompleteManufacturing()

    return await _step(workshop, operator, order_id, "complete", (Status.MANUFACTURING_STARTED,), complete)


async def rework_order(workshop: Workshop, operator: Operator, order_id: UUID, reason: str) -> StepRow:
    """The quality check failed: the piece goes back into the queue, first in line."""

    async def rework(connection: Connection, order: Order) -> Action:
        if order.status is Status.MANUFACTURING_STARTED:
            await _own_claim(connection, operator, order_id)
        return Rework(reason)

    made = (Status.MANUFACTURING_STARTED, Status.MANUFACTURING_COMPLETED)
    return await _step(workshop, operator, order_id, "rework", made, rework)


async def pack_order(workshop: Workshop, operator: Operator, order_id: UUID) -> StepRow:
    """The piece goes into its box; anybody may do that."""

    async def pack(_: Connection, __: Order) -> Action:
        return Pack()

    return await _step(workshop, operator, order_id, "pack", (Status.MANUFACTURING_COMPLETED,), pack)


async def ship_order(workshop: Workshop, operator: Operator, order_id: UUID, shipment: Shipment) -> StepRow:
    """The parcel is handed to the carrier."""

    async def ship(_: Connection, __: Order) -> Action:
        return Ship(shipment)

    return await _step(workshop, operator, order_id, "ship", (Status.PACKAGING,), ship)


async def _step(
    workshop: Workshop,
    operator: Operator,
    order_id: UUID,
    action: str,
    sources: Sequence[Status],
    choose: Callable[[Connection, Order], Awaitable[Action]],
) -> StepRow:
    """Ask Orders for a step. The same step of the same version is asked for once, however often it is clicked."""
    async with workshop.pool.acquire() as connection:
        order = await _known_order(connection, order_id)
        if order.status not in sources:
            raise Problem(
                409,
                "wrong-status",
                "This step does not fit the order now",
                f"It is {order.status}, not {' or '.join(sources)}.",
                status_now=order.status,
            )
        async with connection.transaction():
            wish = await choose(connection, order)
            command_id = derived_id(action, str(order_id), str(order.version), str(operator.operator_id))
            await _ask(connection, operator, order, action, wish, command_id, workshop.now())
        asked = await store.step(connection, command_id)
    assert asked is not None
    return asked


async def _ask(
    connection: Connection,
    operator: Operator,
    order: Order,
    action: str,
    wish: Action,
    command_id: UUID,
    now: datetime,
) -> None:
    if not await store.add_step(connection, command_id, order.order_id, operator.operator_id, action, now):
        return
    command = Command(
        command_id=command_id,
        order_id=order.order_id,
        actor=Actor(kind=ActorKind.OPERATOR, id=str(operator.operator_id), name=operator.name),
        seen_version=order.version,
        issued_at=now,
        action=wish,
    )
    await outbox.add(connection, [outbox.message(topics.ORDER_COMMANDS, order.order_id, command)])


async def _known_order(connection: Connection, order_id: UUID) -> Order:
    order = await store.order(connection, order_id)
    if order is None:
        raise not_found("order")
    return order


async def _own_claim(connection: Connection, operator: Operator, order_id: UUID) -> ClaimRow:
    claim = await store.active_claim(connection, order_id)
    if claim is None or claim.operator_id != operator.operator_id:
        holder = claim.operator if claim else "nobody"
        raise Problem(409, "not-yours", "You do not have this order", f"It is in the hands of {holder}.")
    return claim


async def take_changes(workshop: Workshop, orders: Sequence[Order]) -> None:
    """Keep what Orders says, the newest version of each order; end claims whose order has moved on; show it."""
    newest: dict[UUID, Order] = {}
    for order in orders:
        if order.order_id not in newest or newest[order.order_id].version < order.version:
            newest[order.order_id] = order
    async with workshop.pool.acquire() as connection, connection.transaction():
        await store.lock_orders(connection, newest)
        await store.take_changes(connection, [newest[i] for i in sorted(newest)])
        await store.replace_on_lists(connection, await store.end_claims(connection, newest))
    await workshop.show(newest)


async def take_outcomes(workshop: Workshop, outcomes: Sequence[Outcome]) -> None:
    """Settle the steps that were asked for: confirm claims, or void them with the reason."""
    by_command = {o.command_id: o for o in outcomes}
    async with workshop.pool.acquire() as connection, connection.transaction():
        await store.lock_orders(connection, (o.order_id for o in outcomes))
        moved = await store.take_outcomes(connection, [by_command[i] for i in sorted(by_command)])
        await store.end_claims(connection, moved)
        await store.replace_on_lists(connection, moved)
    await workshop.show(moved)
