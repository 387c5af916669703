"""SQL of quotes in Orders. Every function takes a connection and works in its caller's transaction."""

from collections.abc import Collection, Iterable, Sequence
from uuid import UUID

import msgspec

from lostwax.contracts.quotes import PriceQuote
from lostwax.kit.postgres import Connection

_quote = msgspec.json.Decoder(PriceQuote)


class QuoteEntry(msgspec.Struct):
    """A quote as stored, and whether it waits for its model."""

    quote: PriceQuote
    needs_model: bool


def _text(quote: PriceQuote) -> str:
    return msgspec.json.encode(quote).decode()


async def insert(connection: Connection, entries: Sequence[QuoteEntry]) -> set[UUID]:
    """Insert version 1 of quotes; those that exist are left as they are. Returns the ids that are new."""
    ordered = sorted(entries, key=lambda e: e.quote.quote_id)
    rows = await connection.fetch(
        """
        INSERT INTO quotes (quote_id, version, state, account, model_sha256, needs_model, requested_at, body)
        SELECT * FROM unnest($1::uuid[], $2::int[], $3::text[], $4::uuid[], $5::text[], $6::bool[],
                             $7::timestamptz[], $8::jsonb[])
        ON CONFLICT (quote_id) DO NOTHING
        RETURNING quote_id
        """,
        [e.quote.quote_id for e in ordered],
        [e.quote.version for e in ordered],
        [e.quote.state.value for e in ordered],
        [e.quote.account for e in ordered],
        [e.quote.options[0].specification.model.sha256 for e in ordered],
        [e.needs_model for e in ordered],
        [e.quote.requested_at for e in ordered],
        [_text(e.quote) for e in ordered],
    )
    return {UUID(int=r["quote_id"].int) for r in rows}


async def lock(connection: Connection, quote_ids: Iterable[UUID]) -> dict[UUID, QuoteEntry]:
    """Read quotes and hold their rows, in the order of id, until the transaction ends. Unknown ids are absent."""
    rows = await connection.fetch(
        "SELECT body, needs_model FROM quotes WHERE quote_id = ANY($1) ORDER BY quote_id FOR NO KEY UPDATE",
        sorted(set(quote_ids)),
    )
    entries = [QuoteEntry(_quote.decode(r["body"]), r["needs_model"]) for r in rows]
    return {e.quote.quote_id: e for e in entries}


async def read(connection: Connection, quote_ids: Collection[UUID]) -> dict[UUID, PriceQuote]:
    rows = await connection.fetch("SELECT body FROM quotes WHERE quote_id = ANY($1)", list(quote_ids))
    quotes = [_quote.decode(r["body"]) for r in rows]
    return {q.quote_id: q for q in quotes}


async def update(connection: Connection, entries: Sequence[QuoteEntry]) -> None:
    """Write the last state of locked quotes: at most one row for each."""
    if not entries:
        return
    await connection.execute(
        """
        UPDATE quotes AS q SET version = n.version, state = n.state, needs_model = n.needs_model, body = n.body
        FROM unnest($1::uuid[], $2::int[], $3::text[], $4::bool[], $5::jsonb[])
             AS n(quote_id, version, state, needs_model, body)
        WHERE q.quote_id = n.quote_id
        """,
        [e.quote.quote_id for e in entries],
        [e.quote.version for e in entries],
        [e.quote.state.value for e in entries],
        [e.needs_model for e in entries],
        [_text(e.quote) for e in entries],
    )
