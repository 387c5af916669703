"""Change capture on the real servers: what is listed arrives, nothing else does, and whatever breaks is made up for."""

import asyncio
import json
import os
import shutil
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Any

import asyncpg
import pytest

from lostwax.contracts.capture import TABLES, TOPICS, CapturedTable
from lostwax.contracts.ids import new_id
from lostwax.kit.clock import utc_now
from lostwax.kit.kafka_reading import read_to_end
from lostwax.local.places import POSTGRES_SUPERUSER, STACKS
from lostwax.local.servers.connect import sources
from lostwax.local.stack import Stack
from lostwax.reporting import capture, capture_domain

KEPT_BACK = "kept-back-and-never-told"
OWNERS = ("partner_api", "shop", "orders", "mes", "crm")
Row = dict[str, Any]
Change = dict[str, Any]
Found = list[tuple[str, Row, Change]]
"""Topic, key and envelope of each record."""


@pytest.fixture(scope="module")
def captured() -> Iterator[Stack]:
    """Databases as the services made them, Kafka, Connect and Reporting; every table had a row before the capture."""
    folder = STACKS / f"test-capture-{os.getpid()}"
    quiet = {"LOSTWAX_TELEMETRY": "false"}
    stack = Stack.start(folder, owned=True, fresh=True, services=OWNERS, overrides=quiet)
    try:
        for service in OWNERS:
            stack.stop(service)  # they have made their tables; made-up rows are not for them
        asyncio.run(fill_every_table(stack))
        stack.start_one("connect")
        stack.start_one("reporting")
        yield stack
    finally:
        stack.down(remove=True)
        shutil.rmtree(folder, ignore_errors=True)


@asynccontextmanager
async def database(stack: Stack, source: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """A captured database, as superuser."""
    instance, name = sources()[source]
    password = POSTGRES_SUPERUSER.read_text().strip()
    connection = await asyncpg.connect(f"{stack.url(instance).replace('//', f'//postgres:{password}@')}/{name}")
    try:
        yield connection
    finally:
        await connection.close()


def sources_of(table: CapturedTable) -> list[str]:
    return [source for source, (_, name) in sources().items() if name == table.database]


VALUES: dict[str, Callable[[], Any]] = {
    "uuid": new_id,
    "text": lambda: "told",
    "integer": lambda: 1,
    "bigint": lambda: 1,
    "boolean": lambda: True,
    "timestamp with time zone": utc_now,
    "jsonb": lambda: '{"told": true}',
    "bytea": lambda: KEPT_BACK.encode(),
    "double precision": lambda: 1.0,
    "date": lambda: utc_now().date(),
    "tsvector": lambda: "told",
}
FITTING: dict[str, dict[str, Any]] = {
    "partner_api.commands": {"state": "pending"},
    "shop.commands": {"state": "pending"},
    "mes.operators": {"role": "operator"},
    "mes.claims": {"state": "pending"},
    "mes.steps": {"state": "pending"},
    "crm.staff": {"role": "seller"},
    "crm.commands": {"state": "pending"},
    "crm.customers": {"kind": "person", "merged_into": None},
    "crm.layouts": {"state": "draft"},
    "crm.layout_waits": {"party": "seller"},
    "crm.tasks": {},
}
REFERS: dict[str, dict[str, str]] = {
    "mes.claims": {"operator_id": "operators"},
    "mes.steps": {"operator_id": "operators"},
    "crm.commands": {"staff_id": "staff"},
    "crm.customers": {"seller_id": "staff"},
    "crm.layouts": {"staff_id": "staff", "order_id": "orders"},
    "crm.tasks": {"seller_id": "staff", "created_by": "staff", "customer_id": "customers"},
}
"""Columns that name a row of another table, and which; its key is called as it is there, or staff_id."""


async def a_row(connection: "asyncpg.Connection[asyncpg.Record]", table: CapturedTable) -> Row:
    """Insert a row whose every column that is kept back says so; returns its key."""
    name = f"{table.database}.{table.table}"
    row: Row = {}
    for column in await connection.fetch(
        "SELECT column_name::text AS name, data_type::text AS type FROM information_schema.columns"
        " WHERE table_schema = 'public' AND table_name = $1",
        table.table,
    ):
        if column["type"] not in VALUES:
            continue  # with a default of its own
        value = VALUES[column["type"]]()
        if column["name"] in table.left_out:
            value = {"text": KEPT_BACK, "jsonb": json.dumps({"is": KEPT_BACK})}.get(column["type"], value)
        row[column["name"]] = value
    row |= FITTING.get(name, {})
    if name == "orders.models":
        row["sha256"] = (new_id().hex * 2)[:64]
    if name == "crm.layouts":  # one of each content and number is made of an order
        row |= {"revision": new_id().int % 2**30 + 1, "sha256": f"{KEPT_BACK}-{new_id()}"}
    if "idempotency_key" in row:
        row["idempotency_key"] = f"{KEPT_BACK}-{new_id()}"
    for column, other in REFERS.get(name, {}).items():
        key = "staff_id" if other == "staff" else column
        row[column] = await connection.fetchval(f"SELECT {key} FROM {other} LIMIT 1")
    marks = ", ".join(f"${n}" for n in range(1, len(row) + 1))
    await connection.execute(f"INSERT INTO {table.table} ({', '.join(row)}) VALUES ({marks})", *row.values())
    return {key: row[key] for key in table.key}


async def fill_every_table(stack: Stack) -> None:
    async with database(stack, "crm") as crm:  # layouts are of an order
        body = json.dumps({"account": str(new_id()), "channel": "shop"})
        await crm.execute(
            "INSERT INTO orders (order_id, version, status, status_since, body) VALUES ($1, 1, 'SUBMITTED', now(), $2)",
            new_id(), body,
        )  # fmt: skip
    for table in TABLES:
        for source in sources_of(table):
            async with database(stack, source) as connection:
                await a_row(connection, table)
    async with database(stack, "partner_api") as partner_api:
        client = await partner_api.fetchval("SELECT client_id FROM clients")
        await partner_api.execute(
            "INSERT INTO api_keys (digest, client_id, key_id, name, scopes) VALUES ($1, $2, $3, 'x', '{}')",
            KEPT_BACK.encode(), client, new_id(),
        )  # fmt: skip
        await partner_api.execute(
            "INSERT INTO hooks (hook_id, client_id, url, secret) VALUES ($1, $2, 'https://x', $3)",
            new_id(), client, KEPT_BACK,
        )  # fmt: skip
    async with database(stack, "shop") as shop:
        customer = new_id()
        await shop.execute(
            "INSERT INTO customers (customer_id, email, name, password, signed_up_at) VALUES ($1, $2, $2, $2, now())",
            customer, KEPT_BACK,
        )  # fmt: skip
        await shop.execute(
            "INSERT INTO sessions (digest, session_id, customer_id, agent, expires_at) VALUES ($1, $2, $2, $3, now())",
            KEPT_BACK.encode(), customer, KEPT_BACK,
        )  # fmt: skip
    async with database(stack, "crm") as crm:
        staff = await crm.fetchval("SELECT staff_id FROM staff")
        await crm.execute("INSERT INTO badges VALUES ($1, $2, now())", KEPT_BACK.encode(), staff)


def changes(stack: Stack, *tables: CapturedTable) -> Found:
    """Topic, key and envelope of all that was captured of these tables, or of all."""
    bootstrap = stack.env("reporting")["LOSTWAX_KAFKA_BOOTSTRAP"]
    names = [table.topic.name for table in tables] or [topic.name for topic in TOPICS]
    return [
        (str(m.topic()), json.loads(m.key() or b"null"), json.loads(m.value() or b"null"))
        for m in read_to_end(bootstrap, dict.fromkeys(names))
    ]


async def until(
    stack: Stack,
    arrived: Callable[[Found], bool],
    *tables: CapturedTable,
    limit_s: float = 60,
) -> Found:
    """Read again until it has `arrived`; fails with what there is."""
    found: Found = []
    with suppress(TimeoutError):
        async with asyncio.timeout(limit_s):
            while True:
                found = await asyncio.to_thread(changes, stack, *tables)
                if arrived(found):
                    return found
                await asyncio.sleep(0.5)
    counts: dict[tuple[str, str], int] = defaultdict(int)
    for topic, _, change in found:
        counts[topic, change["op"]] += 1
    raise AssertionError(f"not captured; there is {dict(counts)}\n{await what_goes_on(stack)}")


async def what_goes_on(stack: Stack) -> str:
    """For whoever reads that a test has failed."""
    watched = capture_domain.sources(stack.env("reporting")["LOSTWAX_CAPTURE_URLS"].split(","))
    looks = await capture.report(stack.env("reporting")["LOSTWAX_CONNECT_URL"], watched, looks=1)
    lines = [*map(str, looks), stack.log_tail("reporting", 15), stack.log_tail("connect", 30)]
    return "\n".join(lines)


def of(found: Found, key: Row) -> list[Change]:
    """The changes of one row, in their order."""

    def same(told: Any, value: Any) -> bool:
        if isinstance(value, datetime):
            return datetime.fromisoformat(told) == value
        return bool(told == (value if isinstance(value, int) else str(value)))

    return [
        change
        for _, its, change in found
        if its.keys() == key.keys() and all(same(its[name], value) for name, value in key.items())
    ]


def table(database: str, name: str) -> CapturedTable:
    return next(t for t in TABLES if (t.database, t.table) == (database, name))


ORDERS = table("orders", "orders")


async def test_every_column_is_listed_or_left_out_on_purpose(captured: Stack) -> None:
    for one in TABLES:
        async with database(captured, sources_of(one)[0]) as connection:
            rows = await connection.fetch(
                "SELECT column_name::text AS name, data_type::text AS type FROM information_schema.columns"
                " WHERE table_schema = 'public' AND table_name = $1",
                one.table,
            )
        there = {row["name"]: row["type"].replace("timestamp with time zone", "timestamptz") for row in rows}
        assert set(there) == {*one.columns, *one.left_out}, one.topic.name
        assert {name: there[name] for name in one.columns} == dict(one.columns), one.topic.name


async def test_the_capturing_role_reads_what_is_listed_and_nothing_else(captured: Stack) -> None:
    urls = dict(u.split("=", 1) for u in captured.env("reporting")["LOSTWAX_CAPTURE_URLS"].split(","))
    for source, (_, name) in sources().items():
        connection = await asyncpg.connect(urls[source])
        try:
            tables = [t for t in TABLES if t.database == name]
            listed = {(t.table, c) for t in tables for c in t.columns}
            may = {
                (row["relname"], row["attname"])
                for row in await connection.fetch(
                    "SELECT c.relname::text, a.attname::text FROM pg_class c JOIN pg_attribute a ON attrelid = c.oid"
                    " WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND attnum > 0 AND NOT attisdropped"
                    " AND has_column_privilege(c.oid, a.attnum, 'SELECT')"
                )
            }
            assert may == listed
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute("DELETE FROM outbox")
        finally:
            await connection.close()


async def test_a_copy_comes_first_then_every_change_of_every_table(captured: Stack) -> None:
    everywhere = {t.topic.name: len(sources_of(t)) for t in TABLES}

    def copied(found: Found) -> bool:
        read = [topic for topic, _, change in found if change["op"] == "r"]
        return all(read.count(topic) >= count for topic, count in everywhere.items())

    await until(captured, copied)
    keys = {}
    for one in TABLES:
        for source in sources_of(one):
            async with database(captured, source) as connection:
                key = keys[one.topic.name, source] = await a_row(connection, one)
                same = " AND ".join(f"{name} = ${n}" for n, name in enumerate(key, start=1))
                last = list(one.columns)[-1]
                again = {"text": "'told again'", "jsonb": "'{\"told\": 2}'", "integer": "2", "boolean": "false"}
                change = again.get(one.columns[last], "now()")
                await connection.execute(f"UPDATE {one.table} SET {last} = {change} WHERE {same}", *key.values())
                await connection.execute(f"DELETE FROM {one.table} WHERE {same}", *key.values())
    found = await until(
        captured,
        lambda found: all(
            [c["op"] for c in of([f for f in found if f[0] == topic], key)] == ["c", "u", "d"]
            for (topic, _), key in keys.items()
        ),
    )
    columns = {t.topic.name: set(t.columns) for t in TABLES}
    for topic, _, change in found:
        if change["after"] is not None:
            assert set(change["after"]) == columns[topic]
            assert change["source"]["lsn"] > 0
    bootstrap = captured.env("reporting")["LOSTWAX_KAFKA_BOOTSTRAP"]
    for message in read_to_end(bootstrap, {topic.name: None for topic in TOPICS}):
        whole = (message.key() or b"") + (message.value() or b"")
        for secret in (KEPT_BACK.encode(), KEPT_BACK.encode().hex().encode(), b"a2VwdC1iYWNr"):
            assert secret not in whole


async def versions(stack: Stack, key: Row, upto: int) -> list[int]:
    """Versions of an order as captured from its creation on, once `upto` has come."""
    found = await until(
        stack, lambda found: any(c["after"] and c["after"]["version"] >= upto for c in of(found, key)), ORDERS
    )
    return [change["after"]["version"] for change in of(found, key)]


async def rise(stack: Stack, source: str, key: Row, upto: int) -> None:
    """Give an order each version up to this one, each in a transaction of its own."""
    async with database(stack, source) as connection:
        version = await connection.fetchval("SELECT version FROM orders WHERE order_id = $1", key["order_id"])
        for number in range(version + 1, upto + 1):
            await connection.execute("UPDATE orders SET version = $1 WHERE order_id = $2", number, key["order_id"])


@pytest.mark.parametrize("killed", ["connect", "kafka"])
async def test_a_server_killed_under_writes_misses_nothing(captured: Stack, killed: str) -> None:
    """What was not yet known to have arrived may come again, in its order: rows are newest-wins."""
    async with database(captured, "orders-0") as zero, database(captured, "orders-1") as one:
        keys = {"orders-0": await a_row(zero, ORDERS), "orders-1": await a_row(one, ORDERS)}
    for key in keys.values():
        await versions(captured, key, 1)
    writing = [asyncio.create_task(rise(captured, source, key, 1000)) for source, key in keys.items()]
    async with database(captured, "orders-0") as watching:
        version = "SELECT version FROM orders WHERE order_id = $1"
        for _ in range(3000):
            if await watching.fetchval(version, keys["orders-0"]["order_id"]) >= 200:
                break
            await asyncio.sleep(0.01)
    await asyncio.to_thread(captured.kill, killed)
    assert not writing[0].done()
    await asyncio.to_thread(captured.wait_ready, killed, 60)
    await asyncio.gather(*writing)
    for key in keys.values():
        assert list(dict.fromkeys(await versions(captured, key, 1000))) == list(range(1, 1001))


async def test_a_dropped_slot_is_made_up_for_by_a_new_copy(captured: Stack) -> None:
    async with database(captured, "orders-0") as connection:
        key = await a_row(connection, ORDERS)
        await versions(captured, key, 1)
        await asyncio.to_thread(captured.stop, "connect")
        await connection.execute("SELECT pg_drop_replication_slot('capture_orders_0')")
        await rise(captured, "orders-0", key, 3)
        await asyncio.to_thread(captured.start_one, "connect")
        seen = await versions(captured, key, 3)
        await rise(captured, "orders-0", key, 4)
    assert (await versions(captured, key, 4))[-1] == 4
    assert seen[-1] == 3


async def test_an_invalidated_slot_is_made_up_for_by_a_new_copy(captured: Stack) -> None:
    async with database(captured, "orders-1") as connection:
        key = await a_row(connection, ORDERS)
        await versions(captured, key, 1)
        await asyncio.to_thread(captured.stop, "connect")
        await connection.execute("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'")
        await connection.execute("SELECT pg_reload_conf()")
        await rise(captured, "orders-1", key, 3)
        for _ in range(5):
            await connection.execute("SELECT pg_logical_emit_message(false, 'heartbeat', repeat('x', 1000000))")
            await connection.execute("SELECT pg_switch_wal()")
        await connection.execute("CHECKPOINT")
        status = "SELECT wal_status FROM pg_replication_slots WHERE slot_name = 'capture_orders_1'"
        assert await connection.fetchval(status) == "lost"
        await connection.execute("ALTER SYSTEM RESET max_slot_wal_keep_size")
        await connection.execute("SELECT pg_reload_conf()")
        await asyncio.to_thread(captured.start_one, "connect")
        assert (await versions(captured, key, 3))[-1] == 3
        await rise(captured, "orders-1", key, 4)
        assert (await versions(captured, key, 4))[-1] == 4
        assert await connection.fetchval(status) == "reserved"


async def test_a_new_column_is_ignored_and_stops_nothing(captured: Stack) -> None:
    steps = table("mes", "steps")
    async with database(captured, "mes") as connection:
        await connection.execute("ALTER TABLE steps ADD COLUMN mood text")
        try:
            key = await a_row(connection, steps)
            found = await until(captured, lambda found: bool(of(found, key)), steps)
        finally:
            await connection.execute("ALTER TABLE steps DROP COLUMN mood")
        later = await a_row(connection, steps)
    assert set(of(found, key)[0]["after"]) == set(steps.columns)
    await until(captured, lambda found: bool(of(found, later)), steps)


async def test_a_database_that_was_restarted_is_followed_again(captured: Stack) -> None:
    await asyncio.to_thread(captured.restart, "pg-shard-1")
    async with database(captured, "orders-1") as connection:
        key = await a_row(connection, ORDERS)
    await versions(captured, key, 1)


async def test_databases_at_rest_hold_no_wal_of_their_neighbours(captured: Stack) -> None:
    """Nothing was written into them since Connect was started. A connector then looks for where it left off, which was
    a commit here, and sends no heartbeats before it has found a later one."""
    at_rest = ("partner_api", "crm", "shop")
    for name in at_rest:
        commands = table(name, "commands")
        async with database(captured, name) as connection:
            key = await a_row(connection, commands)
        await until(captured, lambda found, key=key: bool(of(found, key)), commands)
    slots = [f"capture_{name}" for name in at_rest]
    behind = "SELECT slot_name::text FROM pg_replication_slots WHERE confirmed_flush_lsn < $1 AND slot_name = ANY($2)"
    await asyncio.to_thread(captured.restart, "connect")
    async with database(captured, "mes") as busy:
        written = await busy.fetchval(
            "SELECT pg_logical_emit_message(false, 'heartbeat', repeat('x', 1000000))::text::pg_lsn"
        )
        for _ in range(120):
            if not (late := await busy.fetch(behind, written, slots)):
                return
            await asyncio.sleep(0.5)
        names = [row["slot_name"] for row in late]
        raise AssertionError(
            f"slots of databases at rest did not move in 60 s: {names}\n{await what_goes_on(captured)}"
        )


async def test_connectors_that_connect_has_forgotten_are_registered_again(captured: Stack) -> None:
    import httpx

    url = captured.env("reporting")["LOSTWAX_CONNECT_URL"]
    async with httpx.AsyncClient() as client:
        assert (await client.delete(f"{url}/connectors/capture-crm")).status_code == 204
        for _ in range(60):
            if (await client.get(f"{url}/connectors/capture-crm/config")).status_code == 200:
                break
            await asyncio.sleep(0.5)
        shown = (await client.get(f"{url}/connectors/capture-crm/config")).text
    assert "env:CAPTURE_PASSWORD_CRM" in shown
    async with database(captured, "crm") as connection:
        key = await a_row(connection, table("crm", "commands"))
    await until(captured, lambda found: bool(of(found, key)), table("crm", "commands"))
