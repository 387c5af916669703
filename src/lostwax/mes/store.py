"""SQL of the MES. Every function takes a connection and works in its caller's transaction."""

from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import datetime
from uuid import UUID

import asyncpg
import msgspec

from lostwax.contracts.orders import Order, Outcome
from lostwax.contracts.staff import Role, StaffChanged
from lostwax.kit.postgres import Connection
from lostwax.kit.staff import Account
from lostwax.mes import domain
from lostwax.mes.domain import Placed

_order = msgspec.json.Decoder(Order)


class ClaimRow(msgspec.Struct, frozen=True):
    claim_id: UUID
    order_id: UUID
    operator_id: UUID
    operator: str
    state: str
    reason: str | None
    claimed_at: datetime
    ended_by: str | None = None


class StepRow(msgspec.Struct, frozen=True):
    command_id: UUID
    order_id: UUID
    action: str
    state: str
    code: str | None
    detail: str | None


def _uuid(value: UUID) -> UUID:
    return UUID(int=value.int)


async def account(connection: Connection, staff_id: UUID) -> Account | None:
    row = await connection.fetchrow("SELECT role, active, version FROM operators WHERE operator_id = $1", staff_id)
    return None if row is None else Account(Role(row["role"]), row["active"], row["version"])


async def take_staff(connection: Connection, changes: Iterable[StaffChanged]) -> None:
    """Keep each account whose version is newer than what is known."""
    newest: dict[UUID, StaffChanged] = {}
    for change in changes:
        if change.staff_id not in newest or newest[change.staff_id].version < change.version:
            newest[change.staff_id] = change
    kept = [newest[i] for i in sorted(newest)]
    await connection.execute(
        """
        INSERT INTO operators AS o (operator_id, name, role, active, version)
        SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bool[], $5::int[])
        ON CONFLICT (operator_id) DO UPDATE
            SET name = excluded.name, role = excluded.role, active = excluded.active, version = excluded.version
            WHERE o.version < excluded.version
        """,
        [c.staff_id for c in kept],
        [c.name for c in kept],
        [c.role.value for c in kept],
        [c.active for c in kept],
        [c.version for c in kept],
    )


async def take_changes(connection: Connection, orders: Sequence[Order]) -> None:
    """Keep each order whose version is newer than what is known; at most one version of each order, sorted by id."""
    await connection.execute(
        """
        INSERT INTO orders AS o (order_id, version, status, list, due_at, body)
        SELECT n.order_id, n.version, n.status,
               list_of(n.status, EXISTS (SELECT FROM claims c WHERE c.order_id = n.order_id
                                         AND c.state IN ('pending', 'confirmed'))),
               n.due_at, n.body
        FROM unnest($1::uuid[], $2::int[], $3::text[], $4::timestamptz[], $5::jsonb[])
             AS n(order_id, version, status, due_at, body)
        ON CONFLICT (order_id) DO UPDATE
            SET version = excluded.version, claim_seq = 0, status = excluded.status, list = excluded.list,
                due_at = excluded.due_at, body = excluded.body
            WHERE o.version < excluded.version
        """,
        [o.order_id for o in orders],
        [o.version for o in orders],
        [o.status.value for o in orders],
        [domain.due_at(o) for o in orders],
        [msgspec.json.encode(o).decode() for o in orders],
    )


async def replace_on_lists(connection: Connection, order_ids: Sequence[UUID]) -> None:
    """After claims of these orders changed: put them on the list where they belong now."""
    await connection.execute(
        """
        UPDATE orders AS o
        SET claim_seq = o.claim_seq + 1,
            list = list_of(o.status, EXISTS (SELECT FROM claims c WHERE c.order_id = o.order_id
                                             AND c.state IN ('pending', 'confirmed')))
        FROM (SELECT order_id FROM orders WHERE order_id = ANY($1) ORDER BY order_id FOR NO KEY UPDATE) AS locked
        WHERE o.order_id = locked.order_id
        """,
        sorted(order_ids),
    )


async def placed(connection: Connection, order_ids: Iterable[UUID]) -> list[Placed]:
    rows = await connection.fetch(
        "SELECT version, claim_seq, list, body FROM orders WHERE order_id = ANY($1)", sorted(set(order_ids))
    )
    return [_placed(r) for r in rows]


async def all_on_lists(connection: Connection) -> AsyncIterator[Placed]:
    """Every order that is on some list, in one snapshot. Needs a transaction."""
    async for row in connection.cursor(
        "SELECT version, claim_seq, list, body FROM orders WHERE list IS NOT NULL", prefetch=1000
    ):
        yield _placed(row)


async def count_on_lists(connection: Connection) -> int:
    return int(await connection.fetchval("SELECT count(*) FROM orders WHERE list IS NOT NULL"))


async def page(connection: Connection, list_name: str, after: tuple[datetime, UUID] | None, limit: int) -> list[Placed]:
    """Cards of a list by due date, from above `after`."""
    due, order_id = after or (None, None)
    rows = await connection.fetch(
        """
        SELECT version, claim_seq, list, body FROM orders
        WHERE list = $1 AND ($2::timestamptz IS NULL OR (due_at, order_id) > ($2, $3::uuid))
        ORDER BY due_at, order_id LIMIT $4
        """,
        list_name,
        due,
        order_id,
        limit,
    )
    return [_placed(r) for r in rows]


def _placed(row: asyncpg.Record) -> Placed:
    return Placed(domain.card(_order.decode(row["body"])), domain.rank(row["version"], row["claim_seq"]), row["list"])


async def order(connection: Connection, order_id: UUID) -> Order | None:
    body = await connection.fetchval("SELECT body FROM orders WHERE order_id = $1", order_id)
    return None if body is None else _order.decode(body)


_CLAIM = """
    SELECT c.claim_id, c.order_id, c.operator_id, o.name AS operator, c.state, c.reason, c.claimed_at,
           c.ended_by
    FROM claims c JOIN operators o USING (operator_id)
"""


def _claim(row: asyncpg.Record | None) -> ClaimRow | None:
    if row is None:
        return None
    return ClaimRow(
        _uuid(row["claim_id"]),
        _uuid(row["order_id"]),
        _uuid(row["operator_id"]),
        row["operator"],
        row["state"],
        row["reason"],
        row["claimed_at"],
        row["ended_by"],
    )


async def active_claim(connection: Connection, order_id: UUID) -> ClaimRow | None:
    return _claim(
        await connection.fetchrow(f"{_CLAIM} WHERE c.order_id = $1 AND c.state IN ('pending', 'confirmed')", order_id)
    )


async def claim(connection: Connection, claim_id: UUID) -> ClaimRow | None:
    return _claim(await connection.fetchrow(f"{_CLAIM} WHERE c.claim_id = $1", claim_id))


async def insert_claim(connection: Connection, claim_id: UUID, order_id: UUID, operator_id: UUID, at: datetime) -> bool:
    """True for the one who gets in; False when another active claim is there. Waits for a claim being committed."""
    done = await connection.execute(
        """
        INSERT INTO claims (claim_id, order_id, operator_id, state, claimed_at) VALUES ($1, $2, $3, 'pending', $4)
        ON CONFLICT (order_id) WHERE state IN ('pending', 'confirmed') DO NOTHING
        """,
        claim_id,
        order_id,
        operator_id,
        at,
    )
    return done == "INSERT 0 1"


async def work_of(connection: Connection, operator_id: UUID) -> list[tuple[ClaimRow, Order]]:
    """What an operator has in hand, and claims of the last quarter of an hour that were taken from them, with why."""
    rows = await connection.fetch(
        """
        SELECT c.claim_id, c.order_id, c.operator_id, p.name AS operator, c.state, c.reason, c.claimed_at,
               c.ended_by, o.body
        FROM claims c JOIN operators p USING (operator_id) JOIN orders o USING (order_id)
        WHERE c.operator_id = $1
          AND (c.state IN ('pending', 'confirmed')
               OR (c.state IN ('voided', 'cancelled', 'released', 'reworked') AND c.ended_at > now() - interval '15 min'
                   AND (c.state = 'voided' OR c.ended_by IS NOT NULL)))
        ORDER BY c.claimed_at DESC LIMIT 200
        """,
        operator_id,
    )
    pairs = []
    for row in rows:
        found = _claim(row)
        assert found is not None
        pairs.append((found, _order.decode(row["body"])))
    return pairs


async def in_hand(connection: Connection, after: UUID | None, limit: int) -> list[tuple[ClaimRow, Order]]:
    """What anybody has in hand, the oldest claim first (its id says when), from above `after`."""
    rows = await connection.fetch(
        """
        SELECT c.claim_id, c.order_id, c.operator_id, p.name AS operator, c.state, c.reason, c.claimed_at,
               c.ended_by, o.body
        FROM claims c JOIN operators p USING (operator_id) JOIN orders o USING (order_id)
        WHERE c.state IN ('pending', 'confirmed')
          AND ($1::uuid IS NULL OR c.claim_id > $1)
        ORDER BY c.claim_id LIMIT $2
        """,
        after,
        limit,
    )
    return [(found, _order.decode(row["body"])) for row in rows if (found := _claim(row)) is not None]


async def held_too_long(connection: Connection, confirmed_before: datetime, limit: int) -> list[tuple[ClaimRow, Order]]:
    """Claims confirmed before then whose orders are still being made, the oldest first, but for those that wait for
    Orders' answer to a step already."""
    rows = await connection.fetch(
        """
        SELECT c.claim_id, c.order_id, c.operator_id, p.name AS operator, c.state, c.reason, c.claimed_at,
               c.ended_by, o.body
        FROM claims c JOIN operators p USING (operator_id) JOIN orders o USING (order_id)
        WHERE c.state = 'confirmed' AND c.confirmed_at < $1 AND o.status = 'MANUFACTURING_STARTED'
          AND NOT EXISTS (SELECT FROM steps s WHERE s.order_id = c.order_id AND s.action = 'expire'
                          AND s.state <> 'refused' AND s.issued_at > c.confirmed_at)
        ORDER BY c.confirmed_at LIMIT $2
        """,
        confirmed_before,
        limit,
    )
    return [(found, _order.decode(row["body"])) for row in rows if (found := _claim(row)) is not None]


async def add_step(
    connection: Connection, command_id: UUID, order_id: UUID, operator_id: UUID, action: str, at: datetime
) -> bool:
    """False when this very step was asked for before."""
    done = await connection.execute(
        "INSERT INTO steps (command_id, order_id, operator_id, action, issued_at) VALUES ($1, $2, $3, $4, $5)"
        " ON CONFLICT (command_id) DO NOTHING",
        command_id,
        order_id,
        operator_id,
        action,
        at,
    )
    return done == "INSERT 0 1"


async def step(connection: Connection, command_id: UUID) -> StepRow | None:
    row = await connection.fetchrow(
        "SELECT command_id, order_id, action, state, code, detail FROM steps WHERE command_id = $1", command_id
    )
    if row is None:
        return None
    return StepRow(
        _uuid(row["command_id"]), _uuid(row["order_id"]), row["action"], row["state"], row["code"], row["detail"]
    )


async def lock_orders(connection: Connection, order_ids: Iterable[UUID]) -> None:
    """Hold the rows of these orders, so that a change and an outcome of one order are not taken at the same time: each
    would decide about the claim without seeing the other."""
    await connection.execute(
        "SELECT FROM orders WHERE order_id = ANY($1) ORDER BY order_id FOR NO KEY UPDATE", sorted(set(order_ids))
    )


async def take_outcomes(connection: Connection, outcomes: Sequence[Outcome]) -> list[UUID]:
    """Settle steps, and confirm or void the claims that hung on them; returns the orders whose claims changed."""
    rows = await connection.fetch(
        """
        WITH outcome AS (
            SELECT * FROM unnest($1::uuid[], $2::bool[], $3::text[], $4::text[], $5::timestamptz[], $6::int[])
                AS n(command_id, accepted, code, detail, at, version)
        ), settled AS (
            UPDATE steps AS s
            SET state = CASE WHEN n.accepted THEN 'accepted' ELSE 'refused' END, code = n.code, detail = n.detail,
                decided_at = n.at
            FROM outcome n WHERE s.command_id = n.command_id AND s.state = 'pending'
            RETURNING s.command_id, n.accepted, n.detail, n.at, n.version
        )
        UPDATE claims AS c
        SET state = CASE WHEN s.accepted THEN 'confirmed' ELSE 'voided' END,
            reason = CASE WHEN s.accepted THEN c.reason ELSE s.detail END,
            confirmed_at = CASE WHEN s.accepted THEN s.at END,
            confirmed_version = CASE WHEN s.accepted THEN s.version END,
            ended_at = CASE WHEN s.accepted THEN NULL ELSE s.at END
        FROM settled s
        WHERE c.claim_id = s.command_id AND c.state = 'pending'
        RETURNING c.order_id
        """,
        [o.command_id for o in outcomes],
        [o.accepted for o in outcomes],
        [o.code for o in outcomes],
        [o.detail for o in outcomes],
        [o.at for o in outcomes],
        [o.version for o in outcomes],
    )
    return [_uuid(r["order_id"]) for r in rows]


async def end_claims(connection: Connection, order_ids: Iterable[UUID]) -> list[UUID]:
    """End confirmed claims of orders that have moved on since; returns the orders. Their rows must be locked."""
    rows = await connection.fetch(
        """
        UPDATE claims AS c
        SET state = claim_after(o.status), ended_at = now(), reason = o.body #>> '{transition,reason}',
            ended_by = CASE WHEN o.body #>> '{transition,actor,id}' <> c.operator_id::text
                            THEN o.body #>> '{transition,actor,name}' END
        FROM orders o
        WHERE o.order_id = ANY($1) AND c.order_id = o.order_id AND c.state = 'confirmed'
          AND o.version > c.confirmed_version AND claim_after(o.status) IS NOT NULL
        RETURNING c.order_id
        """,
        sorted(set(order_ids)),
    )
    return [_uuid(r["order_id"]) for r in rows]
