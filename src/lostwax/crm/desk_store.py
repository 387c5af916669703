"""SQL of the sellers' desk: the board, lists and searches of orders, and what the CRM itself knows of an order. Every
function takes a connection and works in its caller's transaction."""

from collections.abc import AsyncIterator, Sequence
from datetime import date, datetime
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from lostwax.contracts.orders import Order, OrderRequested, Status
from lostwax.crm.domain import OFF_BOARD, Placed, as_accepted
from lostwax.kit.postgres import Connection

_order = msgspec.json.Decoder(Order)
_requested = msgspec.json.Decoder(OrderRequested)
_PLACED = "o.status_since, o.body, d.customer_id, c.name AS customer, d.seller_id, s.name AS seller"
_FROM = (
    "orders o LEFT JOIN desk d USING (order_id) LEFT JOIN customers c USING (customer_id)"
    " LEFT JOIN staff s ON s.staff_id = d.seller_id"
)

_FROM_DESK = (
    "desk d JOIN orders o USING (order_id) LEFT JOIN customers c USING (customer_id)"
    " LEFT JOIN staff s ON s.staff_id = d.seller_id"
)


class Count(msgspec.Struct, frozen=True):
    """How many orders have a status, and since when the oldest has had it."""

    status: Status
    count: int
    oldest_since: datetime | None


class Filters(msgspec.Struct, frozen=True):
    """Which orders a list is of; None: any."""

    status: Status | None = None
    seller_id: UUID | None = None
    customer_id: UUID | None = None
    channel: str | None = None
    alloy: str | None = None
    reference: str | None = None


def _uuid(value: Any) -> UUID | None:
    return None if value is None else UUID(int=value.int)


def _placed(row: asyncpg.Record) -> Placed:
    return Placed(
        _order.decode(row["body"]),
        row["status_since"],
        _uuid(row["customer_id"]),
        row["customer"],
        _uuid(row["seller_id"]),
        row["seller"],
    )


async def placed(connection: Connection, order_ids: Sequence[UUID]) -> list[Placed]:
    rows = await connection.fetch(f"SELECT {_PLACED} FROM {_FROM} WHERE o.order_id = ANY($1)", sorted(set(order_ids)))
    return [_placed(row) for row in rows]


_UNCONFIRMED = (
    "SELECT r.body, r.accepted_at, d.customer_id, c.name AS customer, d.seller_id, s.name AS seller FROM requests r"
    " LEFT JOIN desk d USING (order_id) LEFT JOIN customers c USING (customer_id)"
    " LEFT JOIN staff s ON s.staff_id = d.seller_id WHERE r.version = 0"
)


def _accepted(row: asyncpg.Record) -> Placed:
    seller_id, seller = _uuid(row["seller_id"]), row["seller"]
    order = as_accepted(_requested.decode(row["body"]), seller_id, seller)
    return Placed(order, row["accepted_at"], _uuid(row["customer_id"]), row["customer"], seller_id, seller)


async def accepted(connection: Connection, order_id: UUID) -> Placed | None:
    """An order that was accepted here, while Orders has not told of it."""
    row = await connection.fetchrow(f"{_UNCONFIRMED} AND r.order_id = $1", order_id)
    return None if row is None else _accepted(row)


async def just_accepted(connection: Connection, limit: int) -> list[Placed]:
    """Orders that were accepted here and that Orders has not told of yet, newest first."""
    rows = await connection.fetch(f"{_UNCONFIRMED} ORDER BY r.order_id DESC LIMIT $1", limit)
    return [_accepted(row) for row in rows]


async def on_board(connection: Connection) -> AsyncIterator[Placed]:
    """Every order that is not over. Needs a transaction."""
    query = f"SELECT {_PLACED} FROM {_FROM} WHERE o.status NOT IN ('CLOSED', 'CANCELLED')"
    async for row in connection.cursor(query, prefetch=500):
        yield _placed(row)


async def count_on_board(connection: Connection) -> int:
    return int(
        await connection.fetchval("SELECT sum(count) FROM order_counts WHERE status NOT IN ('CLOSED', 'CANCELLED')")
    )


async def counts(connection: Connection) -> list[Count]:
    """Of every status that is on the board, in no order."""
    rows = await connection.fetch(
        """
        SELECT k.status, k.count, f.status_since FROM order_counts k
        LEFT JOIN LATERAL (SELECT status_since FROM orders o
                           WHERE o.status = k.status AND o.status NOT IN ('CLOSED', 'CANCELLED')
                           ORDER BY o.status_since LIMIT 1) f ON true
        """
    )
    found = [Count(Status(row["status"]), row["count"], row["status_since"]) for row in rows]
    return [count for count in found if count.status not in OFF_BOARD]


async def board_version(connection: Connection) -> int:
    """Differs whenever an order has changed."""
    return int(await connection.fetchval("SELECT sum(changes) FROM order_counts"))


async def longest(connection: Connection, status: Status, seller_id: UUID | None, limit: int) -> list[Placed]:
    """What has had a status for longest, of all sellers or of one."""
    if seller_id is None:
        rows = await connection.fetch(
            f"""
            SELECT {_PLACED} FROM
            (SELECT * FROM orders WHERE status = $1 AND status NOT IN ('CLOSED', 'CANCELLED')
             ORDER BY status_since, order_id LIMIT $2) o
            LEFT JOIN desk d USING (order_id) LEFT JOIN customers c USING (customer_id)
            LEFT JOIN staff s ON s.staff_id = d.seller_id
            ORDER BY o.status_since, o.order_id
            """,
            status.value,
            limit,
        )
    else:
        rows = await connection.fetch(
            f"SELECT {_PLACED} FROM {_FROM} WHERE d.seller_id = $1 AND o.status = $2"
            " ORDER BY o.status_since, o.order_id LIMIT $3",
            seller_id,
            status.value,
            limit,
        )
    return [_placed(row) for row in rows]


async def counts_of_seller(connection: Connection, seller_id: UUID) -> list[Count]:
    rows = await connection.fetch(
        "SELECT o.status, count(*) AS count, min(o.status_since) AS oldest FROM desk d JOIN orders o USING (order_id)"
        " WHERE d.seller_id = $1 AND o.status NOT IN ('CLOSED', 'CANCELLED') GROUP BY o.status",
        seller_id,
    )
    return [Count(Status(row["status"]), row["count"], row["oldest"]) for row in rows]


async def orders_page(connection: Connection, filters: Filters, before: UUID | None, limit: int) -> list[Placed]:
    """Orders newest first, from below `before`."""
    # Of one customer or seller the desk's own index gives them in their order; by the orders' a planner would walk
    # through everybody's until it has found enough.
    of_one = filters.customer_id is not None or filters.seller_id is not None
    key, where_from = ("d.order_id", _FROM_DESK) if of_one else ("o.order_id", _FROM)
    conditions: list[str] = []
    arguments: list[object] = [before, limit]
    if before is not None:
        conditions.append(f"{key} < $1")
    else:
        conditions.append("$1::uuid IS NULL")

    def wanted(condition: str, value: object) -> None:
        if value is not None:
            arguments.append(value)
            conditions.append(condition.format(f"${len(arguments)}"))

    wanted("o.status = {}", None if filters.status is None else filters.status.value)
    wanted("d.seller_id = {}", filters.seller_id)
    wanted("d.customer_id = {}", filters.customer_id)
    wanted("o.channel = {}", filters.channel)
    wanted("o.body -> 'specification' ->> 'alloy' = {}", filters.alloy)
    wanted("o.reference LIKE {}", None if filters.reference is None else _beginning(filters.reference))
    rows = await connection.fetch(
        f"SELECT {_PLACED} FROM {where_from} WHERE {' AND '.join(conditions)} ORDER BY {key} DESC LIMIT $2", *arguments
    )
    return [_placed(row) for row in rows]


def _beginning(text: str) -> str:
    escaped = text.lower().replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"{escaped}%"


class Known(msgspec.Struct, frozen=True):
    """For whom an order is, and who looks after it."""

    customer_id: UUID | None
    customer: str | None
    seller_id: UUID | None
    seller: str | None


async def known_of(connection: Connection, order_ids: Sequence[UUID]) -> dict[UUID, Known]:
    """What the CRM itself knows of these orders, where it knows something."""
    rows = await connection.fetch(
        "SELECT d.order_id, d.customer_id, c.name AS customer, d.seller_id, s.name AS seller FROM desk d"
        " LEFT JOIN customers c USING (customer_id) LEFT JOIN staff s ON s.staff_id = d.seller_id"
        " WHERE d.order_id = ANY($1)",
        order_ids,
    )
    return {
        UUID(int=r["order_id"].int): Known(_uuid(r["customer_id"]), r["customer"], _uuid(r["seller_id"]), r["seller"])
        for r in rows
    }


async def by_code(connection: Connection, bits: int, limit: int) -> list[Placed]:
    """Orders of a short code: mostly one."""
    rows = await connection.fetch(f"SELECT {_PLACED} FROM {_FROM} WHERE o.code_bits = $1 LIMIT $2", bits, limit)
    return [_placed(row) for row in rows]


async def by_reference(connection: Connection, reference: str, limit: int) -> list[Placed]:
    """Orders whose reference begins so, in any case of letters, by reference."""
    rows = await connection.fetch(
        f"""
        SELECT {_PLACED} FROM
        (SELECT * FROM orders WHERE reference LIKE $1 ORDER BY reference, order_id DESC LIMIT $2) o
        LEFT JOIN desk d USING (order_id) LEFT JOIN customers c USING (customer_id)
        LEFT JOIN staff s ON s.staff_id = d.seller_id
        """,
        _beginning(reference),
        limit,
    )
    return [_placed(row) for row in rows]


async def take(connection: Connection, order_id: UUID, customer_id: UUID, seller_id: UUID, remarks: str) -> None:
    """For whom a new order is, who took it, and what they wrote down. A customer who was merged meanwhile is the one
    that remains."""
    await connection.execute(
        "INSERT INTO desk (order_id, customer_id, seller_id, remarks)"
        " SELECT $1, coalesce(merged_into, customer_id), $3, $4 FROM customers WHERE customer_id = $2",
        order_id,
        customer_id,
        seller_id,
        remarks,
    )


async def remarks(connection: Connection, order_id: UUID) -> str:
    """What the seller wrote down who took the order; "": nothing."""
    return str(await connection.fetchval("SELECT remarks FROM desk WHERE order_id = $1", order_id) or "")


async def set_customer(connection: Connection, order_id: UUID, customer_id: UUID, seller_id: UUID) -> None:
    """For whom an order is. Who looks after it already goes on doing so."""
    await connection.execute(
        "INSERT INTO desk AS d (order_id, customer_id, seller_id) VALUES ($1, $2, $3) ON CONFLICT (order_id) DO UPDATE"
        " SET customer_id = excluded.customer_id, seller_id = coalesce(d.seller_id, excluded.seller_id)",
        order_id,
        customer_id,
        seller_id,
    )


async def insert_delivery(
    connection: Connection, order_id: UUID, on: date, received_by: str, staff_id: UUID, at: datetime
) -> None:
    """What was said first stays."""
    await connection.execute(
        "INSERT INTO deliveries (order_id, delivered_on, received_by, staff_id, at) VALUES ($1, $2, $3, $4, $5)"
        " ON CONFLICT (order_id) DO NOTHING",
        order_id,
        on,
        received_by,
        staff_id,
        at,
    )


async def delivery(connection: Connection, order_id: UUID) -> tuple[date, str, str] | None:
    """When, to whom, and the seller who said so."""
    row = await connection.fetchrow(
        "SELECT delivered_on, received_by, name FROM deliveries JOIN staff USING (staff_id) WHERE order_id = $1",
        order_id,
    )
    return None if row is None else (row["delivered_on"], row["received_by"], row["name"])


async def sellers(connection: Connection) -> list[tuple[UUID, str]]:
    """Who sells now, by name."""
    rows = await connection.fetch(
        "SELECT staff_id, name FROM staff WHERE withdrawn_at IS NULL AND role IN ('seller', 'administrator')"
        " ORDER BY name, staff_id LIMIT 500"
    )
    return [(UUID(int=row["staff_id"].int), row["name"]) for row in rows]
