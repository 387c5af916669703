"""Versions of orders become deliveries; the gaps between them."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from uuid import UUID

import msgspec

from lostwax.kit.postgres import Connection
from lostwax.partner_api.hooks_store.rows import Gap, NewDelivery, Track, as_row


async def clients_with_hooks(connection: Connection, client_ids: Sequence[UUID]) -> set[UUID]:
    rows = await connection.fetch(
        "SELECT DISTINCT client_id FROM hooks WHERE client_id = ANY($1) AND removed_at IS NULL", client_ids
    )
    return {UUID(int=r["client_id"].int) for r in rows}


async def lock_tracks(
    connection: Connection, order_ids: Sequence[UUID], newest: Mapping[UUID, int] = MappingProxyType({})
) -> list[Track]:
    """How far these orders have come for each hook of their clients, locked. A hook that has not seen an order yet sees
    it from its `newest` version on, if that is news: up to the version that is known so far nothing is owed to it,
    since it asked for what comes after."""
    await connection.execute("SELECT FROM requests WHERE order_id = ANY($1) ORDER BY order_id FOR UPDATE", order_ids)
    await connection.execute(
        """
        INSERT INTO hook_orders (hook_id, order_id, known, enqueued, settled)
        SELECT h.hook_id, r.order_id, r.version, r.version, r.version
        FROM unnest($1::uuid[], $2::int[]) AS n(order_id, version)
        JOIN requests r ON r.order_id = n.order_id AND r.version < n.version
        JOIN hooks h ON h.client_id = r.client_id AND h.removed_at IS NULL
        ORDER BY h.hook_id, r.order_id
        ON CONFLICT (hook_id, order_id) DO NOTHING
        """,
        list(newest),
        list(newest.values()),
    )
    rows = await connection.fetch(
        """
        SELECT t.hook_id, t.order_id, t.known, t.enqueued, t.settled
        FROM requests r
        JOIN hooks h ON h.client_id = r.client_id AND h.removed_at IS NULL
        JOIN hook_orders t ON t.hook_id = h.hook_id AND t.order_id = r.order_id
        WHERE r.order_id = ANY($1) ORDER BY t.hook_id, t.order_id FOR UPDATE OF t
        """,
        order_ids,
    )
    return [as_row(Track, r) for r in rows]


async def move_tracks(connection: Connection, tracks: Sequence[Track], fill_in_s: float) -> None:
    """Store how far these have come. One that has a gap is to be filled in `fill_in_s` seconds."""
    await connection.execute(
        """
        UPDATE hook_orders AS t
        SET known = n.known, enqueued = n.enqueued, changed_at = now(),
            fill_at = CASE WHEN n.known > n.enqueued THEN now() + make_interval(secs => $5) END
        FROM unnest($1::uuid[], $2::uuid[], $3::int[], $4::int[]) AS n(hook_id, order_id, known, enqueued)
        WHERE t.hook_id = n.hook_id AND t.order_id = n.order_id
        """,
        [t.hook_id for t in tracks],
        [t.order_id for t in tracks],
        [t.known for t in tracks],
        [t.enqueued for t in tracks],
        fill_in_s,
    )


async def add_deliveries(connection: Connection, deliveries: Sequence[NewDelivery]) -> None:
    await connection.execute(
        """
        INSERT INTO hook_deliveries (delivery_id, hook_id, order_id, version, order_body, state)
        SELECT d.delivery_id, d.hook_id, d.order_id, d.version, d.order_body,
               CASE WHEN d.due THEN 'due' ELSE 'waiting' END
        FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::int[], $5::jsonb[], $6::bool[]) WITH ORDINALITY
             AS d(delivery_id, hook_id, order_id, version, order_body, due, place)
        ORDER BY d.place
        """,
        [d.delivery_id for d in deliveries],
        [d.hook_id for d in deliveries],
        [d.order.order_id for d in deliveries],
        [d.order.version for d in deliveries],
        [msgspec.json.encode(d.order).decode() for d in deliveries],
        [d.due for d in deliveries],
    )


async def gaps(connection: Connection, limit: int) -> list[Gap]:
    """Orders whose missing versions are to be fetched now."""
    rows = await connection.fetch(
        """
        SELECT t.order_id, min(t.enqueued) AS after
        FROM hook_orders t JOIN hooks h ON h.hook_id = t.hook_id AND h.removed_at IS NULL
        WHERE t.fill_at <= now() GROUP BY t.order_id ORDER BY min(t.fill_at) LIMIT $1
        """,
        limit,
    )
    return [as_row(Gap, r) for r in rows]


async def seconds_to_next_gap(connection: Connection) -> float | None:
    """Until missing versions are to be fetched; None: none are missing."""
    seconds = await connection.fetchval(
        """
        SELECT extract(epoch FROM min(t.fill_at) - now())::float8
        FROM hook_orders t JOIN hooks h ON h.hook_id = t.hook_id AND h.removed_at IS NULL WHERE t.fill_at IS NOT NULL
        """
    )
    return None if seconds is None else max(0.0, float(seconds))
