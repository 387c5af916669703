"""Deliveries are sent, and what came of it."""

from collections.abc import Sequence
from uuid import UUID

from lostwax.kit.postgres import Connection
from lostwax.partner_api.hooks_store.rows import AILING, Due, Settled, as_row


async def due(
    connection: Connection, under_way: Sequence[int], busy: Sequence[UUID], per_hook: int, limit: int
) -> list[Due]:
    """The next deliveries, at most `per_hook` of a hook, the longest due first: those to be sent now, then those that
    tell until when to wait. Without those `under_way`, and without the hooks that are `busy`."""
    rows = await connection.fetch(
        """
        SELECT d.number, d.delivery_id, h.hook_id, h.url,
               CASE WHEN h.old_secret_until > now() THEN ARRAY[h.secret, h.old_secret] ELSE ARRAY[h.secret] END
                   AS secrets,
               h.failures AS hook_failures, d.order_id, d.version,
               d.attempts, d.age_s, d.wait_s, d.created_at, r.accepted_at,
               CASE WHEN d.wait_s <= 0 THEN d.order_body END AS order_body
        FROM hooks h
        CROSS JOIN LATERAL (
            SELECT *, extract(epoch FROM greatest(next_at, h.retry_at) - now())::float8 AS wait_s,
                   coalesce(extract(epoch FROM now() - first_attempt_at), 0)::float8 AS age_s
            FROM hook_deliveries
            WHERE hook_id = h.hook_id AND state = 'due' AND number <> ALL($1)
            ORDER BY next_at LIMIT $3
        ) d
        LEFT JOIN requests r ON r.order_id = d.order_id
        WHERE h.disabled_at IS NULL AND h.removed_at IS NULL AND h.hook_id <> ALL($2)
        ORDER BY d.wait_s LIMIT $4
        """,
        under_way,
        busy,
        per_hook,
        limit,
    )
    return [as_row(Due, r) for r in rows]


async def settle(connection: Connection, attempts: Sequence[Settled]) -> None:
    """Keep what came of attempts, and let the next version of an order go where one is delivered or given up."""
    over = sorted(
        (a.hook_id, a.order_id, a.version)
        for a in attempts
        if a.state != "due" and a.order_id is not None and a.version is not None
    )
    hook_ids, order_ids = [o[0] for o in over], [o[1] for o in over]
    # A statement of its own: what is enqueued meanwhile either sees here what is settled, or is seen by the next one.
    await connection.execute(
        """
        WITH locked AS (
            SELECT t.hook_id, t.order_id, n.version
            FROM hook_orders t JOIN unnest($1::uuid[], $2::uuid[], $3::int[]) AS n(hook_id, order_id, version)
                USING (hook_id, order_id)
            ORDER BY t.hook_id, t.order_id FOR UPDATE OF t
        )
        UPDATE hook_orders AS t SET settled = n.version, changed_at = now()
        FROM locked n WHERE t.hook_id = n.hook_id AND t.order_id = n.order_id AND t.settled < n.version
        """,
        hook_ids,
        order_ids,
        [o[2] for o in over],
    )
    await connection.execute(
        """
        WITH told AS (
            UPDATE hook_deliveries AS d
            SET state = n.state, attempts = d.attempts + 1,
                first_attempt_at = coalesce(d.first_attempt_at, now()), last_attempt_at = now(),
                next_at = now() + make_interval(secs => n.pause_s),
                duration_ms = n.duration_ms, response_status = n.status, response_body = n.body, error = n.error,
                order_body = CASE WHEN n.state = 'due' THEN d.order_body END
            FROM unnest($1::bigint[], $2::text[], $3::float8[], $4::int[], $5::int[], $6::text[], $7::text[])
                 AS n(number, state, pause_s, duration_ms, status, body, error)
            WHERE d.number = n.number AND d.state = 'due'
        )
        UPDATE hook_deliveries AS d SET state = 'due', next_at = now()
        FROM unnest($8::uuid[], $9::uuid[]) AS n(hook_id, order_id) JOIN hook_orders t USING (hook_id, order_id)
        WHERE d.hook_id = t.hook_id AND d.order_id = t.order_id AND d.version = t.settled + 1 AND d.state = 'waiting'
        """,
        [a.number for a in attempts],
        [a.state for a in attempts],
        [a.pause_s for a in attempts],
        [a.duration_ms for a in attempts],
        [a.response_status for a in attempts],
        [a.response_body for a in attempts],
        [a.error for a in attempts],
        hook_ids,
        order_ids,
    )


async def note_success(connection: Connection, hook_ids: Sequence[UUID]) -> None:
    """These hooks answered well. One that had been ailing gets at once what has been waiting for another try."""
    await connection.execute(
        """
        UPDATE hook_deliveries SET next_at = now()
        WHERE state = 'due' AND next_at > now()
          AND hook_id IN (SELECT hook_id FROM hooks WHERE hook_id = ANY($1) AND failures >= $2)
        """,
        hook_ids,
        AILING,
    )
    await connection.execute(
        "UPDATE hooks SET failures = 0, given_up = 0, retry_at = NULL"
        " WHERE hook_id = ANY($1) AND (failures > 0 OR given_up > 0)",
        hook_ids,
    )


async def note_failures(
    connection: Connection, hook_id: UUID, failures: int, given_up: int, *, give_up_at: int, gone: bool
) -> bool:
    """Count against a hook. It is disabled when it wants no more, or `give_up_at` deliveries in a row were given up.
    True: it was disabled just now."""
    row = await connection.fetchrow(
        """
        UPDATE hooks AS h
        SET failures = h.failures + $2, given_up = h.given_up + $3,
            retry_at = CASE WHEN h.failures + $2 >= $5
                            THEN now() + make_interval(secs => least(300, 5 * 2 ^ least(h.failures + $2 - $5, 10))) END,
            disabled_at = CASE WHEN $6 OR h.given_up + $3 >= $4 THEN coalesce(h.disabled_at, now())
                               ELSE h.disabled_at END,
            disabled_why = CASE WHEN h.disabled_at IS NOT NULL THEN h.disabled_why
                                WHEN $6 THEN 'answered 410 Gone'
                                WHEN h.given_up + $3 >= $4 THEN 'deliveries were given up, one after the other' END
        FROM hooks AS before
        WHERE h.hook_id = $1 AND before.hook_id = $1
        RETURNING h.disabled_at IS NOT NULL AND before.disabled_at IS NULL AS disabled
        """,
        hook_id,
        failures,
        given_up,
        give_up_at,
        AILING,
        gone,
    )
    return row is not None and bool(row["disabled"])
