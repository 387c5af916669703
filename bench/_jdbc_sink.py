"""Debezium's JDBC sink into PostgreSQL, in a Connect of its own: the peer of the way into the warehouse."""

import asyncio
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import httpx

from _debezium import begin
from lostwax.local import places, ports, setup
from lostwax.local.servers import postgres
from lostwax.local.stack import Stack
from lostwax.reporting.capture_domain import Source, connector_config

DATABASE, TABLES = "bench_sink", ("orders", "order_history")
_POM, _LIBS = Path(__file__).with_name("jdbc-pom.xml"), places.HOME / "kafka" / "jdbc-libs"
_COUNT = "SELECT sum(n_live)::bigint FROM (SELECT count(*) AS n_live FROM {} UNION ALL SELECT count(*) FROM {}) AS t"


class Sink:
    """What it has written so far."""

    def __init__(self, connect: httpx.AsyncClient, target: "asyncpg.Connection[asyncpg.Record]") -> None:
        self.connect, self._target = connect, target

    async def rows(self) -> int:
        """Of both tables; a table that it has not made yet has none."""
        try:
            return int(await self._target.fetchval(_COUNT.format(*(f'"peer_{table}"' for table in TABLES))))
        except asyncpg.UndefinedTableError:
            return 0


@asynccontextmanager
async def jdbc_sink(stack: Stack) -> AsyncIterator[Sink]:
    """Captures both shards' orders and their history into a database of its own; gone afterwards, with its slots."""
    if not _LIBS.exists():
        setup.fetch_jars(_POM, _LIBS)
    credentials = f"postgres:{places.POSTGRES_SUPERUSER.read_text().strip()}"
    main = stack.url("pg-main").replace("//", f"//{credentials}@")
    admin = await asyncpg.connect(f"{main}/postgres")
    await admin.execute(f"CREATE DATABASE {DATABASE}")
    await admin.close()
    target = await asyncpg.connect(f"{main}/{DATABASE}", command_timeout=60)
    sources = [
        Source(f"peer-{number}", f"{stack.url(shard).replace('//', f'//{credentials}@')}/orders")
        for number, shard in enumerate(postgres.SHARDS)
    ]
    folder = stack.folder / "peer"
    folder.mkdir()
    port = ports.choose(folder, ["peer"], {})["peer"]
    worker = _start(stack, port, folder)
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as connect:
            for source in sources:
                await begin(connect, source.connector, _source_settings(source))
            await begin(connect, "sink", _sink_settings(f"{main}/{DATABASE}"))
            yield Sink(connect, target)
    finally:
        worker.terminate()
        await asyncio.to_thread(worker.wait, 60)
        await target.close()
        for source in sources:
            shard = await asyncpg.connect(source.dsn)
            await shard.execute(
                "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1", source.slot
            )
            await shard.close()


def _start(stack: Stack, port: int, folder: Path) -> "subprocess.Popen[bytes]":
    """A worker with the settings of the stack's own but for its names, and types in the messages, which the sink reads.
    Ends with us."""
    text = (places.KAFKA_SOURCE / "connect.properties").read_text()
    for old, new in (
        ("=connect\n", "=peer\n"),
        ("=_connect-", "=_peer-"),
        ("schemas.enable=false", "schemas.enable=true"),
        ("@KAFKA@", stack.env("reporting")["LOSTWAX_KAFKA_BOOTSTRAP"]),
        ("@PORT@", str(port)),
    ):
        text = text.replace(old, new)
    (folder / "connect.properties").write_text(text)
    java = setup.kafka_command(archive="", libs=_LIBS)
    command = [*java, "org.apache.kafka.connect.cli.ConnectDistributed", str(folder / "connect.properties")]
    with (folder / "connect.log").open("wb") as log:
        return subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "--", *command], stdout=log, stderr=log)


def _source_settings(source: Source) -> dict[str, str]:
    """As ours captures, but of these tables alone, whole, and into topics of its own."""
    user, password = urlsplit(source.dsn).username, urlsplit(source.dsn).password
    ours = connector_config(Source("orders-0", source.dsn))
    return ours | {
        "database.user": user or "",
        "database.password": password or "",
        "topic.prefix": source.name,
        "slot.name": source.slot,
        "snapshot.mode": "no_data",
        "table.include.list": ",".join(f"public.{table}" for table in TABLES),
        "column.include.list": r"public\..*",
        "transforms.route.replacement": "peer.$1",
    }


def _sink_settings(dsn: str) -> dict[str, str]:
    where = urlsplit(dsn)
    return {
        "connector.class": "io.debezium.connector.jdbc.JdbcSinkConnector",
        "tasks.max": "2",
        "topics": ",".join(f"peer.{table}" for table in TABLES),
        "connection.url": f"jdbc:postgresql://{where.hostname}:{where.port}{where.path}?reWriteBatchedInserts=true",
        "connection.username": where.username or "",
        "connection.password": where.password or "",
        "insert.mode": "upsert",
        "primary.key.mode": "record_key",
        "schema.evolution": "basic",
        "collection.name.format": "${topic}",
        # as fast as it goes: many rows in a batch, and as many asked for at a time
        "batch.size": "2000",
        "consumer.override.max.poll.records": "2000",
        "consumer.override.metadata.max.age.ms": "2000",
    }
