"""PostgreSQL: one instance for the services' own databases, two shards for orders; fsync on, as in production."""

import fcntl
import os
import signal
from functools import partial
from pathlib import Path

from lostwax.contracts.capture import ROLE as CAPTURE
from lostwax.local import places, setup
from lostwax.local.credentials import Credentials
from lostwax.local.processes import Program, copy_tree, end, started_ticks

INSTANCES: dict[str, tuple[str, ...]] = {
    "pg-main": ("partner_api", "shop", "mes", "crm", "orders_control"),
    "pg-shard-0": ("orders",),
    "pg-shard-1": ("orders",),
}
"""Databases of each instance. Each is owned by the login role of the same name, and closed to the others."""

SHARDS = tuple(name for name in INSTANCES if name.startswith("pg-shard-"))

SLOT_LIMIT = "max_slot_wal_keep_size = 1GB"
"""WAL that a reader who is away may hold back; in the file, unlike SETTINGS, so that it can be changed as it runs."""

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "fsync": "on",
    "synchronous_commit": "on",
    "wal_level": "logical",
    "max_wal_senders": "10",
    "max_replication_slots": "10",
    "log_line_prefix": "%m [%p] %q%u@%d ",
    "log_checkpoints": "off",
}


def program(name: str, folder: Path, port: int, credentials: Credentials) -> Program:
    """One instance. Raises places.Missing when PostgreSQL is not installed."""
    binaries = places.postgres_bin()
    if binaries is None:
        raise places.Missing("no PostgreSQL server: run ./lostwax once, it installs one")
    data = places.postgres_home(folder) / name
    account = places.postgres_account()
    settings = [word for key, value in {**SETTINGS, "port": str(port)}.items() for word in ("-c", f"{key}={value}")]
    return Program(
        name=name,
        kind="server",
        port=port,
        url=f"postgresql://127.0.0.1:{port}",
        command=[str(binaries / "postgres"), "-D", str(data), *settings],
        prepare=partial(_prepare, data, binaries),
        settle=partial(_settle, name, port, credentials),
        check=partial(_connect_and_leave, port),
        account=None if account is None else (account.pw_uid, account.pw_gid),
        stop_signal=signal.SIGINT,  # fast shutdown: does not wait for clients
        death_signal="QUIT",  # at once, but taking its own children and shared memory along
    )


def dsn(role: str, database: str, port: int, credentials: Credentials) -> str:
    """Where `role` reaches `database` of the instance on `port`."""
    return f"postgresql://{role}:{credentials.passwords[role]}@127.0.0.1:{port}/{database}"


def _prepare(data: Path, binaries: Path) -> None:
    template = places.postgres_home(places.HOME) / "template"
    with (places.HOME / "postgres-template.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not template.exists():  # the place moves when the project becomes reachable for PostgreSQL's account, or not
            setup.postgres_template()
    copy_tree(template, data)
    made_by, installed = ((folder / "PG_VERSION").read_text().strip() for folder in (data, template))
    if made_by != installed:
        raise places.Missing(f"{data} was made by PostgreSQL {made_by}, {installed} is installed: start with --fresh")
    _end_stale(data)
    conf = data / "postgresql.conf"
    text = conf.read_text()
    if SLOT_LIMIT not in text:
        with conf.open("a") as out:
            out.write(f"\n{SLOT_LIMIT}\n")


def _end_stale(data: Path) -> None:
    """End a postmaster that still serves this very folder, and drop its pid file.

    PostgreSQL believes a stale pid file whose number now belongs to another instance of the same account.
    """
    lock = data / "postmaster.pid"
    try:
        pid = int(lock.read_text().split("\n", 1)[0])
    except (FileNotFoundError, ValueError):
        return
    ticks = started_ticks(pid)
    try:
        serves_it = Path(os.readlink(f"/proc/{pid}/cwd")) == data
    except OSError:
        serves_it = False
    if ticks is not None and serves_it:
        end(pid, ticks, signal.SIGINT, limit_s=10)
    lock.unlink(missing_ok=True)


async def _connect_and_leave(port: int) -> None:
    import asyncpg

    password = places.POSTGRES_SUPERUSER.read_text()
    connection = await asyncpg.connect(
        host="127.0.0.1", port=port, user="postgres", password=password, database="postgres", timeout=5, ssl=False
    )
    await connection.close(timeout=5)


async def _settle(name: str, port: int, credentials: Credentials) -> None:
    """Make the roles and databases that are not there yet; set every password, in case secrets.json was made anew."""
    import asyncpg

    connection = await asyncpg.connect(
        host="127.0.0.1",
        port=port,
        user="postgres",
        password=places.POSTGRES_SUPERUSER.read_text(),
        database="postgres",
        timeout=5,
        ssl=False,
    )
    try:
        databases = INSTANCES[name]
        known = {row["rolname"] for row in await connection.fetch("SELECT rolname FROM pg_roles")}
        for role in (*databases, "audit", CAPTURE):
            verb = "ALTER" if role in known else "CREATE"
            # names and passwords are our own identifiers and hex digits; utility statements take no parameters
            await connection.execute(f"{verb} ROLE {role} LOGIN PASSWORD '{credentials.passwords[role]}'")
        await connection.execute("GRANT pg_read_all_data TO audit")
        # reads by slots, and of tables what the services grant it
        await connection.execute(f"ALTER ROLE {CAPTURE} REPLICATION")
        await connection.execute("ALTER ROLE audit SET default_transaction_read_only = on")
        made = {row["datname"] for row in await connection.fetch("SELECT datname FROM pg_database")}
        for database in databases:
            if database not in made:
                await connection.execute(f"CREATE DATABASE {database} OWNER {database}")
            await connection.execute(f"REVOKE ALL ON DATABASE {database} FROM PUBLIC")
            await connection.execute(f"GRANT CONNECT ON DATABASE {database} TO audit")
    finally:
        await connection.close(timeout=5)
