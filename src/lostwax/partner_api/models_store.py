"""SQL of clients' models. Every function takes a connection and works in its caller's transaction."""

from uuid import UUID

import msgspec

from lostwax.kit.postgres import Connection


class ModelRow(msgspec.Struct, frozen=True):
    sha256: str
    size_bytes: int
    name: str
    state: str
    failure: str | None


async def register_model(connection: Connection, client_id: UUID, sha256: str, size_bytes: int, name: str) -> ModelRow:
    """Register a model, or find it; one that was refused may be uploaded again."""
    row = await connection.fetchrow(
        """
        INSERT INTO models AS m (client_id, sha256, size_bytes, name, state) VALUES ($1, $2, $3, $4, 'registered')
        ON CONFLICT (client_id, sha256) DO UPDATE
            SET name = excluded.name,
                size_bytes = CASE WHEN m.state IN ('registered', 'refused') THEN excluded.size_bytes
                                  ELSE m.size_bytes END,
                state = CASE WHEN m.state = 'refused' THEN 'registered' ELSE m.state END,
                failure = NULL
        RETURNING sha256, size_bytes, name, state, failure
        """,
        client_id,
        sha256,
        size_bytes,
        name,
    )
    assert row is not None
    return ModelRow(**row)


async def model(connection: Connection, client_id: UUID, sha256: str) -> ModelRow | None:
    row = await connection.fetchrow(
        "SELECT sha256, size_bytes, name, state, failure FROM models WHERE client_id = $1 AND sha256 = $2",
        client_id,
        sha256,
    )
    return None if row is None else ModelRow(**row)


async def set_uploaded(connection: Connection, client_id: UUID, sha256: str) -> bool:
    """Mark a registered model as seen in staging; False when somebody else just did."""
    done = await connection.execute(
        "UPDATE models SET state = 'uploaded' WHERE client_id = $1 AND sha256 = $2 AND state = 'registered'",
        client_id,
        sha256,
    )
    return done == "UPDATE 1"


async def set_transferred(connection: Connection, client_id: UUID, sha256: str, failure: str | None) -> None:
    await connection.execute(
        """
        UPDATE models SET state = CASE WHEN $3::text IS NULL THEN 'stored' ELSE 'refused' END, failure = $3
        WHERE client_id = $1 AND sha256 = $2 AND state <> 'stored'
        """,
        client_id,
        sha256,
        failure,
    )
