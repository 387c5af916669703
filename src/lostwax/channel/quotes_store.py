"""SQL of clients' quotes. Every function takes a connection and works in its caller's transaction."""

from collections.abc import Sequence
from uuid import UUID

import msgspec

from lostwax.contracts.quotes import PriceQuote, QuoteRequested
from lostwax.kit.postgres import Connection

_request = msgspec.json.Decoder(QuoteRequested)
_quote = msgspec.json.Decoder(PriceQuote)


class StoredQuote(msgspec.Struct, frozen=True):
    """What stands under a client's idempotency key."""

    quote_id: UUID
    request_hash: bytes


class QuoteRow(msgspec.Struct, frozen=True):
    """A client's quote; `quote` None: Orders has not told of it yet."""

    requested: QuoteRequested
    quote: PriceQuote | None


async def insert(
    connection: Connection, client_id: UUID, idempotency_key: str, request_hash: bytes, requested: QuoteRequested
) -> StoredQuote | None:
    """Store a request. Returns what stood under the key before, if anything did: then nothing is stored."""
    done = await connection.execute(
        "INSERT INTO quotes (quote_id, client_id, idempotency_key, request_hash, requested_at, body)"
        " VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (client_id, idempotency_key) DO NOTHING",
        requested.quote_id,
        client_id,
        idempotency_key,
        request_hash,
        requested.requested_at,
        msgspec.json.encode(requested).decode(),
    )
    return None if done == "INSERT 0 1" else await stored_under(connection, client_id, idempotency_key)


async def stored_under(connection: Connection, client_id: UUID, idempotency_key: str) -> StoredQuote | None:
    row = await connection.fetchrow(
        "SELECT quote_id, request_hash FROM quotes WHERE client_id = $1 AND idempotency_key = $2",
        client_id,
        idempotency_key,
    )
    return None if row is None else StoredQuote(UUID(int=row["quote_id"].int), row["request_hash"])


async def quote(connection: Connection, client_id: UUID, quote_id: UUID) -> QuoteRow | None:
    """A client's own quote; another's is as absent as one that never was."""
    row = await connection.fetchrow(
        "SELECT body, quote_body FROM quotes WHERE quote_id = $1 AND client_id = $2", quote_id, client_id
    )
    return None if row is None else _row(row["body"], row["quote_body"])


async def page(connection: Connection, client_id: UUID, before: UUID | None, limit: int) -> list[QuoteRow]:
    """A client's quotes, newest first, from below `before`."""
    rows = await connection.fetch(
        "SELECT body, quote_body FROM quotes WHERE client_id = $1 AND ($2::uuid IS NULL OR quote_id < $2)"
        " ORDER BY quote_id DESC LIMIT $3",
        client_id,
        before,
        limit,
    )
    return [_row(r["body"], r["quote_body"]) for r in rows]


async def unsent_requests(connection: Connection, quote_ids: Sequence[UUID], topic: str) -> list[QuoteRequested]:
    """These requests, but for those whose message still waits in the outbox."""
    rows = await connection.fetch(
        """
        SELECT body FROM quotes q
        WHERE quote_id = ANY($1)
          AND NOT EXISTS (SELECT FROM outbox o WHERE o.topic = $2 AND o.key = q.quote_id::text)
        ORDER BY quote_id
        """,
        quote_ids,
        topic,
    )
    return [_request.decode(row["body"]) for row in rows]


async def take_changes(connection: Connection, quotes: Sequence[PriceQuote]) -> None:
    """Keep each quote whose version is newer than what is known; at most one version of each."""
    await connection.execute(
        """
        UPDATE quotes AS q SET version = n.version, quote_body = n.body
        FROM unnest($1::uuid[], $2::int[], $3::jsonb[]) AS n(quote_id, version, body)
        WHERE q.quote_id = n.quote_id AND q.version < n.version
        """,
        [q.quote_id for q in quotes],
        [q.version for q in quotes],
        [msgspec.json.encode(q).decode() for q in quotes],
    )


def _row(body: str, quote_body: str | None) -> QuoteRow:
    return QuoteRow(_request.decode(body), None if quote_body is None else _quote.decode(quote_body))
