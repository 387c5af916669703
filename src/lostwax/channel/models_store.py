"""SQL of clients' models. Every function takes a connection and works in its caller's transaction."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from lostwax.kit.postgres import Connection

JANITOR_LOCK = 7_310


class ModelRow(msgspec.Struct, frozen=True):
    """`upload` counts the uploads of this model by this client; `multipart_id` names one that goes by parts."""

    sha256: str
    size_bytes: int
    name: str
    state: str
    failure: str | None
    upload: int
    multipart_id: str | None
    part_size_bytes: int | None
    assembled: bool
    registered_at: datetime


class Leftover(msgspec.Struct, frozen=True):
    """An object in staging that is to go; with `multipart_id` ("": none) also an unfinished upload of it."""

    key: str
    multipart_id: str


_MODEL = "sha256, size_bytes, name, state, failure, upload, multipart_id, part_size_bytes, assembled, registered_at"


async def register_model(connection: Connection, client_id: UUID, sha256: str, size_bytes: int, name: str) -> ModelRow:
    """Register a model, or find it. A refused or expired one, or one announced with another size before, begins a new
    upload; the caller holds the row (`lock_model`) and has put what was left of the old one among the leftovers."""
    row = await connection.fetchrow(
        f"""
        INSERT INTO models AS m (client_id, sha256, size_bytes, name, state, upload)
        VALUES ($1, $2, $3, $4, 'registered', 1)
        ON CONFLICT (client_id, sha256) DO UPDATE
            SET name = excluded.name,
                size_bytes = CASE WHEN m.state IN ('uploaded', 'stored') THEN m.size_bytes
                                  ELSE excluded.size_bytes END
        RETURNING {_MODEL}
        """,
        client_id,
        sha256,
        size_bytes,
        name,
    )
    assert row is not None
    return ModelRow(**row)


async def begin_upload(connection: Connection, client_id: UUID, sha256: str, now: datetime) -> None:
    """Count a new upload of a model, which begins now; nothing is known of it yet."""
    await connection.execute(
        """
        UPDATE models SET state = 'registered', failure = NULL, upload = upload + 1, upload_began_at = $3,
                          multipart_id = NULL, part_size_bytes = NULL, assembled = false
        WHERE client_id = $1 AND sha256 = $2
        """,
        client_id,
        sha256,
        now,
    )


async def model(connection: Connection, client_id: UUID, sha256: str) -> ModelRow | None:
    row = await connection.fetchrow(
        f"SELECT {_MODEL} FROM models WHERE client_id = $1 AND sha256 = $2", client_id, sha256
    )
    return None if row is None else ModelRow(**row)


async def lock_model(connection: Connection, client_id: UUID, sha256: str) -> ModelRow | None:
    """As `model`, and holds the row until the transaction ends."""
    row = await connection.fetchrow(
        f"SELECT {_MODEL} FROM models WHERE client_id = $1 AND sha256 = $2 FOR NO KEY UPDATE", client_id, sha256
    )
    return None if row is None else ModelRow(**row)


async def models_page(
    connection: Connection, client_id: UUID, after: str | None, state: str | None, limit: int
) -> list[ModelRow]:
    """A client's models, the last registered first, from below the model `after`."""
    rows = await connection.fetch(
        f"""
        SELECT {_MODEL} FROM models
        WHERE client_id = $1 AND ($3::text IS NULL OR state = $3)
          AND ($2::text IS NULL OR (registered_at, sha256) <
               (SELECT registered_at, sha256 FROM models WHERE client_id = $1 AND sha256 = $2))
        ORDER BY registered_at DESC, sha256 DESC LIMIT $4
        """,
        client_id,
        after,
        state,
        limit,
    )
    return [ModelRow(**r) for r in rows]


async def begin_multipart(
    connection: Connection, client_id: UUID, sha256: str, upload: int, multipart_id: str, part_size_bytes: int
) -> bool:
    """Keep S3's name of this upload; False when somebody else was first, or the upload is over."""
    done = await connection.execute(
        """
        UPDATE models SET multipart_id = $4, part_size_bytes = $5
        WHERE client_id = $1 AND sha256 = $2 AND upload = $3 AND state = 'registered' AND multipart_id IS NULL
        """,
        client_id,
        sha256,
        upload,
        multipart_id,
        part_size_bytes,
    )
    return done == "UPDATE 1"


async def set_assembled(connection: Connection, client_id: UUID, sha256: str, upload: int) -> None:
    await connection.execute(
        "UPDATE models SET assembled = true WHERE client_id = $1 AND sha256 = $2 AND upload = $3",
        client_id,
        sha256,
        upload,
    )


async def set_uploaded(connection: Connection, client_id: UUID, sha256: str, upload: int) -> bool:
    """Mark this upload of a registered model as seen in staging; False when somebody else just did."""
    done = await connection.execute(
        "UPDATE models SET state = 'uploaded'"
        " WHERE client_id = $1 AND sha256 = $2 AND upload = $3 AND state = 'registered'",
        client_id,
        sha256,
        upload,
    )
    return done == "UPDATE 1"


async def set_transferred(
    connection: Connection, client_id: UUID, sha256: str, upload: int, failure: str | None
) -> bool:
    """Keep what became of this upload; False for one that is not the model's last. What is stored stays stored."""
    done = await connection.execute(
        """
        UPDATE models SET state = CASE WHEN $4::text IS NULL THEN 'stored' ELSE 'refused' END, failure = $4
        WHERE client_id = $1 AND sha256 = $2 AND upload = $3 AND state <> 'stored'
        """,
        client_id,
        sha256,
        upload,
        failure,
    )
    return done == "UPDATE 1"


async def set_expired(connection: Connection, client_id: UUID, sha256: str, upload: int, why: str) -> None:
    """The model store has let go of what came by this upload."""
    await connection.execute(
        "UPDATE models SET state = 'expired', failure = $4"
        " WHERE client_id = $1 AND sha256 = $2 AND upload = $3 AND state = 'stored'",
        client_id,
        sha256,
        upload,
        why,
    )


async def add_leftovers(connection: Connection, leftovers: Sequence[Leftover]) -> None:
    await connection.execute(
        "INSERT INTO staging_leftovers (key, multipart_id) SELECT * FROM unnest($1::text[], $2::text[])"
        " ON CONFLICT DO NOTHING",
        [leftover.key for leftover in leftovers],
        [leftover.multipart_id for leftover in leftovers],
    )


async def leftovers(connection: Connection, most: int) -> list[Leftover]:
    """What is to be cleared away, the oldest first."""
    rows = await connection.fetch("SELECT key, multipart_id FROM staging_leftovers ORDER BY since LIMIT $1", most)
    return [Leftover(**r) for r in rows]


async def forget_leftovers(connection: Connection, done: Sequence[Leftover]) -> None:
    await connection.execute(
        "DELETE FROM staging_leftovers s USING unnest($1::text[], $2::text[]) AS d(key, multipart_id)"
        " WHERE s.key = d.key AND s.multipart_id = d.multipart_id",
        [leftover.key for leftover in done],
        [leftover.multipart_id for leftover in done],
    )


async def expire_uploads(connection: Connection, before: datetime, why: str, most: int) -> list[tuple[UUID, ModelRow]]:
    """Give up uploads that began before this time and were never ordered; returns them, at most `most`."""
    rows = await connection.fetch(
        f"""
        UPDATE models SET state = 'expired', failure = $2
        WHERE (client_id, sha256) IN (
            SELECT client_id, sha256 FROM models WHERE state = 'registered' AND upload_began_at < $1
            ORDER BY upload_began_at LIMIT $3 FOR NO KEY UPDATE SKIP LOCKED)
        RETURNING client_id, {_MODEL}
        """,
        before,
        why,
        most,
    )
    return [(UUID(int=r["client_id"].int), ModelRow(**{k: v for k, v in r.items() if k != "client_id"})) for r in rows]
