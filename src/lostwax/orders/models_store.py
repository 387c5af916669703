"""SQL of the model store's index. Every function takes a connection and works in its caller's transaction."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from lostwax.contracts.orders import PriceFailure
from lostwax.kit.postgres import Connection

SWEEPING_LOCK = 7_302
_encode = msgspec.json.Encoder().encode
_failure = msgspec.json.Decoder(PriceFailure)


async def stored_models(connection: Connection, digests: Iterable[str]) -> set[str]:
    rows = await connection.fetch("SELECT sha256 FROM models WHERE sha256 = ANY($1)", list(set(digests)))
    return {r["sha256"] for r in rows}


async def kept_models(connection: Connection, digests: Iterable[str]) -> set[str]:
    """Those that are stored and not marked to be removed."""
    rows = await connection.fetch(
        "SELECT sha256 FROM models WHERE sha256 = ANY($1) AND remove_after IS NULL", list(set(digests))
    )
    return {r["sha256"] for r in rows}


class Presence(msgspec.Struct, frozen=True):
    """Whether a model is stored, how often it has been removed so far, and whether its file is going just now."""

    stored: bool
    removals: int
    removing: bool


async def presence(connection: Connection, sha256: str) -> Presence:
    row = await connection.fetchrow(
        """
        SELECT EXISTS (SELECT FROM models WHERE sha256 = $1) AS stored,
               coalesce((SELECT number FROM model_removals WHERE sha256 = $1), 0) AS removals,
               coalesce((SELECT removing FROM model_removals WHERE sha256 = $1), false) AS removing
        """,
        sha256,
    )
    assert row is not None
    return Presence(**row)


class StoredModel(msgspec.Struct, frozen=True):
    sha256: str
    size_bytes: int
    stored_at: datetime
    remove_after: datetime | None


class Reference(msgspec.Struct, frozen=True):
    """Something of an account's needs a model; `until` null: for ever."""

    account: UUID
    kind: str
    until: datetime | None


async def stored_model(connection: Connection, sha256: str) -> StoredModel | None:
    row = await connection.fetchrow(
        "SELECT sha256, size_bytes, stored_at, remove_after FROM models WHERE sha256 = $1", sha256
    )
    return None if row is None else StoredModel(**row)


async def references(connection: Connection, sha256: str, most: int) -> list[Reference]:
    rows = await connection.fetch(
        "SELECT account, kind, until FROM model_references WHERE sha256 = $1 ORDER BY account, kind LIMIT $2",
        sha256,
        most,
    )
    return [Reference(UUID(int=r["account"].int), r["kind"], r["until"]) for r in rows]


async def insert_model(connection: Connection, sha256: str, size_bytes: int) -> None:
    """Put a model into the index; one that is there already and was to be removed stays."""
    await connection.execute(
        "INSERT INTO models AS m (sha256, size_bytes) VALUES ($1, $2)"
        " ON CONFLICT (sha256) DO UPDATE SET remove_after = NULL WHERE m.remove_after IS NOT NULL",
        sha256,
        size_bytes,
    )


async def keep_model(connection: Connection, sha256: str) -> None:
    """It is needed: do not remove it."""
    await connection.execute(
        "UPDATE models SET remove_after = NULL WHERE sha256 = $1 AND remove_after IS NOT NULL", sha256
    )


async def add_reference(connection: Connection, sha256: str, account: UUID, kind: str, until: datetime | None) -> None:
    """Remember a need, or extend it."""
    await connection.execute(
        """
        INSERT INTO model_references AS r (sha256, account, kind, subject, until) VALUES ($1, $2, $3, $3 || 's', $4)
        ON CONFLICT (sha256, account, kind, subject) DO UPDATE
            SET until = CASE WHEN r.until IS NULL OR excluded.until IS NULL THEN NULL
                             ELSE greatest(r.until, excluded.until) END
        """,
        sha256,
        account,
        kind,
        until,
    )


async def add_upload(connection: Connection, sha256: str, account: UUID, upload: int) -> None:
    """Remember by which upload an account brought a model."""
    await connection.execute(
        "INSERT INTO model_uploads AS u (sha256, account, upload) VALUES ($1, $2, $3)"
        " ON CONFLICT (sha256, account) DO UPDATE SET upload = greatest(u.upload, excluded.upload)",
        sha256,
        account,
        upload,
    )


async def set_refusal(
    connection: Connection, sha256: str, account: UUID, upload: int, failure: PriceFailure | None
) -> None:
    """Remember why this upload was refused, or (None) that earlier refusals are over; a later one's stays."""
    if failure is None:
        await connection.execute(
            "DELETE FROM model_refusals WHERE sha256 = $1 AND account = $2 AND upload <= $3", sha256, account, upload
        )
        return
    await connection.execute(
        """
        INSERT INTO model_refusals AS r (sha256, account, upload, failure) VALUES ($1, $2, $3, $4)
        ON CONFLICT (sha256, account) DO UPDATE
            SET failure = excluded.failure, upload = excluded.upload, refused_at = now()
            WHERE r.upload <= excluded.upload
        """,
        sha256,
        account,
        upload,
        _encode(failure).decode(),
    )


async def refusal(connection: Connection, sha256: str, account: UUID, upload: int) -> tuple[PriceFailure, int] | None:
    """Why the account's upload was refused, and which one: this or a later one."""
    row = await connection.fetchrow(
        "SELECT failure, upload FROM model_refusals WHERE sha256 = $1 AND account = $2 AND upload >= $3",
        sha256,
        account,
        upload,
    )
    return None if row is None else (_failure.decode(row["failure"]), row["upload"])


async def add_waiter(connection: Connection, sha256: str, order_id: UUID, account: UUID, upload: int) -> None:
    await connection.execute(
        """
        INSERT INTO model_waiters (sha256, order_id, account, upload) VALUES ($1, $2, $3, $4)
        ON CONFLICT (sha256, order_id) DO UPDATE SET upload = excluded.upload
        """,
        sha256,
        order_id,
        account,
        upload,
    )


async def take_waiters(connection: Connection, sha256: str, account: UUID | None, upload: int) -> list[UUID]:
    """Remove and return the orders that wait for a model: all of them, or one account's that wait for no later upload
    than this."""
    rows = await connection.fetch(
        """
        DELETE FROM model_waiters WHERE sha256 = $1 AND ($2::uuid IS NULL OR (account = $2 AND upload <= $3))
        RETURNING order_id
        """,
        sha256,
        account,
        upload,
    )
    return sorted(UUID(int=r["order_id"].int) for r in rows)


async def models_from(connection: Connection, after: str, most: int) -> list[str]:
    """Digests in their order, above `after`; for going through all."""
    rows = await connection.fetch("SELECT sha256 FROM models WHERE sha256 > $1 ORDER BY sha256 LIMIT $2", after, most)
    return [r["sha256"] for r in rows]


async def unneeded(connection: Connection, digests: Sequence[str], now: datetime) -> list[str]:
    """Which of these models are not marked and have no reference and no order waiting."""
    rows = await connection.fetch(
        """
        SELECT m.sha256 FROM models m
        WHERE m.sha256 = ANY($1) AND m.remove_after IS NULL AND m.stored_at < $2::timestamptz - interval '1 hour'
          AND NOT EXISTS (SELECT FROM model_references r
                          WHERE r.sha256 = m.sha256 AND (r.until IS NULL OR r.until > $2))
          AND NOT EXISTS (SELECT FROM model_waiters w WHERE w.sha256 = m.sha256)
        """,
        digests,
        now,
    )
    return sorted(r["sha256"] for r in rows)


async def ordered_by(connection: Connection, digests: Sequence[str]) -> list[tuple[str, UUID]]:
    """Which accounts have orders, of this shard, of these models."""
    rows = await connection.fetch(
        "SELECT DISTINCT model_sha256, account FROM orders WHERE model_sha256 = ANY($1)", digests
    )
    return sorted((r["model_sha256"], UUID(int=r["account"].int)) for r in rows)


async def mark(connection: Connection, sha256: str, remove_after: datetime) -> None:
    await connection.execute(
        "UPDATE models SET remove_after = $2 WHERE sha256 = $1 AND remove_after IS NULL", sha256, remove_after
    )


async def due(connection: Connection, now: datetime, most: int) -> list[str]:
    """Models whose time to be removed has come."""
    rows = await connection.fetch(
        "SELECT sha256 FROM models WHERE remove_after < $1 ORDER BY remove_after LIMIT $2", now, most
    )
    return [r["sha256"] for r in rows]


async def begin_removal(
    connection: Connection, sha256: str, failure: PriceFailure, now: datetime
) -> list[tuple[UUID, int, int]] | None:
    """Take a model that is due and needed by nobody out of the index; its file is to go next. Returns the accounts that
    brought it with their uploads and its size; None when it is needed after all. The caller holds `lock_model`."""
    size = await connection.fetchval(
        """
        DELETE FROM models m
        WHERE m.sha256 = $1 AND m.remove_after < $2
          AND NOT EXISTS (SELECT FROM model_references r
                          WHERE r.sha256 = m.sha256 AND (r.until IS NULL OR r.until > $2))
          AND NOT EXISTS (SELECT FROM model_waiters w WHERE w.sha256 = m.sha256)
        RETURNING size_bytes
        """,
        sha256,
        now,
    )
    if size is None:
        return None
    await connection.execute(
        """
        INSERT INTO model_removals AS r (sha256, number, removing, since) VALUES ($1, 1, true, $2)
        ON CONFLICT (sha256) DO UPDATE SET number = r.number + 1, removing = true, since = excluded.since
        """,
        sha256,
        now,
    )
    await connection.execute("DELETE FROM model_references WHERE sha256 = $1", sha256)
    rows = await connection.fetch("DELETE FROM model_uploads WHERE sha256 = $1 RETURNING account, upload", sha256)
    brought = sorted((UUID(int=r["account"].int), r["upload"], size) for r in rows)
    for account, upload, _ in brought:
        await set_refusal(connection, sha256, account, upload, failure)
    return brought


async def removing(connection: Connection, most: int) -> list[str]:
    """Models that are out of the index and whose files may still be there."""
    rows = await connection.fetch("SELECT sha256 FROM model_removals WHERE removing ORDER BY sha256 LIMIT $1", most)
    return [r["sha256"] for r in rows]


async def end_removal(connection: Connection, sha256: str) -> None:
    await connection.execute("UPDATE model_removals SET removing = false WHERE sha256 = $1", sha256)


async def lock_model(connection: Connection, sha256: str) -> None:
    """One transaction at a time for a model, so that a waiter is never added just after the waiters were told."""
    await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", sha256)
