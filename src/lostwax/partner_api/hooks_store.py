"""SQL of the web hooks. Every function takes a connection and works in its caller's transaction.

Locks are taken in one order: requests, hook_orders, hook_deliveries, hooks; rows of a table sorted by their key. Times
are the database's, so that several machines agree on what is due.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from lostwax.contracts.orders import Order
from lostwax.kit.postgres import Connection

CHANNEL = "hooks"
"""Notified when there may be something new to deliver or to fill."""

AILING = 8
"""So many failures without a success, and a hook is tried by one delivery at a time, ever more rarely."""


class Hook(msgspec.Struct, frozen=True):
    hook_id: UUID
    url: str
    created_at: datetime
    disabled_at: datetime | None
    disabled_why: str | None


class DeliveryRow(msgspec.Struct, frozen=True):
    number: int
    delivery_id: UUID
    order_id: UUID | None
    version: int | None
    state: str
    created_at: datetime
    next_at: datetime
    attempts: int
    last_attempt_at: datetime | None
    duration_ms: int | None
    response_status: int | None
    response_body: str | None
    error: str | None


class Track(msgspec.Struct, frozen=True):
    """How far an order has come for a hook; see the table hook_orders."""

    hook_id: UUID
    order_id: UUID
    known: int
    enqueued: int
    settled: int


class NewDelivery(msgspec.Struct, frozen=True):
    """A version of an order for a hook. `due`: nothing of this order is before it."""

    delivery_id: UUID
    hook_id: UUID
    due: bool
    order: Order


class Due(msgspec.Struct, frozen=True):
    """The next delivery of an order, or a test (no `order_id`), to be sent in `wait_s` seconds (<= 0: now).

    `order_body` is there only when it is to be sent now. `age_s`: since the first attempt.
    """

    number: int
    delivery_id: UUID
    hook_id: UUID
    url: str
    secret: str
    hook_failures: int
    order_id: UUID | None
    version: int | None
    attempts: int
    age_s: float
    wait_s: float
    created_at: datetime
    accepted_at: datetime | None
    order_body: str | None


class Settled(msgspec.Struct, frozen=True):
    """What came of an attempt. `state` delivered, given_up, or due: once more in `pause_s` seconds.

    `counts`: it says something of the hook's health. `gone`: the receiver wants no more. `after_failures`: so many
    there were before.
    """

    number: int
    hook_id: UUID
    order_id: UUID | None
    version: int | None
    state: str
    pause_s: float = 0
    duration_ms: int | None = None
    response_status: int | None = None
    response_body: str | None = None
    error: str | None = None
    counts: bool = True
    gone: bool = False
    after_failures: int = 0


class Gap(msgspec.Struct, frozen=True):
    """An order of which versions above `after` are missing."""

    order_id: UUID
    after: int


def _plain(value: Any) -> Any:
    # asyncpg's own UUID class is slow to hash and compare.
    return UUID(int=value.int) if isinstance(value, UUID) else value


def _row(struct: Any, row: Any) -> Any:
    return struct(**{name: _plain(value) for name, value in row.items()})


# -- what clients do --------------------------------------------------------------------------------------------------

_HOOK = "hook_id, url, created_at, disabled_at, disabled_why"


async def lock_client(connection: Connection, client_id: UUID) -> None:
    await connection.execute("SELECT FROM clients WHERE client_id = $1 FOR UPDATE", client_id)


async def add_hook(connection: Connection, hook_id: UUID, client_id: UUID, url: str, secret: str) -> Hook | None:
    """None when the client has a hook with this URL already."""
    row = await connection.fetchrow(
        "INSERT INTO hooks (hook_id, client_id, url, secret) VALUES ($1, $2, $3, $4)"
        f" ON CONFLICT (client_id, url) WHERE removed_at IS NULL DO NOTHING RETURNING {_HOOK}",
        hook_id,
        client_id,
        url,
        secret,
    )
    return None if row is None else _row(Hook, row)


async def hooks_of(connection: Connection, client_id: UUID) -> list[Hook]:
    """A client's hooks, oldest first."""
    rows = await connection.fetch(
        f"SELECT {_HOOK} FROM hooks WHERE client_id = $1 AND removed_at IS NULL ORDER BY hook_id", client_id
    )
    return [_row(Hook, r) for r in rows]


async def hook(connection: Connection, client_id: UUID, hook_id: UUID) -> Hook | None:
    """A client's own hook; another's is as absent as one that never was."""
    row = await connection.fetchrow(
        f"SELECT {_HOOK} FROM hooks WHERE hook_id = $1 AND client_id = $2 AND removed_at IS NULL", hook_id, client_id
    )
    return None if row is None else _row(Hook, row)


async def remove_hook(connection: Connection, client_id: UUID, hook_id: UUID) -> bool:
    """From now on nothing is sent there; its rows are swept later. False: no such hook."""
    done = await connection.execute(
        "UPDATE hooks SET removed_at = now(), secret = '' WHERE hook_id = $1 AND client_id = $2 AND removed_at IS NULL",
        hook_id,
        client_id,
    )
    return done == "UPDATE 1"


async def enable_hook(connection: Connection, hook_id: UUID) -> None:
    """Try everything that is due at once, as if for the first time."""
    await connection.execute(
        "UPDATE hook_deliveries SET next_at = now(), attempts = 0, first_attempt_at = NULL"
        " WHERE hook_id = $1 AND state = 'due'",
        hook_id,
    )
    await connection.execute(
        "UPDATE hooks SET disabled_at = NULL, disabled_why = NULL, failures = 0, given_up = 0, retry_at = NULL"
        " WHERE hook_id = $1",
        hook_id,
    )


_DELIVERY = (
    "number, delivery_id, order_id, version, state, created_at, next_at, attempts, last_attempt_at, duration_ms,"
    " response_status, response_body, error"
)


async def add_test(connection: Connection, hook_id: UUID, delivery_id: UUID) -> DeliveryRow | None:
    """A delivery that only tests the way there. None while another one is under way."""
    row = await connection.fetchrow(
        f"""
        INSERT INTO hook_deliveries (delivery_id, hook_id, state)
        SELECT $2, $1, 'due' WHERE NOT EXISTS
            (SELECT FROM hook_deliveries WHERE hook_id = $1 AND state = 'due' AND order_id IS NULL)
        RETURNING {_DELIVERY}
        """,
        hook_id,
        delivery_id,
    )
    return None if row is None else _row(DeliveryRow, row)


async def deliveries_page(
    connection: Connection, hook_id: UUID, before: int | None, order_id: UUID | None, limit: int
) -> list[DeliveryRow]:
    """Deliveries of a hook, newest first, from below `before`; `order_id`: only of this order."""
    rows = await connection.fetch(
        f"""
        SELECT {_DELIVERY} FROM hook_deliveries
        WHERE hook_id = $1 AND ($2::bigint IS NULL OR number < $2) AND ($3::uuid IS NULL OR order_id = $3)
        ORDER BY number DESC LIMIT $4
        """,
        hook_id,
        before,
        order_id,
        limit,
    )
    return [_row(DeliveryRow, r) for r in rows]


async def notify(connection: Connection) -> None:
    """Wake the deliverer once the transaction is committed."""
    await connection.execute(f"NOTIFY {CHANNEL}")


# -- versions become deliveries ---------------------------------------------------------------------------------------


async def clients_with_hooks(connection: Connection, client_ids: Sequence[UUID]) -> set[UUID]:
    rows = await connection.fetch(
        "SELECT DISTINCT client_id FROM hooks WHERE client_id = ANY($1) AND removed_at IS NULL", client_ids
    )
    return {UUID(int=r["client_id"].int) for r in rows}


async def lock_tracks(connection: Connection, order_ids: Sequence[UUID]) -> list[Track]:
    """How far these orders have come for each hook of their clients, locked. For a hook that sees an order for the
    first time: up to the version that is known so far, since it asked for what comes after."""
    await connection.execute("SELECT FROM requests WHERE order_id = ANY($1) ORDER BY order_id FOR UPDATE", order_ids)
    await connection.execute(
        """
        INSERT INTO hook_orders (hook_id, order_id, known, enqueued, settled)
        SELECT h.hook_id, r.order_id, r.version, r.version, r.version
        FROM requests r JOIN hooks h ON h.client_id = r.client_id AND h.removed_at IS NULL
        WHERE r.order_id = ANY($1) ORDER BY h.hook_id, r.order_id
        ON CONFLICT (hook_id, order_id) DO NOTHING
        """,
        order_ids,
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
    return [_row(Track, r) for r in rows]


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
    return [_row(Gap, r) for r in rows]


async def seconds_to_next_gap(connection: Connection) -> float | None:
    """Until missing versions are to be fetched; None: none are missing."""
    seconds = await connection.fetchval(
        """
        SELECT extract(epoch FROM min(t.fill_at) - now())::float8
        FROM hook_orders t JOIN hooks h ON h.hook_id = t.hook_id AND h.removed_at IS NULL WHERE t.fill_at IS NOT NULL
        """
    )
    return None if seconds is None else max(0.0, float(seconds))


# -- deliveries are sent ----------------------------------------------------------------------------------------------


async def due(
    connection: Connection, under_way: Sequence[int], busy: Sequence[UUID], per_hook: int, limit: int
) -> list[Due]:
    """The next deliveries, at most `per_hook` of a hook, the longest due first: those to be sent now, then those that
    tell until when to wait. Without those `under_way`, and without the hooks that are `busy`."""
    rows = await connection.fetch(
        """
        SELECT d.number, d.delivery_id, h.hook_id, h.url, h.secret, h.failures AS hook_failures, d.order_id, d.version,
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
    return [_row(Due, r) for r in rows]


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


# -- the log is swept -------------------------------------------------------------------------------------------------


async def sweep_log(connection: Connection, days: float, limit: int) -> list[Settled] | None:
    """Delete settled deliveries older than `days`, of the `limit` oldest; returns those that are as old and still due,
    to be given up. None: nothing (more) is as old."""
    rows = await connection.fetch(
        """
        SELECT number, hook_id, order_id, version, state FROM (
            SELECT number, hook_id, order_id, version, state, created_at FROM hook_deliveries ORDER BY number LIMIT $2
        ) oldest WHERE created_at < now() - make_interval(secs => $1 * 86400)
        """,
        days,
        limit,
    )
    if not rows:
        return None
    over = [r["number"] for r in rows if r["state"] in ("delivered", "given_up")]
    await connection.execute("DELETE FROM hook_deliveries WHERE number = ANY($1)", over)
    return [
        Settled(
            number=r["number"],
            hook_id=_plain(r["hook_id"]),
            order_id=_plain(r["order_id"]),
            version=r["version"],
            state="given_up",
            error=f"not delivered in {days:g} days",
        )
        for r in rows
        if r["state"] == "due"
    ]


async def sweep_removed(connection: Connection, limit: int) -> bool:
    """Delete `limit` rows of removed hooks, and then the hooks; False: nothing is left of any."""
    # A while after the removal: transactions that still saw the hook are over.
    rows = await connection.fetch("SELECT hook_id FROM hooks WHERE removed_at < now() - interval '10 minutes'")
    removed = [r["hook_id"] for r in rows]
    if not removed:
        return False
    for table, key in (("hook_deliveries", "number"), ("hook_orders", "order_id")):
        done = await connection.execute(
            f"DELETE FROM {table} WHERE (hook_id, {key}) IN"
            f" (SELECT hook_id, {key} FROM {table} WHERE hook_id = ANY($1) LIMIT $2)",
            removed,
            limit,
        )
        if done != "DELETE 0":
            return True
    await connection.execute("DELETE FROM hooks WHERE hook_id = ANY($1)", removed)
    return False


async def sweep_tracks(connection: Connection, days: float, limit: int) -> bool:
    """Forget orders that rest: without a row they count as come as far as requests.version, which they have. Their
    requests are locked, so that none takes a change meanwhile. False: nothing is left to forget."""
    done = await connection.execute(
        """
        WITH resting AS (
            SELECT t.hook_id, t.order_id FROM hook_orders t JOIN requests r USING (order_id)
            WHERE t.changed_at < now() - make_interval(secs => $1 * 86400) AND t.settled = t.known
            LIMIT $2 FOR UPDATE OF r SKIP LOCKED
        )
        DELETE FROM hook_orders t USING resting n
        WHERE t.hook_id = n.hook_id AND t.order_id = n.order_id AND t.settled = t.known
        """,
        days,
        limit,
    )
    return done == f"DELETE {limit}"
