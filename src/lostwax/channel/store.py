"""SQL of a door. Every function takes a connection and works in its caller's transaction."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from lostwax.channel import views
from lostwax.channel.views import OwnView
from lostwax.contracts import topics
from lostwax.contracts.orders import Order, OrderRequested
from lostwax.kit.announcing import NextBatch
from lostwax.kit.commands import Commands
from lostwax.kit.outbox import Message
from lostwax.kit.postgres import Connection

log = logging.getLogger(__name__)

_order = msgspec.json.Decoder(Order)
_requested = msgspec.json.Decoder(OrderRequested)


class Intake(msgspec.Struct, frozen=True):
    """An order request about to be stored, with the message that tells Orders of it. `body` is its JSON; `keep` stores
    what goes with it, once it is stored."""

    order_id: UUID
    client_id: UUID
    idempotency_key: str
    request_hash: bytes
    accepted_at: datetime
    body: str
    message: Message
    keep: Callable[[Connection, UUID], Awaitable[None]] | None = None


class Stored(msgspec.Struct, frozen=True):
    """What stands under a client's idempotency key."""

    order_id: UUID
    request_hash: bytes


class RequestRow(msgspec.Struct, frozen=True):
    order_id: UUID
    client_id: UUID
    accepted_at: datetime
    version: int
    status: str
    body: str
    order_body: str | None


commands = Commands(topics.ORDER_COMMANDS, "client_id")


async def store_intakes(connection: Connection, intakes: Sequence[Intake]) -> list[Stored]:
    """Store requests and their outbox messages in one statement; returns what stands under each one's key, which is
    another request where the key was used before. In the order given."""
    ordered = sorted(intakes, key=lambda i: (i.client_id.int, i.idempotency_key))
    rows = await connection.fetch(
        """
        WITH input AS (
            SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::bytea[], $5::timestamptz[], $6::jsonb[],
                                 $7::text[], $8::int[], $9::text[], $10::text[], $11::uuid[], $12::text[], $13::bytea[])
                AS i(order_id, client_id, idempotency_key, request_hash, accepted_at, body,
                     topic, partition, key, type, message_id, traceparent, payload)
        ), stored AS (
            INSERT INTO requests (order_id, client_id, idempotency_key, request_hash, accepted_at, body)
            SELECT order_id, client_id, idempotency_key, request_hash, accepted_at, body FROM input
            ON CONFLICT (client_id, idempotency_key) DO NOTHING
            RETURNING order_id
        ), posted AS (
            INSERT INTO outbox (topic, partition, key, type, message_id, traceparent, payload)
            SELECT topic, partition, key, type, message_id, traceparent, payload
            FROM input JOIN stored USING (order_id)
        )
        SELECT order_id FROM stored
        """,
        [i.order_id for i in ordered],
        [i.client_id for i in ordered],
        [i.idempotency_key for i in ordered],
        [i.request_hash for i in ordered],
        [i.accepted_at for i in ordered],
        [i.body for i in ordered],
        [i.message.topic for i in ordered],
        [i.message.partition for i in ordered],
        [i.message.key for i in ordered],
        [i.message.type for i in ordered],
        [i.message.message_id for i in ordered],
        [i.message.traceparent for i in ordered],
        [i.message.payload for i in ordered],
    )
    fresh = {r["order_id"].int for r in rows}
    repeated = [i for i in intakes if i.order_id.int not in fresh]
    before = await _stored_under(connection, repeated) if repeated else {}
    return [
        Stored(i.order_id, i.request_hash) if i.order_id.int in fresh else before[(i.client_id.int, i.idempotency_key)]
        for i in intakes
    ]


async def stored_under(connection: Connection, client_id: UUID, idempotency_key: str) -> Stored | None:
    row = await connection.fetchrow(
        "SELECT order_id, request_hash FROM requests WHERE client_id = $1 AND idempotency_key = $2",
        client_id,
        idempotency_key,
    )
    return None if row is None else Stored(UUID(int=row["order_id"].int), row["request_hash"])


async def _stored_under(connection: Connection, intakes: Sequence[Intake]) -> dict[tuple[int, str], Stored]:
    rows = await connection.fetch(
        """
        SELECT r.order_id, r.client_id, r.idempotency_key, r.request_hash
        FROM requests r JOIN unnest($1::uuid[], $2::text[]) AS k(client_id, idempotency_key)
            USING (client_id, idempotency_key)
        """,
        [i.client_id for i in intakes],
        [i.idempotency_key for i in intakes],
    )
    return {
        (r["client_id"].int, r["idempotency_key"]): Stored(UUID(int=r["order_id"].int), r["request_hash"]) for r in rows
    }


_REQUEST = "order_id, client_id, accepted_at, version, status, body, order_body"


async def request(connection: Connection, client_id: UUID, order_id: UUID) -> RequestRow | None:
    """A client's own request; another's is as absent as one that never was."""
    row = await connection.fetchrow(
        f"SELECT {_REQUEST} FROM requests WHERE order_id = $1 AND client_id = $2", order_id, client_id
    )
    return None if row is None else RequestRow(**row)


async def requests_page(
    connection: Connection, client_id: UUID, before: UUID | None, status: str | None, limit: int
) -> list[RequestRow]:
    """A client's requests, newest first, from below `before`."""
    rows = await connection.fetch(
        f"""
        SELECT {_REQUEST} FROM requests
        WHERE client_id = $1 AND ($2::uuid IS NULL OR order_id < $2) AND ($3::text IS NULL OR status = $3)
        ORDER BY order_id DESC LIMIT $4
        """,
        client_id,
        before,
        status,
        limit,
    )
    return [RequestRow(**r) for r in rows]


async def own_views(connection: Connection, order_ids: Sequence[UUID]) -> list[OwnView]:
    """What clients see of these orders."""
    rows = await connection.fetch(f"SELECT {_REQUEST} FROM requests WHERE order_id = ANY($1)", sorted(set(order_ids)))
    return [own for r in rows if (own := _legible(RequestRow(**r))) is not None]


async def own_views_from(connection: Connection, lowest: UUID) -> AsyncIterator[OwnView]:
    """What clients see of all orders from this id upwards. Needs a transaction."""
    async for row in connection.cursor(f"SELECT {_REQUEST} FROM requests WHERE order_id >= $1", lowest, prefetch=500):
        if (own := _legible(RequestRow(**row))) is not None:
            yield own


async def count_from(connection: Connection, lowest: UUID) -> int:
    return int(await connection.fetchval("SELECT count(*) FROM requests WHERE order_id >= $1", lowest))


def _legible(row: RequestRow) -> OwnView | None:
    """None for a row that does not decode, which must not keep all others from being shown."""
    try:
        return own_view(row)
    except msgspec.MsgspecError as error:
        log.error("a request does not decode", extra={"order": str(row.order_id), "error": repr(error)})
        return None


def own_view(row: RequestRow) -> OwnView:
    if row.order_body is None:
        view = views.of_request(_requested.decode(row.body), row.accepted_at)
    else:
        view = views.of_order(_order.decode(row.order_body), row.accepted_at)
    return OwnView(UUID(int=row.client_id.int), view)


async def unannounced(connection: Connection, limit: int) -> NextBatch:
    """Requests above the cursor whose transactions are surely over, in the order of transaction and id."""
    cursor = await connection.fetchrow("SELECT accepted_in::text AS accepted_in, order_id FROM announcing")
    assert cursor is not None
    rows = await connection.fetch(
        """
        SELECT accepted_in::text AS transaction, order_id FROM requests
        WHERE (accepted_in, order_id) > ($1::text::xid8, $2::uuid)
          AND accepted_in < pg_snapshot_xmin(pg_current_snapshot())
        ORDER BY accepted_in, order_id LIMIT $3
        """,
        cursor["accepted_in"],
        cursor["order_id"],
        limit,
    )
    ids = [UUID(int=r["order_id"].int) for r in rows]
    if len(rows) == limit:
        return NextBatch(ids, (int(rows[-1]["transaction"]), ids[-1]), more=True)
    open_still = await connection.fetchval(
        "SELECT EXISTS (SELECT FROM requests WHERE accepted_in >= pg_snapshot_xmin(pg_current_snapshot()))"
    )
    return NextBatch(ids, (int(rows[-1]["transaction"]), ids[-1]) if ids else None, more=open_still)


async def move_announced(connection: Connection, batch: NextBatch) -> None:
    """Everything up to the end of this batch has been announced. Another process may have announced some of it too, or
    more: the cursor never goes back, and each request is counted once."""
    assert batch.cursor is not None
    await connection.execute(
        """
        UPDATE announcing a
        SET accepted_in = $1::text::xid8, order_id = $2,
            announced = a.announced + (SELECT count(*) FROM requests r
                                       WHERE (r.accepted_in, r.order_id) > (a.accepted_in, a.order_id)
                                         AND (r.accepted_in, r.order_id) <= ($1::text::xid8, $2))
        WHERE (a.accepted_in, a.order_id) < ($1::text::xid8, $2)
        """,
        str(batch.cursor[0]),
        batch.cursor[1],
    )


async def unsent_requests(connection: Connection, order_ids: Sequence[UUID], topic: str) -> list[str]:
    """Bodies of these requests, but for those whose message still waits in the outbox."""
    rows = await connection.fetch(
        """
        SELECT body FROM requests r
        WHERE order_id = ANY($1)
          AND NOT EXISTS (SELECT FROM outbox o WHERE o.topic = $2 AND o.key = r.order_id::text)
        ORDER BY order_id
        """,
        order_ids,
        topic,
    )
    return [r["body"] for r in rows]


async def take_changes(connection: Connection, orders: Sequence[Order]) -> list[UUID]:
    """Keep each order whose version is newer than what is known; at most one version of each order. Returns which were
    newer."""
    rows = await connection.fetch(
        """
        UPDATE requests AS r SET version = n.version, status = n.status, order_body = n.body
        FROM unnest($1::uuid[], $2::int[], $3::text[], $4::jsonb[]) AS n(order_id, version, status, body)
        WHERE r.order_id = n.order_id AND r.version < n.version
        RETURNING r.order_id
        """,
        [o.order_id for o in orders],
        [o.version for o in orders],
        [o.status.value for o in orders],
        [msgspec.json.encode(o).decode() for o in orders],
    )
    return [UUID(int=r["order_id"].int) for r in rows]
