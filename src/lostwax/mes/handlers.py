"""Use cases of the MES, each one transaction; lists are shown anew after it, never inside it."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime, timedelta
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
from lostwax.contracts.staff import StaffChanged
from lostwax.kit import metrics, outbox
from lostwax.kit.auth import Member
from lostwax.kit.postgres import Connection, Pool
from lostwax.kit.problems import Problem, not_found
from lostwax.kit.projection import newest
from lostwax.kit.staff import Account
from lostwax.mes import store
from lostwax.mes.clients import Lists, Standings, Untrusted
from lostwax.mes.domain import OVERSEERS, Card, ListName
from lostwax.mes.store import ClaimRow, StepRow

_claims = metrics.counter(CLAIMS)
_pages = metrics.counter(LIST_PAGES)

MES = Actor(kind=ActorKind.SYSTEM, id="mes", name="the workshop's clock")
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


async def account(workshop: Workshop, member: Member) -> Account:
    """What is known here of who comes in with a token. The token is the CRM's own word, so where it is newer than what
    the CRM has told by Kafka it is taken down first; whatever is newer still comes by Kafka and wins."""
    async with workshop.pool.acquire() as connection:
        known = await store.account(connection, member.staff_id)
        if known is not None and known.version >= member.version:
            return known
        told = StaffChanged(member.staff_id, member.name, member.role, True, member.version)
        await store.take_staff(connection, [told])
        known = await store.account(connection, member.staff_id)
    assert known is not None
    return known


async def take_staff(workshop: Workshop, changes: Sequence[StaffChanged]) -> None:
    """Keep what the CRM says of accounts, the newest version of each."""
    async with workshop.pool.acquire() as connection:
        await store.take_staff(connection, changes)


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


async def claim_order(workshop: Workshop, operator: Member, order_id: UUID) -> ClaimRow:
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
            won = await store.insert_claim(connection, claim_id, order_id, operator.staff_id, now)
            if won:
                await store.replace_on_lists(connection, [order_id])
                wish = StartManufacturing(claim_id)
                await _ask(connection, _actor(operator), operator.staff_id, order, "claim", wish, claim_id, now)
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


def _taken(winner: ClaimRow, operator: Member) -> Problem:
    _claims.add(1, "lost")
    yours = winner.operator_id == operator.staff_id
    return Problem(
        409,
        "already-yours" if yours else "already-taken",
        "You have this order already" if yours else f"{winner.operator} has this order",
        "It is under your work." if yours else f"{winner.operator} took it at {winner.claimed_at:%H:%M:%S} UTC.",
        taken_by=winner.operator,
    )


async def release_order(workshop: Workshop, operator: Member, order_id: UUID, reason: str) -> StepRow:
    """Give an order back to the queue: one's own, or as an overseer anybody's."""

    async def release(connection: Connection, _: Order) -> Action:
        claim = await _claim_in_reach(connection, operator, order_id)
        return ReleaseClaim(claim_id=claim.claim_id, reason=reason)

    return await _step(workshop, operator, order_id, "release", (Status.MANUFACTURING_STARTED,), release)


async def complete_order(workshop: Workshop, operator: Member, order_id: UUID) -> StepRow:
    """The piece is made. Only by who has the order."""

    async def complete(connection: Connection, _: Order) -> Action:
        await _own_claim(connection, operator, order_id)
        return CompleteManufacturing()

    return await _step(workshop, operator, order_id, "complete", (Status.MANUFACTURING_STARTED,), complete)


async def rework_order(workshop: Workshop, operator: Member, order_id: UUID, reason: str) -> StepRow:
    """The quality check failed: the piece goes back into the queue, first in line. While it is in somebody's hands only
    they can say so, or an overseer."""

    async def rework(connection: Connection, order: Order) -> Action:
        if order.status is Status.MANUFACTURING_STARTED:
            await _claim_in_reach(connection, operator, order_id)
        return Rework(reason)

    made = (Status.MANUFACTURING_STARTED, Status.MANUFACTURING_COMPLETED)
    return await _step(workshop, operator, order_id, "rework", made, rework)


async def pack_order(workshop: Workshop, operator: Member, order_id: UUID) -> StepRow:
    """The piece goes into its box; anybody may do that."""

    async def pack(_: Connection, __: Order) -> Action:
        return Pack()

    return await _step(workshop, operator, order_id, "pack", (Status.MANUFACTURING_COMPLETED,), pack)


async def ship_order(workshop: Workshop, operator: Member, order_id: UUID, shipment: Shipment) -> StepRow:
    """The parcel is handed to the carrier."""

    async def ship(_: Connection, __: Order) -> Action:
        return Ship(shipment)

    return await _step(workshop, operator, order_id, "ship", (Status.PACKAGING,), ship)


async def _step(
    workshop: Workshop,
    operator: Member,
    order_id: UUID,
    action: str,
    sources: Sequence[Status],
    choose: Callable[[Connection, Order], Awaitable[Action]],
) -> StepRow:
    """Ask Orders for a step. The same step of the same version is asked for once, however often it is clicked."""
    async with workshop.pool.acquire() as connection:
        async with connection.transaction():
            # A change is taken before or after, never between: it ends the claim together with the status.
            await store.lock_orders(connection, [order_id])
            order = await _known_order(connection, order_id)
            if order.status not in sources:
                raise Problem(
                    409,
                    "wrong-status",
                    "This step does not fit the order now",
                    f"It is {order.status}, not {' or '.join(sources)}.",
                    status_now=order.status,
                )
            wish = await choose(connection, order)
            command_id = derived_id(action, str(order_id), str(order.version), str(operator.staff_id))
            now = workshop.now()
            await _ask(connection, _actor(operator), operator.staff_id, order, action, wish, command_id, now)
        asked = await store.step(connection, command_id)
    assert asked is not None
    return asked


def _actor(member: Member) -> Actor:
    return Actor(kind=ActorKind(member.role.value), id=str(member.staff_id), name=member.name)


async def _ask(
    connection: Connection,
    actor: Actor,
    operator_id: UUID,
    order: Order,
    action: str,
    wish: Action,
    command_id: UUID,
    now: datetime,
) -> None:
    """Send a command once. `operator_id`: whose step it is, which for what the MES does by itself is the claim's
    holder."""
    if not await store.add_step(connection, command_id, order.order_id, operator_id, action, now):
        return
    command = Command(
        command_id=command_id,
        order_id=order.order_id,
        actor=actor,
        seen_version=order.version,
        issued_at=now,
        action=wish,
    )
    await outbox.add(connection, [outbox.message(topics.ORDER_COMMANDS, order.order_id, command)])


async def expire_claims(workshop: Workshop, limit: timedelta, *, most: int = 200) -> int:
    """Ask Orders to put back into the queue what has been in somebody's hands for longer than `limit`; returns how
    many were asked for. Each claim is asked for once for each version of its order, by however many processes."""
    now = workshop.now()
    async with workshop.pool.acquire() as connection, connection.transaction():
        held = await store.held_too_long(connection, now - limit, most)
        for claim, order in held:
            reason = f"{claim.operator} had it in hand for more than {_hours(limit)}."
            command_id = derived_id("expire", str(claim.claim_id), str(order.version))
            wish = ReleaseClaim(claim_id=claim.claim_id, reason=reason)
            await _ask(connection, MES, claim.operator_id, order, "expire", wish, command_id, now)
    return len(held)


def _hours(time: timedelta) -> str:
    hours = time.total_seconds() / 3600
    return f"{hours:g} hours" if hours >= 1 else f"{time.total_seconds():g} seconds"


async def _known_order(connection: Connection, order_id: UUID) -> Order:
    order = await store.order(connection, order_id)
    if order is None:
        raise not_found("order")
    return order


async def _claim_in_reach(connection: Connection, operator: Member, order_id: UUID) -> ClaimRow:
    """The claim of an order that this member may end: their own, or as an overseer anybody's."""
    if operator.role not in OVERSEERS:
        return await _own_claim(connection, operator, order_id)
    claim = await store.active_claim(connection, order_id)
    if claim is None:
        raise Problem(409, "in-nobodys-hands", "Nobody has this order", "There is no claim to be ended.")
    return claim


async def _own_claim(connection: Connection, operator: Member, order_id: UUID) -> ClaimRow:
    claim = await store.active_claim(connection, order_id)
    if claim is None or claim.operator_id != operator.staff_id:
        holder = claim.operator if claim else "nobody"
        raise Problem(409, "not-yours", "You do not have this order", f"It is in the hands of {holder}.")
    return claim


async def take_changes(workshop: Workshop, orders: Sequence[Order]) -> None:
    """Keep what Orders says, the newest version of each order; end claims whose order has moved on; show it."""
    changed = newest(orders)
    order_ids = [order.order_id for order in changed]
    async with workshop.pool.acquire() as connection, connection.transaction():
        await store.lock_orders(connection, order_ids)
        await store.take_changes(connection, changed)
        await store.replace_on_lists(connection, await store.end_claims(connection, order_ids))
    await workshop.show(order_ids)


async def take_outcomes(workshop: Workshop, outcomes: Sequence[Outcome]) -> None:
    """Settle the steps that were asked for: confirm claims, or void them with the reason."""
    by_command = {o.command_id: o for o in outcomes}
    async with workshop.pool.acquire() as connection, connection.transaction():
        await store.lock_orders(connection, (o.order_id for o in outcomes))
        moved = await store.take_outcomes(connection, [by_command[i] for i in sorted(by_command)])
        await store.end_claims(connection, moved)
        await store.replace_on_lists(connection, moved)
    await workshop.show(moved)
