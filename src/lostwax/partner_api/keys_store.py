"""SQL of clients and their keys. Every function takes a connection and works in its caller's transaction.

Whoever changes a client's keys holds the lock of its row. Triggers tell every process of what ends or changes a key.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from lostwax.channel.domain import Client
from lostwax.kit.postgres import Connection
from lostwax.kit.rate_limit import Limit
from lostwax.partner_api.domain import Key

CHANNEL = "callers"
"""Notified by triggers when a key or a client is changed: the key's digest in hex, or empty for any."""

_KEY = "key_id, name, scopes, created_at, expires_at, withdrawn_at, last_used_at, replaced_by"


class ClientRow(msgspec.Struct, frozen=True):
    """A client as it stands. `own_limit`: `limit` holds (None: no limit), else the settings' default does."""

    client: Client
    created_at: datetime
    suspended_at: datetime | None
    own_limit: bool
    limit: Limit | None


class KeyHolder(msgspec.Struct, frozen=True):
    """Who calls with a key."""

    client: ClientRow
    key: Key


def _key(row: Any) -> Key:
    return Key(
        key_id=UUID(int=row["key_id"].int),
        name=row["name"],
        scopes=tuple(row["scopes"]),
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        withdrawn_at=row["withdrawn_at"],
        last_used_at=row["last_used_at"],
        replaced_by=None if row["replaced_by"] is None else UUID(int=row["replaced_by"].int),
    )


_CLIENT = "client_id, c.name AS client_name, c.created_at AS since, suspended_at, own_limit, rate_per_s, burst"


def _client(row: Any) -> ClientRow:
    return ClientRow(
        client=Client(UUID(int=row["client_id"].int), row["client_name"]),
        created_at=row["since"],
        suspended_at=row["suspended_at"],
        own_limit=row["own_limit"],
        limit=None if row["rate_per_s"] is None else Limit(row["rate_per_s"], row["burst"]),
    )


async def holder_of_key(connection: Connection, digest: bytes) -> KeyHolder | None:
    """Whose key this is, whether or not it still works."""
    row = await connection.fetchrow(
        f"""
        SELECT {_CLIENT}, k.key_id, k.name, k.scopes, k.created_at, k.expires_at, k.withdrawn_at, k.last_used_at,
               k.replaced_by
        FROM api_keys k JOIN clients c USING (client_id) WHERE k.digest = $1
        """,
        digest,
    )
    return None if row is None else KeyHolder(_client(row), _key(row))


# -- clients ----------------------------------------------------------------------------------------------------------


async def add_client(connection: Connection, client: Client, *, unlimited: bool) -> None:
    await connection.execute(
        "INSERT INTO clients (client_id, name, own_limit) VALUES ($1, $2, $3)", client.client_id, client.name, unlimited
    )


async def clients(connection: Connection) -> list[ClientRow]:
    """All clients, oldest first."""
    return [_client(r) for r in await connection.fetch(f"SELECT {_CLIENT} FROM clients c ORDER BY client_id")]


async def suspend_client(connection: Connection, client_id: UUID, *, suspended: bool) -> None:
    """Let a client in no more, or again; idempotent."""
    await connection.execute(
        "UPDATE clients SET suspended_at = CASE WHEN $2 THEN coalesce(suspended_at, now()) END WHERE client_id = $1",
        client_id,
        suspended,
    )


async def set_limit(connection: Connection, client_id: UUID, *, own: bool, limit: Limit | None) -> None:
    """`own`: this limit (None: no limit) holds for the client, else the settings' default does."""
    await connection.execute(
        "UPDATE clients SET own_limit = $2, rate_per_s = $3, burst = $4 WHERE client_id = $1",
        client_id,
        own,
        None if limit is None else limit.rate_per_s,
        None if limit is None else limit.burst,
    )


async def lock_client(connection: Connection, client_id: UUID) -> None:
    """FOR NO KEY UPDATE: rows that only refer to the client are still added meanwhile."""
    await connection.execute("SELECT FROM clients WHERE client_id = $1 FOR NO KEY UPDATE", client_id)


# -- keys -------------------------------------------------------------------------------------------------------------


async def add_key(
    connection: Connection,
    digest: bytes,
    client_id: UUID,
    key_id: UUID,
    name: str,
    scopes: Sequence[str],
    expires_at: datetime | None,
) -> Key:
    row = await connection.fetchrow(
        "INSERT INTO api_keys (digest, client_id, key_id, name, scopes, expires_at) VALUES ($1, $2, $3, $4, $5, $6)"
        f" RETURNING {_KEY}",
        digest,
        client_id,
        key_id,
        name,
        scopes,
        expires_at,
    )
    return _key(row)


async def keys_of(connection: Connection, client_id: UUID) -> list[Key]:
    """A client's keys, oldest first, without those that ended more than 30 days ago."""
    rows = await connection.fetch(
        f"""
        SELECT {_KEY} FROM api_keys
        WHERE client_id = $1 AND coalesce(least(withdrawn_at, expires_at), 'infinity') > now() - interval '30 days'
        ORDER BY key_id
        """,
        client_id,
    )
    return [_key(r) for r in rows]


async def key(connection: Connection, client_id: UUID, key_id: UUID) -> Key | None:
    """A client's own key; another's is as absent as one that never was."""
    row = await connection.fetchrow(
        f"SELECT {_KEY} FROM api_keys WHERE client_id = $1 AND key_id = $2", client_id, key_id
    )
    return None if row is None else _key(row)


async def client_of_key(connection: Connection, key_id: UUID) -> UUID | None:
    found = await connection.fetchval("SELECT client_id FROM api_keys WHERE key_id = $1", key_id)
    return None if found is None else UUID(int=found.int)


async def replace_key(connection: Connection, key_id: UUID, replaced_by: UUID, ends_at: datetime) -> None:
    await connection.execute(
        "UPDATE api_keys SET replaced_by = $2, expires_at = $3 WHERE key_id = $1", key_id, replaced_by, ends_at
    )


async def withdraw_key(connection: Connection, key_id: UUID) -> None:
    """Idempotent."""
    await connection.execute(
        "UPDATE api_keys SET withdrawn_at = now() WHERE key_id = $1 AND withdrawn_at IS NULL", key_id
    )


async def note_used(connection: Connection, key_ids: Sequence[UUID]) -> None:
    """These keys were used just now. One that somebody else is changing is passed over; the next use tells again."""
    await connection.execute(
        """
        UPDATE api_keys SET last_used_at = now()
        WHERE key_id IN (SELECT key_id FROM api_keys
                         WHERE key_id = ANY($1) AND coalesce(last_used_at, '-infinity') < now() - interval '55 seconds'
                         ORDER BY key_id FOR NO KEY UPDATE SKIP LOCKED)
        """,
        key_ids,
    )


async def clients_with_older(connection: Connection, lowest: UUID) -> list[UUID]:
    """Clients who have orders below this id."""
    rows = await connection.fetch(
        """
        SELECT client_id FROM clients c
        WHERE EXISTS (SELECT FROM requests r WHERE r.client_id = c.client_id AND r.order_id < $1)
        """,
        lowest,
    )
    return [UUID(int=r["client_id"].int) for r in rows]
