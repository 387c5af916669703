"""SQL of the model store's index. Every function takes a connection and works in its caller's transaction."""

from collections.abc import Iterable
from uuid import UUID

import msgspec

from lostwax.contracts.orders import PriceFailure
from lostwax.kit.postgres import Connection

_encode = msgspec.json.Encoder().encode
_failure = msgspec.json.Decoder(PriceFailure)


async def stored_models(connection: Connection, digests: Iterable[str]) -> set[str]:
    rows = await connection.fetch("SELECT sha256 FROM models WHERE sha256 = ANY($1)", list(set(digests)))
    return {r["sha256"] for r in rows}


async def insert_model(connection: Connection, sha256: str, size_bytes: int) -> None:
    await connection.execute(
        "INSERT INTO models (sha256, size_bytes) VALUES ($1, $2) ON CONFLICT DO NOTHING", sha256, size_bytes
    )


async def set_refusal(connection: Connection, sha256: str, account: UUID, failure: PriceFailure | None) -> None:
    """Remember why this account's upload was refused, or (None) that the refusal is over."""
    if failure is None:
        await connection.execute("DELETE FROM model_refusals WHERE sha256 = $1 AND account = $2", sha256, account)
        return
    await connection.execute(
        "INSERT INTO model_refusals (sha256, account, failure) VALUES ($1, $2, $3)"
        " ON CONFLICT (sha256, account) DO UPDATE SET failure = excluded.failure, refused_at = now()",
        sha256,
        account,
        _encode(failure).decode(),
    )


async def refusal(connection: Connection, sha256: str, account: UUID) -> PriceFailure | None:
    text = await connection.fetchval(
        "SELECT failure FROM model_refusals WHERE sha256 = $1 AND account = $2", sha256, account
    )
    return None if text is None else _failure.decode(text)


async def add_waiter(connection: Connection, sha256: str, order_id: UUID, account: UUID) -> None:
    await connection.execute(
        "INSERT INTO model_waiters (sha256, order_id, account) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        sha256,
        order_id,
        account,
    )


async def take_waiters(connection: Connection, sha256: str, account: UUID | None) -> list[UUID]:
    """Remove and return the orders that wait for a model: all of them, or one account's."""
    rows = await connection.fetch(
        "DELETE FROM model_waiters WHERE sha256 = $1 AND ($2::uuid IS NULL OR account = $2) RETURNING order_id",
        sha256,
        account,
    )
    return sorted(UUID(int=r["order_id"].int) for r in rows)


async def lock_model(connection: Connection, sha256: str) -> None:
    """One transaction at a time for a model, so that a waiter is never added just after the waiters were told."""
    await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", sha256)
