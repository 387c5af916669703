"""What a database shows to change capture: a publication of listed columns, and a role that may read just these.

Made by the service that owns the tables, after its migrations, since only a table's owner may publish it, and since a
changed list shall need no migration. The role is made by whoever runs the server (it needs REPLICATION).
"""

import logging
from collections.abc import Mapping, Sequence

import asyncpg

from lostwax.contracts.capture import PUBLICATION, ROLE

log = logging.getLogger(__name__)

_LOCK = 7_300_004

Columns = Mapping[str, Sequence[str]]
"""The columns that are shown, by table."""


async def publish(dsn: str, columns: Columns) -> bool:
    """Bring publication and grants of the database in line with `columns`; returns whether anything was changed.

    Idempotent, and takes no lock on a table when nothing has changed. Without the role there are no grants yet: the
    next start of the service gives them.
    """
    connection = await asyncpg.connect(dsn, timeout=5, command_timeout=30)
    try:
        async with connection.transaction():
            await connection.execute("SET LOCAL lock_timeout = '10s'")
            await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
            changed = await _publish(connection, columns)
            if await connection.fetchval("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", ROLE):
                changed = await _grant(connection, columns) or changed
            else:
                log.warning("no role for change capture: it reads nothing here", extra={"role": ROLE})
        return changed
    finally:
        await connection.close()


async def _publish(connection: "asyncpg.Connection[asyncpg.Record]", columns: Columns) -> bool:
    there = await connection.fetchval("SELECT EXISTS (SELECT FROM pg_publication WHERE pubname = $1)", PUBLICATION)
    published = await connection.fetch(
        "SELECT tablename, attnames::text[] AS names FROM pg_publication_tables WHERE pubname = $1", PUBLICATION
    )
    if there and {row["tablename"]: set(row["names"]) for row in published} == {t: set(c) for t, c in columns.items()}:
        return False
    tables = ", ".join(f"TABLE public.{table} ({', '.join(names)})" for table, names in columns.items())
    verb = f"ALTER PUBLICATION {PUBLICATION} SET" if there else f"CREATE PUBLICATION {PUBLICATION} FOR"
    await connection.execute(f"{verb} {tables}")
    return True


async def _grant(connection: "asyncpg.Connection[asyncpg.Record]", columns: Columns) -> bool:
    """Exactly these columns: what the role could read and is not listed any more is taken back."""
    rows = await connection.fetch(
        "SELECT table_name::text, column_name::text FROM information_schema.column_privileges"
        " WHERE grantee = $1 AND privilege_type = 'SELECT' AND table_schema = 'public'",
        ROLE,
    )
    given = {(row["table_name"], row["column_name"]) for row in rows}
    wanted = {(table, name) for table, names in columns.items() for name in names}
    database = await connection.fetchval("SELECT current_database()")
    may_connect = await connection.fetchval("SELECT has_database_privilege($1, current_database(), 'CONNECT')", ROLE)
    if not may_connect:
        await connection.execute(f'GRANT CONNECT ON DATABASE "{database}" TO {ROLE}')
    for table, name in sorted(given - wanted):
        await connection.execute(f'REVOKE SELECT ("{name}") ON public."{table}" FROM {ROLE}')
    for table, name in sorted(wanted - given):
        await connection.execute(f'GRANT SELECT ("{name}") ON public."{table}" TO {ROLE}')
    return given != wanted or not may_connect
