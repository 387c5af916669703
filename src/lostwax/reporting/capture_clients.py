"""What change capture speaks to: Kafka Connect's REST interface, and the captured databases as the capturing role."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import asyncpg
import httpx

from lostwax.kit.postgres import UNREACHABLE, Connection, session_lock
from lostwax.reporting.capture_domain import Seen, Slot, Source

_LOCK = 7_300_003
_SHARING_S, _SHARING_TURNS = 0.5, 10


DATABASE_AWAY: tuple[type[BaseException], ...] = (*UNREACHABLE, asyncpg.PostgresError)
"""It does not answer, or says no: either way capture waits for a person or for better times."""


class ConnectAway(Exception):
    """Kafka Connect does not answer, or answers that it cannot now (it is starting, or sharing out its work)."""


class Connect:
    """Kafka Connect. Every method raises ConnectAway."""

    def __init__(self, url: str, client: httpx.AsyncClient) -> None:
        self._url, self._client = url.rstrip("/"), client

    async def _call(self, method: str, path: str, body: object = None, *, absent: bool = False) -> Any:
        """The decoded answer; None for 404 where it may be `absent`. Waits while Connect shares out its work anew, as
        it does for each connector that comes or goes."""
        for turn in range(_SHARING_TURNS):
            try:
                answer = await self._client.request(method, f"{self._url}{path}", json=body, timeout=10)
            except httpx.HTTPError as error:
                raise ConnectAway(f"{type(error).__name__}: {error}") from error
            if answer.status_code != 409 or turn == _SHARING_TURNS - 1:
                break
            await asyncio.sleep(_SHARING_S)
        if answer.status_code == 404 and absent:
            return None
        if answer.is_error:
            raise ConnectAway(f"{method} {path}: {answer.status_code} {answer.text[:300]}")
        return answer.json() if answer.content else None

    async def config(self, connector: str) -> dict[str, str] | None:
        """The connector's settings; None when it is not registered."""
        found: dict[str, str] | None = await self._call("GET", f"/connectors/{connector}/config", absent=True)
        return found

    async def register(self, connector: str, config: dict[str, str]) -> None:
        """Make the connector, or change its settings to these."""
        await self._call("PUT", f"/connectors/{connector}/config", config)

    async def state(self, connector: str) -> tuple[str | None, str]:
        """Of connector and task, whichever is worse, and the stack trace that it left."""
        found = await self._call("GET", f"/connectors/{connector}/status", absent=True)
        if found is None:
            return None, ""
        parts = [found["connector"], *found["tasks"]]
        for part in parts:
            if part["state"] == "FAILED":
                return "FAILED", part.get("trace", "")
        return str(parts[-1]["state"]), ""

    async def restart(self, connector: str) -> None:
        """The connector and its task, whatever their state."""
        await self._call("POST", f"/connectors/{connector}/restart?includeTasks=true&onlyFailed=false")

    async def remove(self, connector: str) -> None:
        """Forget the connector; where it stood in the database stays in Connect's offsets."""
        await self._call("DELETE", f"/connectors/{connector}", absent=True)


@asynccontextmanager
async def connected(source: Source) -> AsyncIterator[Connection]:
    """The captured database as the capturing role. Raises kit.postgres.UNREACHABLE."""
    connection = await asyncpg.connect(
        source.dsn, timeout=5, command_timeout=10, server_settings={"application_name": "capture watcher"}
    )
    try:
        yield connection
    finally:
        await connection.close(timeout=5)


@asynccontextmanager
async def in_charge(connection: Connection, source: Source) -> AsyncIterator[bool]:
    """Whether this process cares for the source now: one at a time does."""
    async with session_lock(connection, _LOCK) as got:
        yield got


async def look(connect: Connect, source: Source, connection: Connection, at: datetime) -> Seen:
    """Everything that is decided by. Raises ConnectAway, kit.postgres.UNREACHABLE."""
    config = await connect.config(source.connector)
    state, trace = await connect.state(source.connector) if config is not None else (None, "")
    row = await connection.fetchrow(
        """
        SELECT s.slot_name IS NOT NULL AS there, COALESCE(s.active, false) AS active,
               COALESCE(s.wal_status = 'lost', false) AS lost, w.written - '0/0'::pg_lsn AS written,
               COALESCE(w.written - s.restart_lsn, 0) AS held, COALESCE(w.written - s.confirmed_flush_lsn, 0) AS behind,
               COALESCE(s.confirmed_flush_lsn - '0/0'::pg_lsn, 0) AS confirmed,
               EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND usename = current_user
                       AND pid <> pg_backend_pid() AND xact_start IS NOT NULL AND application_name LIKE 'Debezium%'
               ) AS copying
        FROM (SELECT pg_current_wal_lsn() AS written) AS w LEFT JOIN pg_replication_slots AS s ON s.slot_name = $1
        """,
        source.slot,
    )
    assert row is not None
    slot = None
    if row["there"]:
        slot = Slot(
            active=row["active"],
            lost=row["lost"],
            held_bytes=int(row["held"]),
            behind_bytes=int(row["behind"]),
            confirmed=int(row["confirmed"]),
        )
    return Seen(config, state, trace, slot, int(row["written"]), at, copying=row["copying"])


async def drop_slot(connection: Connection, source: Source) -> None:
    """Let go of a slot, and the WAL that it holds; one that is not there is fine. Raises asyncpg.ObjectInUseError while
    somebody reads from it."""
    await connection.execute(
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1", source.slot
    )
