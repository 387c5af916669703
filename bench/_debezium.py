"""Debezium's outbox EventRouter on a table of the same shape, in the stack's own Connect: the peer of the relay."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import httpx

from lostwax.kit.postgres import migrate
from lostwax.local.places import POSTGRES_SUPERUSER
from lostwax.local.stack import Stack

DATABASE, CONNECTOR = "bench_outbox", "bench-outbox"
_READY_WITHIN_S = 120


@asynccontextmanager
async def routed_outbox(stack: Stack) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """A connection to a database of its own whose `outbox` Debezium publishes, once it streams; gone afterwards."""
    server = stack.url("pg-main").replace("//", f"//postgres:{POSTGRES_SUPERUSER.read_text().strip()}@")
    admin = await asyncpg.connect(f"{server}/postgres")
    await admin.execute(f"CREATE DATABASE {DATABASE}")
    await admin.close()
    await migrate(f"{server}/{DATABASE}", None)
    connection = await asyncpg.connect(f"{server}/{DATABASE}", command_timeout=120)
    # No relay listens here: what it would be woken by costs this side nothing.
    await connection.execute("DROP TRIGGER outbox_wakes_relay ON outbox; CREATE PUBLICATION bench FOR TABLE outbox")
    await asyncio.to_thread(stack.start_one, "connect")
    async with httpx.AsyncClient(base_url=stack.url("connect"), timeout=60) as connect:
        try:
            await begin(connect, CONNECTOR, _settings(server))
            await _streams(connection)
            yield connection
        finally:
            await connect.delete(f"/connectors/{CONNECTOR}")
            await connection.close()


def _settings(server: str) -> dict[str, str]:
    credentials, address = server.removeprefix("postgresql://").split("@")
    user, password = credentials.split(":")
    host, port = address.split("/")[0].split(":")
    return {
        "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
        "tasks.max": "1",
        "database.hostname": host,
        "database.port": port,
        "database.user": user,
        "database.password": password,
        "database.dbname": DATABASE,
        "topic.prefix": "bench",
        "plugin.name": "pgoutput",
        "slot.name": "bench",
        "publication.name": "bench",
        "publication.autocreate.mode": "disabled",
        "table.include.list": "public.outbox",
        "snapshot.mode": "no_data",
        "skipped.operations": "u,d,t",
        # As fast as it goes: what was found best for it in earlier runs.
        "poll.interval.ms": "10",
        "max.batch.size": "8192",
        "max.queue.size": "32768",
        "producer.override.linger.ms": "0",
        "producer.override.batch.size": "131072",
        "key.converter": "org.apache.kafka.connect.storage.StringConverter",
        "value.converter": "org.apache.kafka.connect.converters.ByteArrayConverter",
        "transforms": "outbox",
        "transforms.outbox.type": "io.debezium.transforms.outbox.EventRouter",
        "transforms.outbox.route.by.field": "topic",
        "transforms.outbox.route.topic.replacement": "${routedByValue}",
        "transforms.outbox.table.field.event.id": "message_id",
        "transforms.outbox.table.field.event.key": "key",
        "transforms.outbox.table.field.event.payload": "payload",
        "transforms.outbox.table.fields.additional.placement": (
            "type:header:ce_type,traceparent:header:traceparent,partition:partition"
        ),
    }


async def begin(connect: httpx.AsyncClient, connector: str, settings: dict[str, str]) -> None:
    """Register a connector with a worker that may have been started just now, and still be joining its group."""
    deadline = time.monotonic() + _READY_WITHIN_S
    while True:
        try:
            answer = await connect.put(f"/connectors/{connector}/config", json=settings)
        except httpx.ConnectError:
            answer = httpx.Response(503, text="it does not answer")
        if answer.is_success:
            return
        if answer.status_code not in (409, 500, 503, 404) or time.monotonic() > deadline:
            raise SystemExit(f"Connect does not take {connector}: {answer.status_code} {answer.text[:500]}")
        await asyncio.sleep(0.5)


async def _streams(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    deadline = time.monotonic() + _READY_WITHIN_S
    while not await connection.fetchval("SELECT EXISTS (SELECT FROM pg_stat_replication WHERE state = 'streaming')"):
        if time.monotonic() > deadline:
            raise SystemExit(f"Debezium does not stream after {_READY_WITHIN_S} s")
        await asyncio.sleep(0.2)
