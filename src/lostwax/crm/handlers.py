"""Use cases of the CRM, each one transaction; the network is never waited for inside one."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from lostwax.contracts import topics
from lostwax.contracts.ids import derived_id, new_id
from lostwax.contracts.orders import Action, Actor, ActorKind, Command, Order, Outcome, Resubmit
from lostwax.contracts.staff import Role
from lostwax.crm import desk_store, domain, layouts_store, store
from lostwax.crm.board import Board
from lostwax.crm.store import StaffRow
from lostwax.kit import outbox
from lostwax.kit.auth import Member, digest_of_key, new_api_key
from lostwax.kit.commands import CommandView
from lostwax.kit.postgres import Connection, Pool
from lostwax.kit.problems import Problem, not_found
from lostwax.kit.projection import newest

_encode = msgspec.json.Encoder().encode


class Office:
    """What the use cases need: database, clock, and the board in Redis (None: there is none, all is read from the
    database). `letters`: the language of letters, `en` or `ru`; `sellers_address`: who gets them when customers write
    (empty: nobody)."""

    def __init__(
        self,
        pool: Pool,
        board: Board | None = None,
        *,
        now: Callable[[], datetime],
        letters: str = "en",
        sellers_address: str = "",
    ) -> None:
        self.letters, self.sellers_address = letters, sellers_address
        self.pool = pool
        self.board = board
        self.now = now


async def add_staff(connection: Connection, name: str, role: Role, now: datetime) -> tuple[StaffRow, str]:
    """A new member of the staff and their badge, which is shown once and kept only as a digest. Raises
    msgspec.ValidationError for a name that is empty or too long."""
    row, badge = StaffRow(new_id(), name, role, 1, now, None), new_api_key("lwb")
    async with connection.transaction():
        await store.insert_staff(connection, row)
        await store.insert_badge(connection, digest_of_key(badge), row.staff_id, now)
        await _tell(connection, row)
    return row, badge


async def withdraw_staff(connection: Connection, staff_id: UUID, now: datetime) -> StaffRow:
    """End an account, for ever: its tokens are refused at once. Withdrawing twice changes nothing. Raises the 404
    Problem."""
    async with connection.transaction():
        return await _changed(connection, staff_id, await store.withdraw(connection, staff_id, now))


async def set_role(connection: Connection, staff_id: UUID, role: Role) -> StaffRow:
    """Give a member another role; their tokens of the role before are refused at once. Raises the 404 Problem, and
    the 409 Problem for a withdrawn member."""
    async with connection.transaction():
        row = await _changed(connection, staff_id, await store.set_role(connection, staff_id, role))
    if row.withdrawn_at is not None:
        raise Problem(409, "withdrawn", "This account was withdrawn", "Add its holder anew.")
    return row


async def end_sessions(connection: Connection, staff_id: UUID) -> StaffRow:
    """Whoever is signed in by this account, wherever, signs in again: for a lost tablet. The badge stays good. Raises
    the 404 Problem."""
    async with connection.transaction():
        return await _changed(connection, staff_id, await store.end_sessions(connection, staff_id))


async def _changed(connection: Connection, staff_id: UUID, changed: StaffRow | None) -> StaffRow:
    """The row that was changed just now, told to the others; or as it is, when there was nothing to change."""
    if changed is not None:
        await _tell(connection, changed)
        return changed
    found = await store.staff(connection, staff_id)
    if found is None:
        raise Problem(404, "not-found", "No such member of the staff", "See GET /v1/staff.")
    return found


async def _tell(connection: Connection, row: StaffRow) -> None:
    # The row is locked by its change, so that versions stand in the outbox in their order.
    await outbox.add(connection, [outbox.message(topics.STAFF_CHANGES, row.staff_id, row.changed())])


async def badge_holder(office: Office, badge: str) -> StaffRow | None:
    """Whose badge this is; None for an unknown or withdrawn one."""
    async with office.pool.acquire() as connection:
        return await store.staff_of_badge(connection, digest_of_key(badge))


async def known_order(office: Office, order_id: UUID) -> Order:
    """An order as Orders told of it. Raises the 404 Problem, or 409 for one that was just accepted here."""
    order = await seen_order(office, order_id)
    if order.version == 0:
        raise Problem(409, "not-yet", "The order is just being taken up", "It is safe; ask again in a moment.")
    return order


async def seen_order(office: Office, order_id: UUID) -> Order:
    """As `known_order`, or as it was accepted here, at version 0. Raises the 404 Problem."""
    async with office.pool.acquire() as connection:
        order = await store.order(connection, order_id)
        if order is None and (placed := await desk_store.accepted(connection, order_id)) is not None:
            return placed.order
        # Orders may have told of it between the two looks.
        order = order or await store.order(connection, order_id)
    if order is None:
        raise Problem(404, "not-found", "No such order", "Orders has not told of it (yet).")
    return order


async def command(
    office: Office,
    member: Member,
    order_id: UUID,
    action: str,
    wish: Action,
    seen_version: int | None,
    *,
    beside: Callable[[Connection], Awaitable[None]] | None = None,
) -> CommandView:
    """Send a seller's wish to Orders, which decides. `seen_version` None: the newest that is known here. The same wish
    of the same seller for the same version is one command. `beside`: what is kept in the same transaction. Raises the
    409 Problem for what is known to be refused."""
    order = await known_order(office, order_id)
    seen = order.version if seen_version is None else seen_version
    mark = _encode(wish).decode()
    now = office.now()
    wanted = Command(
        command_id=derived_id(action, str(order_id), str(seen), str(member.staff_id), mark),
        order_id=order_id,
        actor=Actor(kind=ActorKind(member.role.value), id=str(member.staff_id), name=member.name),
        seen_version=seen,
        issued_at=now,
        action=wish,
    )
    async with office.pool.acquire() as connection:
        if (sent := await store.commands.find(connection, wanted.command_id)) is not None:
            return sent  # asked again because the answer was lost: what was sent stays so
        try:
            domain.check(order, wish, seen, now)
        except domain.Hopeless as hopeless:
            raise _conflict(order, hopeless) from None
        async with connection.transaction():
            if beside is not None:
                await beside(connection)
            return await store.commands.send(connection, wanted, action, member.staff_id)


async def resubmit_order(
    office: Office, member: Member, order_id: UUID, changes: dict[str, Any], seen_version: int | None
) -> CommandView:
    """Ask Orders to price the order again, with these fields of its specification changed (none: a retry). Raises the
    422 Problem when they do not hold together."""
    if not changes:
        return await command(office, member, order_id, "resubmit", Resubmit(), seen_version)
    order = await known_order(office, order_id)
    specification = msgspec.structs.replace(order.specification, **changes)
    if (wrong := domain.misfit(specification, office.now())) is not None:
        raise Problem(422, "out-of-range", "The fields do not fit each other", wrong)
    return await command(office, member, order_id, "resubmit", Resubmit(specification), seen_version)


def _conflict(order: Order, hopeless: domain.Hopeless) -> Problem:
    """What would be refused, with the step that is in the way: what changed, who did it, when and why."""
    step = order.transition
    return Problem(
        409,
        hopeless.code,
        hopeless.title,
        hopeless.detail,
        status_now=order.status,
        version_now=order.version,
        changed={"from": step.source, "to": step.target, "by": step.actor, "at": step.at, "reason": step.reason},
    )


async def find_command(office: Office, command_id: UUID) -> CommandView:
    """What became of what anybody here asked for. Raises the 404 Problem."""
    async with office.pool.acquire() as connection:
        found = await store.commands.find(connection, command_id)
    if found is None:
        raise not_found("command")
    return found


async def take_changes(office: Office, orders: Sequence[Order]) -> None:
    """Keep what Orders says of every order, the newest version of each, and show it on the board. About what is shipped
    or cancelled nobody is waited for any more."""
    changed = newest(orders)
    over = [order.order_id for order in changed if order.status in domain.OVER]
    async with office.pool.acquire() as connection:
        async with connection.transaction():
            await store.take_changes(connection, changed)
            if over:
                await layouts_store.stop_waiting(connection, over, office.now())
        if office.board is None:
            return
        now = await desk_store.placed(connection, [order.order_id for order in orders])
    await office.board.show(now)


async def take_outcomes(office: Office, outcomes: Sequence[Outcome]) -> None:
    """Keep what became of the commands that were sent from here."""
    async with office.pool.acquire() as connection:
        await store.commands.take_outcomes(connection, outcomes)
