"""PostgreSQL: pools, and numbered plain-SQL migrations applied under an advisory lock."""

import asyncio
import hashlib
import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg

from lostwax.contracts.ids import earliest_id
from lostwax.contracts.metrics import DATABASE_CALLS
from lostwax.kit import metrics, tracing

log = logging.getLogger(__name__)

_calls = metrics.histogram(DATABASE_CALLS)

if TYPE_CHECKING:
    # Only the stubs know these classes as generic.
    OwnConnection = asyncpg.Connection[asyncpg.Record]
    Connection = OwnConnection | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]
    Pool = asyncpg.Pool[asyncpg.Record]
else:
    OwnConnection = asyncpg.Connection
    Connection = asyncpg.Connection | asyncpg.pool.PoolConnectionProxy
    Pool = asyncpg.Pool

_STATEMENT_SHOWN = 300
_POOLS_OWN = ("SELECT pg_advisory_unlock_all()", "SELECT\n    t.oid")
"""How the driver's own statements begin: a connection going back to its pool, types being looked up."""
KIT_MIGRATIONS = Path(__file__).parent / "migrations"
_MIGRATION_LOCK = 7_300_001

UNREACHABLE: tuple[type[BaseException], ...] = (
    OSError,  # refused, reset, timed out (TimeoutError is one)
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # a statement begun between the server's last word and the end of the connection
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,  # shutting down, starting up
    asyncpg.InsufficientResourcesError,  # too many connections, disk full
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.LockNotAvailableError,
    asyncpg.QueryCanceledError,
)
"""What the database says when it is not the statement's fault: worth trying again later, unchanged."""

_CLOSE_WITHIN_S = 2


async def let_go(connection: OwnConnection) -> None:
    """Close a connection, whether or not the server takes leave in time. Whoever is cancelled closes on the way out,
    and an error of the closing would take the cancellation's place: they would go on for ever."""
    try:
        await connection.close(timeout=_CLOSE_WITHIN_S)
    except UNREACHABLE:
        connection.terminate()


class MigrationMismatch(Exception):
    """A migration that was applied has been edited since. Write a new one instead."""


async def open_pool(dsn: str, *, name: str, size: int = 10) -> Pool:
    """A pool of at most `size` connections that is opened lazily, so a service can start before its database."""
    return await asyncpg.create_pool(
        dsn,
        min_size=0,
        max_size=size,
        command_timeout=30,
        timeout=5,
        server_settings={"application_name": name, "jit": "off"},
        init=_watch_calls,
        reset=_leave_as_found,
    )


async def _leave_as_found(_: object) -> None:
    """Instead of the driver's reset, which is a round trip at each release for what nobody here leaves behind: it ends
    an open transaction in any case, `session_lock` gives back what it takes, LISTEN has connections of its own."""


@asynccontextmanager
async def session_lock(connection: Connection, key: int) -> AsyncIterator[bool]:
    """Whether this connection got the database's lock `key`, for the time that this is entered; does not wait for it.
    A connection that cannot give the lock back is closed, which does."""
    got = bool(await connection.fetchval("SELECT pg_try_advisory_lock($1)", key))
    try:
        yield got
    finally:
        if got:
            try:
                await connection.execute("SELECT pg_advisory_unlock($1)", key)
            except BaseException:
                connection.terminate()
                raise


async def _watch_calls(connection: OwnConnection) -> None:
    connection.add_query_logger(_call_done)


def _call_done(call: "asyncpg.connection.LoggedQuery") -> None:
    """Runs on the event loop just after the statement, in the context of who sent it."""
    if call.query.lstrip().startswith(_POOLS_OWN):
        return
    verb = call.query.split(None, 1)[0].rstrip(";").upper()
    _calls.record(call.elapsed, verb)
    parent = tracing.current.get()
    if tracing.sampled(parent) or (call.exception is not None and parent is not None):
        error = None if call.exception is None else repr(call.exception)
        ended_ns = time.time_ns()
        started_ns = ended_ns - int(call.elapsed * 1e9)
        statement = " ".join(call.query.split())[:_STATEMENT_SHOWN]
        attributes = {"db.system.name": "postgresql", "db.query.text": statement}
        tracing.record(
            tracing.Span(f"{verb} postgresql", "client", tracing.child_of(parent), parent, started_ns, ended_ns,
                         attributes, error)
        )  # fmt: skip


async def migrate(dsn: str, folder: Path | None, *, wait_s: float = 60) -> int:
    """Apply the kit's migrations, then those of `folder` (if any), that are new; returns how many were.

    Files are named `NNNN_what_it_does.sql` and run in order, each in a transaction of its own. Waits up to `wait_s`
    seconds for a database that is still starting. Raises MigrationMismatch when an applied file was edited.
    """
    connection = await _connect_patiently(dsn, wait_s)
    try:
        await connection.execute("SET lock_timeout = '10s'")
        await connection.execute("SELECT pg_advisory_lock($1)", _MIGRATION_LOCK)
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS schema_migrations (name text PRIMARY KEY, checksum text NOT NULL,"
            " applied_at timestamptz NOT NULL DEFAULT now())"
        )
        applied = {
            r["name"]: r["checksum"] for r in await connection.fetch("SELECT name, checksum FROM schema_migrations")
        }
        count = 0
        for name, path in [*_numbered("kit", KIT_MIGRATIONS), *(_numbered("service", folder) if folder else ())]:
            sql = path.read_text()
            checksum = hashlib.sha256(sql.encode()).hexdigest()
            if name in applied:
                if applied[name] != checksum:
                    raise MigrationMismatch(f"{name} was applied with another content; write a new migration")
                continue
            async with connection.transaction():
                await connection.execute(sql)
                await connection.execute(
                    "INSERT INTO schema_migrations (name, checksum) VALUES ($1, $2)", name, checksum
                )
            count += 1
            log.info("migrated", extra={"migration": name})
        return count
    finally:
        await connection.close()


def _numbered(set_name: str, folder: Path) -> Sequence[tuple[str, Path]]:
    return [(f"{set_name}/{path.name}", path) for path in sorted(folder.glob("[0-9]*.sql"))]


async def _connect_patiently(dsn: str, wait_s: float) -> OwnConnection:
    deadline = asyncio.get_running_loop().time() + wait_s
    while True:
        try:
            return await asyncpg.connect(dsn, timeout=5)
        except UNREACHABLE:
            if asyncio.get_running_loop().time() > deadline:
                raise
            await asyncio.sleep(0.3)


async def delete_older(connection: Connection, table: str, key: str, before: datetime, at_most: int) -> int:
    """Delete the oldest rows of a table whose key is a UUIDv7 from before a moment; returns how many."""
    done = await connection.execute(
        f"DELETE FROM {table} WHERE {key} IN (SELECT {key} FROM {table} WHERE {key} < $1 ORDER BY {key} LIMIT $2)",
        earliest_id(before),
        at_most,
    )
    return int(done.removeprefix("DELETE "))
