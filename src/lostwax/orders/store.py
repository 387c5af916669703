"""SQL of Orders. Every function takes a connection and works in its caller's transaction."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from lostwax.contracts.ids import bucket_of, partition_of
from lostwax.contracts.orders import Order, Outcome, Status
from lostwax.contracts.pricing import PriceResult
from lostwax.kit.postgres import Connection

OPEN = tuple(s for s in Status if s not in (Status.SHIPPED, Status.CLOSED, Status.CANCELLED))
"""Where orders stay until somebody does something; the index orders_by_age holds these."""

_ARRIVALS_LOCK = 7_300
# One look into the index for each: its predicate is proven from the constant.
_LONGEST = " UNION ALL ".join(f"SELECT '{s}', min(status_since) FROM orders WHERE status = '{s}'" for s in OPEN)
_encode = msgspec.json.Encoder().encode
_order = msgspec.json.Decoder(Order)
_price = msgspec.json.Decoder(PriceResult)


class Entry(msgspec.Struct):
    """An order as stored: what the world sees, the price job whose result counts, and a result that came while it
    was on hold."""

    order: Order
    price_job_id: UUID | None = None
    kept_price: PriceResult | None = None


def _text(value: object) -> str:
    return _encode(value).decode()


async def insert_orders(connection: Connection, entries: Sequence[Entry]) -> set[UUID]:
    """Insert version 1 of orders; those that exist are left as they are. Returns the ids that are new."""
    ordered = sorted(entries, key=lambda e: e.order.order_id)
    rows = await connection.fetch(
        """
        INSERT INTO orders (order_id, version, status, account, channel, model_sha256, price_job_id,
                            submitted_at, status_since, body)
        SELECT * FROM unnest($1::uuid[], $2::int[], $3::text[], $4::uuid[], $5::text[], $6::text[], $7::uuid[],
                             $8::timestamptz[], $9::timestamptz[], $10::jsonb[])
        ON CONFLICT (order_id) DO NOTHING
        RETURNING order_id
        """,
        [e.order.order_id for e in ordered],
        [e.order.version for e in ordered],
        [e.order.status.value for e in ordered],
        [e.order.account for e in ordered],
        [e.order.channel for e in ordered],
        [e.order.specification.model.sha256 for e in ordered],
        [e.price_job_id for e in ordered],
        [e.order.submitted_at for e in ordered],
        [e.order.updated_at for e in ordered],
        [_text(e.order) for e in ordered],
    )
    return {UUID(int=r["order_id"].int) for r in rows}


async def lock_orders(connection: Connection, order_ids: Iterable[UUID]) -> dict[UUID, Entry]:
    """Read orders and hold their rows, in the order of id, until the transaction ends. Unknown ids are absent."""
    rows = await connection.fetch(
        "SELECT body, price_job_id, kept_price FROM orders WHERE order_id = ANY($1)"
        " ORDER BY order_id FOR NO KEY UPDATE",
        sorted(set(order_ids)),
    )
    entries = [
        Entry(
            _order.decode(r["body"]),
            r["price_job_id"],
            None if r["kept_price"] is None else _price.decode(r["kept_price"]),
        )
        for r in rows
    ]
    return {e.order.order_id: e for e in entries}


async def update_orders(connection: Connection, entries: Sequence[Entry]) -> None:
    """Write the last state of locked orders: at most one row for each order, or UPDATE .. FROM would apply one."""
    if not entries:
        return
    ids = [e.order.order_id for e in entries]
    assert len(set(ids)) == len(ids), "two rows of one order in a flush"
    await connection.execute(
        """
        UPDATE orders AS o
        SET version = n.version, status = n.status, model_sha256 = n.model_sha256, price_job_id = n.price_job_id,
            kept_price = n.kept_price, body = n.body,
            status_since = CASE WHEN o.status = n.status THEN o.status_since ELSE n.at END
        FROM unnest($1::uuid[], $2::int[], $3::text[], $4::text[], $5::uuid[], $6::timestamptz[], $7::jsonb[],
                    $8::jsonb[])
             AS n(order_id, version, status, model_sha256, price_job_id, at, body, kept_price)
        WHERE o.order_id = n.order_id
        """,
        ids,
        [e.order.version for e in entries],
        [e.order.status.value for e in entries],
        [e.order.specification.model.sha256 for e in entries],
        [e.price_job_id for e in entries],
        [e.order.updated_at for e in entries],
        [_text(e.order) for e in entries],
        [None if e.kept_price is None else _text(e.kept_price) for e in entries],
    )


async def insert_history(connection: Connection, versions: Sequence[Order]) -> None:
    """Keep every version for ever. A version that exists already is an error: two writers changed one order."""
    if not versions:
        return
    await connection.execute(
        """
        INSERT INTO order_history (order_id, version, status, at, body)
        SELECT * FROM unnest($1::uuid[], $2::int[], $3::text[], $4::timestamptz[], $5::jsonb[])
        """,
        [o.order_id for o in versions],
        [o.version for o in versions],
        [o.status.value for o in versions],
        [o.updated_at for o in versions],
        [_text(o) for o in versions],
    )


async def order(connection: Connection, order_id: UUID) -> Order | None:
    body = await connection.fetchval("SELECT body FROM orders WHERE order_id = $1", order_id)
    return None if body is None else _order.decode(body)


async def some(connection: Connection, order_ids: Sequence[UUID]) -> list[Order]:
    rows = await connection.fetch("SELECT body FROM orders WHERE order_id = ANY($1)", list(order_ids))
    return [_order.decode(r["body"]) for r in rows]


async def history(connection: Connection, order_id: UUID, after_version: int, most: int) -> list[Order]:
    """Versions of an order above `after_version`, oldest first."""
    rows = await connection.fetch(
        "SELECT body FROM order_history WHERE order_id = $1 AND version > $2 ORDER BY version LIMIT $3",
        order_id,
        after_version,
        most,
    )
    return [_order.decode(r["body"]) for r in rows]


async def decided_commands(connection: Connection, command_ids: Iterable[UUID]) -> set[UUID]:
    """Which of these commands have been decided, or wait for their order or behind a dead-lettered one."""
    rows = await connection.fetch(
        """
        SELECT command_id FROM commands WHERE command_id = ANY($1)
        UNION ALL SELECT command_id FROM early_commands WHERE command_id = ANY($1)
        UNION ALL SELECT command_id FROM parked_commands WHERE command_id = ANY($1)
        """,
        list(command_ids),
    )
    return {UUID(int=r["command_id"].int) for r in rows}


async def insert_outcomes(connection: Connection, outcomes: Sequence[Outcome]) -> None:
    if not outcomes:
        return
    await connection.execute(
        """
        INSERT INTO commands (command_id, order_id, accepted, version, code, decided_at)
        SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::bool[], $4::int[], $5::text[], $6::timestamptz[])
        """,
        [o.command_id for o in outcomes],
        [o.order_id for o in outcomes],
        [o.accepted for o in outcomes],
        [o.version for o in outcomes],
        [o.code for o in outcomes],
        [o.at for o in outcomes],
    )


async def announce(connection: Connection, order_ids: Sequence[UUID], channel: str) -> None:
    """Expect these orders, but for those that are there already."""
    await connection.execute(
        """
        INSERT INTO announced (order_id, channel)
        SELECT i.order_id, $2 FROM unnest($1::uuid[]) AS i(order_id)
        WHERE NOT EXISTS (SELECT FROM orders o WHERE o.order_id = i.order_id)
        ON CONFLICT (order_id) DO NOTHING
        """,
        sorted(order_ids),
        channel,
    )


async def overdue(
    connection: Connection, older_than_s: float, again_after_s: float, most: int
) -> dict[str, list[UUID]]:
    """Forget what has arrived; returns what has not come in `older_than_s` seconds, by channel, marked as asked for,
    but for what was asked for within `again_after_s`."""
    await connection.execute("DELETE FROM announced a USING orders o WHERE o.order_id = a.order_id")
    rows = await connection.fetch(
        """
        UPDATE announced SET asked_at = now()
        WHERE order_id IN (
            SELECT order_id FROM announced
            WHERE announced_at < now() - make_interval(secs => $1)
              AND (asked_at IS NULL OR asked_at < now() - make_interval(secs => $2))
            ORDER BY announced_at LIMIT $3)
        RETURNING channel, order_id
        """,
        older_than_s,
        again_after_s,
        most,
    )
    by_channel: dict[str, list[UUID]] = {}
    for row in rows:
        by_channel.setdefault(row["channel"], []).append(UUID(int=row["order_id"].int))
    return by_channel


async def expects_any(connection: Connection) -> bool:
    return bool(await connection.fetchval("SELECT EXISTS (SELECT FROM announced)"))


async def lock_arrivals(connection: Connection, order_ids: Iterable[UUID]) -> None:
    """One transaction at a time creates orders of a partition, or keeps commands that came before theirs, so that no
    command is kept just after its order looked for it."""
    await connection.execute(
        "SELECT pg_advisory_xact_lock($1, partition) FROM unnest($2::int[]) AS partition",
        _ARRIVALS_LOCK,
        sorted({partition_of(bucket_of(i)) for i in order_ids}),
    )


async def longest_in(connection: Connection) -> dict[Status, datetime]:
    """Since when the order that is longest in each of OPEN has been there; without those in which none is."""
    return {Status(status): since for status, since in await connection.fetch(_LONGEST) if since is not None}
