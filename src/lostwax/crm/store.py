"""SQL of the CRM. Every function takes a connection and works in its caller's transaction."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import asyncpg
import msgspec

from lostwax.contracts import topics
from lostwax.contracts.orders import Order
from lostwax.contracts.staff import Role, StaffChanged
from lostwax.kit.commands import Commands
from lostwax.kit.postgres import Connection
from lostwax.kit.staff import Account

_order = msgspec.json.Decoder(Order)
commands = Commands(topics.ORDER_COMMANDS, "staff_id")


class StaffRow(msgspec.Struct, frozen=True):
    """An account. `withdrawn_at` None: active."""

    staff_id: UUID
    name: str
    role: Role
    version: int
    created_at: datetime
    withdrawn_at: datetime | None

    def changed(self) -> StaffChanged:
        return StaffChanged(self.staff_id, self.name, self.role, self.withdrawn_at is None, self.version)


_STAFF = "s.staff_id, s.name, s.role, s.version, s.created_at, s.withdrawn_at"


def _staff(row: asyncpg.Record | None) -> StaffRow | None:
    if row is None:
        return None
    return StaffRow(
        UUID(int=row["staff_id"].int),
        row["name"],
        Role(row["role"]),
        row["version"],
        row["created_at"],
        row["withdrawn_at"],
    )


async def insert_staff(connection: Connection, row: StaffRow) -> None:
    await connection.execute(
        "INSERT INTO staff (staff_id, name, role, version, created_at) VALUES ($1, $2, $3, $4, $5)",
        row.staff_id,
        row.name,
        row.role.value,
        row.version,
        row.created_at,
    )


async def insert_badge(connection: Connection, digest: bytes, staff_id: UUID, at: datetime) -> None:
    await connection.execute(
        "INSERT INTO badges (digest, staff_id, issued_at) VALUES ($1, $2, $3)", digest, staff_id, at
    )


async def staff_of_badge(connection: Connection, digest: bytes) -> StaffRow | None:
    """Whose badge this is; None for an unknown one and for that of a withdrawn member."""
    return _staff(
        await connection.fetchrow(
            f"SELECT {_STAFF} FROM badges b JOIN staff s USING (staff_id)"
            " WHERE b.digest = $1 AND s.withdrawn_at IS NULL",
            digest,
        )
    )


async def account(connection: Connection, staff_id: UUID) -> Account | None:
    row = await connection.fetchrow("SELECT role, withdrawn_at, version FROM staff WHERE staff_id = $1", staff_id)
    return None if row is None else Account(Role(row["role"]), row["withdrawn_at"] is None, row["version"])


async def staff_page(connection: Connection, after: UUID | None, limit: int) -> list[StaffRow]:
    """Accounts in the order in which they were made, from above `after`."""
    rows = await connection.fetch(
        f"SELECT {_STAFF} FROM staff s WHERE $1::uuid IS NULL OR s.staff_id > $1 ORDER BY s.staff_id LIMIT $2",
        after,
        limit,
    )
    return [found for row in rows if (found := _staff(row)) is not None]


async def withdraw(connection: Connection, staff_id: UUID, at: datetime) -> StaffRow | None:
    """None when there is no such account, or it was withdrawn before."""
    return _staff(
        await connection.fetchrow(
            "UPDATE staff AS s SET withdrawn_at = $2, version = version + 1"
            f" WHERE staff_id = $1 AND withdrawn_at IS NULL RETURNING {_STAFF}",
            staff_id,
            at,
        )
    )


async def set_role(connection: Connection, staff_id: UUID, role: Role) -> StaffRow | None:
    """None when there is no such active account, or it has this role."""
    return _staff(
        await connection.fetchrow(
            "UPDATE staff AS s SET role = $2, version = version + 1"
            f" WHERE staff_id = $1 AND withdrawn_at IS NULL AND role <> $2 RETURNING {_STAFF}",
            staff_id,
            role.value,
        )
    )


async def end_sessions(connection: Connection, staff_id: UUID) -> StaffRow | None:
    """Tokens of before are refused. None when there is no such active account."""
    return _staff(
        await connection.fetchrow(
            "UPDATE staff AS s SET version = version + 1 WHERE staff_id = $1 AND withdrawn_at IS NULL"
            f" RETURNING {_STAFF}",
            staff_id,
        )
    )


async def staff(connection: Connection, staff_id: UUID) -> StaffRow | None:
    return _staff(await connection.fetchrow(f"SELECT {_STAFF} FROM staff s WHERE s.staff_id = $1", staff_id))


async def take_changes(connection: Connection, orders: Sequence[Order]) -> None:
    """Keep each order whose version is newer than what is known; at most one version of each order, sorted by id."""
    await connection.execute(
        """
        INSERT INTO orders AS o (order_id, version, status, body, status_since)
        SELECT * FROM unnest($1::uuid[], $2::int[], $3::text[], $4::jsonb[], $5::timestamptz[])
        ON CONFLICT (order_id) DO UPDATE
            SET version = excluded.version, status = excluded.status, body = excluded.body,
                status_since = CASE WHEN o.status = excluded.status THEN o.status_since ELSE excluded.status_since END
            WHERE o.version < excluded.version
        """,
        [o.order_id for o in orders],
        [o.version for o in orders],
        [o.status.value for o in orders],
        [msgspec.json.encode(o).decode() for o in orders],
        [o.transition.at for o in orders],
    )


async def order(connection: Connection, order_id: UUID) -> Order | None:
    body = await connection.fetchval("SELECT body FROM orders WHERE order_id = $1", order_id)
    return None if body is None else _order.decode(body)
