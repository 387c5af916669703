"""SQL of tasks, of the sellers' load, and of handing work over. Every function takes a connection and works in its
caller's transaction."""

from datetime import date, datetime
from uuid import UUID

import asyncpg
import msgspec

from lostwax.kit.postgres import Connection


class Task(msgspec.Struct, frozen=True):
    """What a seller is to do, by a day."""

    task_id: UUID
    seller_id: UUID
    seller: str
    text: str
    due_on: date
    order_id: UUID | None
    customer_id: UUID | None
    customer: str | None
    created_at: datetime
    done_at: datetime | None


class Load(msgspec.Struct, frozen=True):
    """What a seller has on the desk: orders that are not over, layouts that wait for the seller, tasks to do, those
    that are overdue, and customers."""

    seller_id: UUID
    seller: str
    orders: int
    layouts_waiting: int
    tasks: int
    overdue: int
    customers: int


class HandedOver(msgspec.Struct, frozen=True):
    orders: int
    customers: int
    tasks: int


def _id(value: object) -> UUID | None:
    return None if value is None else UUID(int=value.int)  # type: ignore[attr-defined]


def _task(row: asyncpg.Record) -> Task:
    ids = {name: _id(row[name]) for name in ("task_id", "seller_id", "order_id", "customer_id")}
    return Task(**dict(row) | ids)


_TASK = (
    "t.task_id, t.seller_id, s.name AS seller, t.text, t.due_on, t.order_id, t.customer_id, c.name AS customer,"
    " t.created_at, t.done_at FROM tasks t JOIN staff s ON s.staff_id = t.seller_id"
    " LEFT JOIN customers c ON c.customer_id = t.customer_id"
)


async def to_do(connection: Connection, seller_id: UUID | None, limit: int) -> list[Task]:
    """Of one seller or of all, what is due first."""
    rows = await connection.fetch(
        f"SELECT {_TASK} WHERE t.done_at IS NULL AND ($1::uuid IS NULL OR t.seller_id = $1)"
        " ORDER BY t.due_on, t.task_id LIMIT $2",
        seller_id,
        limit,
    )
    return [_task(row) for row in rows]


async def task(connection: Connection, task_id: UUID) -> Task | None:
    row = await connection.fetchrow(f"SELECT {_TASK} WHERE t.task_id = $1", task_id)
    return None if row is None else _task(row)


async def insert(
    connection: Connection,
    task_id: UUID,
    seller_id: UUID,
    text: str,
    due_on: date,
    order_id: UUID | None,
    customer_id: UUID | None,
    created_by: UUID,
    at: datetime,
) -> None:
    await connection.execute(
        "INSERT INTO tasks (task_id, seller_id, text, due_on, order_id, customer_id, created_by, created_at)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        task_id,
        seller_id,
        text,
        due_on,
        order_id,
        customer_id,
        created_by,
        at,
    )


async def set_done(connection: Connection, task_id: UUID, at: datetime) -> None:
    """Doing it twice changes nothing."""
    await connection.execute("UPDATE tasks SET done_at = $2 WHERE task_id = $1 AND done_at IS NULL", task_id, at)


async def load(connection: Connection, today: date) -> list[Load]:
    """Of everybody who sells, or did and still has something, by name."""
    rows = await connection.fetch(
        """
        SELECT s.staff_id AS seller_id, s.name AS seller,
            (SELECT count(*) FROM desk d JOIN orders o USING (order_id)
             WHERE d.seller_id = s.staff_id AND o.status NOT IN ('CLOSED', 'CANCELLED')) AS orders,
            (SELECT count(*) FROM layout_waits w JOIN desk d USING (order_id)
             WHERE d.seller_id = s.staff_id AND w.party = 'seller' AND w.ended_at IS NULL) AS layouts_waiting,
            (SELECT count(*) FROM tasks t WHERE t.seller_id = s.staff_id AND t.done_at IS NULL) AS tasks,
            (SELECT count(*) FROM tasks t WHERE t.seller_id = s.staff_id AND t.done_at IS NULL AND t.due_on < $1)
                AS overdue,
            (SELECT count(*) FROM customers c WHERE c.seller_id = s.staff_id AND c.merged_into IS NULL) AS customers
        FROM staff s WHERE s.role IN ('seller', 'administrator') ORDER BY s.name, s.staff_id LIMIT 500
        """,
        today,
    )
    return [Load(**dict(row) | {"seller_id": _id(row["seller_id"])}) for row in rows]


async def hand_over(connection: Connection, from_id: UUID, to_id: UUID) -> HandedOver:
    """Everything that one seller has on the desk is another's: orders that are not over, customers, tasks to do."""

    async def moved(statement: str) -> int:
        return int((await connection.execute(statement, from_id, to_id)).split()[-1])

    return HandedOver(
        await moved(
            "UPDATE desk d SET seller_id = $2 FROM orders o WHERE o.order_id = d.order_id AND d.seller_id = $1"
            " AND o.status NOT IN ('CLOSED', 'CANCELLED')"
        ),
        await moved("UPDATE customers SET seller_id = $2 WHERE seller_id = $1 AND merged_into IS NULL"),
        await moved("UPDATE tasks SET seller_id = $2 WHERE seller_id = $1 AND done_at IS NULL"),
    )
