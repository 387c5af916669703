"""Use cases of the sellers' desk: the board, the search, what the CRM itself knows of an order."""

import asyncio
from collections.abc import Sequence
from datetime import date, datetime
from uuid import UUID

import msgspec

from lostwax.contracts.ids import parse_code
from lostwax.contracts.orders import Close, Status
from lostwax.crm import customers_store, desk_store, domain, handlers
from lostwax.crm.board import Untrusted
from lostwax.crm.customers_store import CustomerLine
from lostwax.crm.desk_store import Count
from lostwax.crm.domain import BOARD, OrderLine, line
from lostwax.crm.handlers import Office
from lostwax.kit.auth import Member
from lostwax.kit.commands import CommandView
from lostwax.kit.postgres import Connection
from lostwax.kit.problems import Problem

_FOUND = 20


class Column(msgspec.Struct, frozen=True):
    """A status: how many orders have it, since when the oldest has had it, and those that have had it longest."""

    status: Status
    count: int
    oldest_since: datetime | None
    orders: list[OrderLine]


class Found(msgspec.Struct, frozen=True):
    """What a search found, at most twenty of each."""

    orders: list[OrderLine]
    customers: list[CustomerLine]


async def board(office: Office, seller_id: UUID | None, rows: int) -> tuple[list[Column], str]:
    """Every status that is on the board, and where the orders were read."""
    async with office.pool.acquire() as connection:
        if seller_id is None:
            known = await desk_store.counts(connection)
        else:
            known = await desk_store.counts_of_seller(connection, seller_id)
        counts = {count.status: count for count in known}
        lines, source = await _lines(office, connection, seller_id, rows, [s for s in BOARD if s in counts])
    none = Count(Status.SUBMITTED, 0, None)
    return [
        Column(s, counts.get(s, none).count, counts.get(s, none).oldest_since, lines.get(s, [])) for s in BOARD
    ], source


async def _lines(
    office: Office, connection: Connection, seller_id: UUID | None, rows: int, statuses: Sequence[Status]
) -> tuple[dict[Status, list[OrderLine]], str]:
    if seller_id is None and office.board is not None:
        try:
            columns = await asyncio.gather(*(office.board.column(status, rows) for status in statuses))
        except Untrusted:
            pass
        else:
            known = await desk_store.known_of(connection, [o.order_id for column in columns for o in column])
            shown = [[_with(o, known) for o in column] for column in columns]
            return dict(zip(statuses, shown, strict=True)), "redis"
    placed = {status: await desk_store.longest(connection, status, seller_id, rows) for status in statuses}
    return {status: [line(p) for p in column] for status, column in placed.items()}, "database"


def _with(order: OrderLine, known: dict[UUID, desk_store.Known]) -> OrderLine:
    of = known.get(order.order_id)
    if of is None:
        return order
    return msgspec.structs.replace(
        order, customer_id=of.customer_id, customer=of.customer, seller_id=of.seller_id, seller=of.seller
    )


async def search(office: Office, text: str) -> Found:
    """By code, id, reference, name, mail address or the end of a telephone number."""
    text = text.strip()
    async with office.pool.acquire() as connection:
        orders = []
        if (bits := parse_code(text)) is not None:
            orders = await desk_store.by_code(connection, bits, _FOUND)
        elif (order_id := _as_id(text)) is not None:
            orders = await desk_store.placed(connection, [order_id])
        if not orders and len(text) >= domain.SHORTEST_WORD:
            orders = await desk_store.by_reference(connection, text, _FOUND)
        query = domain.search_query(text)
        customers = [] if query is None else await customers_store.found(connection, query, None, _FOUND)
    return Found([line(placed) for placed in orders], customers)


def _as_id(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


async def close_order(
    office: Office, member: Member, order_id: UUID, on: date | None, received_by: str, seen_version: int | None
) -> CommandView:
    """The customer has it: said to Orders, and kept here with the day and who took it. Raises the 404 and 409
    Problems, and the 422 Problem for a day that has not come."""
    today = office.now().date()
    if on is not None and on > today:
        raise Problem(422, "out-of-range", "The day of delivery has not come", f"delivered_on: at most {today}.")

    async def keep(connection: Connection) -> None:
        await desk_store.insert_delivery(
            connection, order_id, on or today, received_by.strip(), member.staff_id, office.now()
        )

    return await handlers.command(office, member, order_id, "close", Close(), seen_version, beside=keep)
