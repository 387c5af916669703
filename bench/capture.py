"""`lostwax bench capture`: rows a second from both shards of Orders to Kafka and on into the warehouse, and how old a
change is when it is in each. An order is its row and its first line of history.

The peer is Debezium's JDBC sink, which takes the same rows by connectors of its own into a PostgreSQL, in the same run.
"""

import asyncio
import json
import statistics
import threading
import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import httpx
from confluent_kafka import OFFSET_END, Consumer, TopicPartition

from _jdbc_sink import Sink, jdbc_sink
from _journal import metric
from _stack import fresh_stack
from lostwax.contracts.capture import PARTITIONS, tables_of
from lostwax.contracts.ids import new_id
from lostwax.local.places import POSTGRES_SUPERUSER
from lostwax.local.servers import postgres
from lostwax.local.stack import Stack

OWNERS = ("partner_api", "orders", "mes", "crm")
TOPICS = [table.topic.name for table in tables_of("orders") if table.table in ("orders", "order_history")]
BODY = json.dumps(
    {
        "version": 1, "status": "SUBMITTED", "account": "0197f0a0-0000-7000-8000-00000000acc1", "channel": "bench",
        "specification": {"model": {"sha256": "0" * 64, "size_bytes": 84_000, "name": "ring.stl"}, "alloy": "gold-14k",
                          "finish": "polished", "quantity": 2},
        "submitted_at": "2026-11-02T12:00:00Z", "updated_at": "2026-11-02T12:00:00Z", "reference": "PO-1",
        "transition": {"source": None, "target": "SUBMITTED", "at": "2026-11-02T12:00:00Z",
                       "actor": {"kind": "partner", "id": "0197f0a0-0000-7000-8000-00000000acc1", "name": "bench"}},
        "filling": "x" * 300,
    }
)  # fmt: skip
RATE, AT_ONCE, BATCH = 100, 5, 500
_ALL_WITHIN_S = 300
_ORDERS = """
    WITH made AS (
        INSERT INTO orders (order_id, version, status, account, channel, model_sha256, submitted_at, status_since, body)
        SELECT id, 1, 'SUBMITTED', gen_random_uuid(), 'bench', repeat('0', 64), now(), now(),
               $2::jsonb || jsonb_build_object('order_id', id, 'written', extract(epoch FROM clock_timestamp()))
        FROM unnest($1::uuid[]) AS given(id) RETURNING order_id, body
    )
    INSERT INTO order_history (order_id, version, status, at, body)
    SELECT order_id, 1, 'SUBMITTED', now(), body FROM made
"""


class _Reader:
    """Notes when each row came, from now on, in a thread of its own."""

    def __init__(self, bootstrap: str) -> None:
        self._consumer = Consumer(
            {"bootstrap.servers": bootstrap, "group.id": "bench", "enable.auto.commit": False, "log_level": 3,
             "isolation.level": "read_committed"}
        )  # fmt: skip
        self._over, self._assigned = threading.Event(), threading.Event()
        self.came: list[tuple[float, bytes]] = []
        self._thread = threading.Thread(target=self._read)

    def __enter__(self) -> "_Reader":
        self._thread.start()
        self._assigned.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _read(self) -> None:
        self._consumer.assign([TopicPartition(t, n, OFFSET_END) for t in TOPICS for n in range(PARTITIONS)])
        for _ in range(20):  # the ends are looked up with the first answers, and what comes before is not seen
            self._consumer.consume(1000, 0.1)
        self._assigned.set()
        while not self._over.is_set():
            now_come = [m.value() or b"" for m in self._consumer.consume(2000, 0.05) if m.error() is None]
            self.came += [(time.time(), value) for value in now_come]
        self._consumer.close()

    async def until(self, count: int) -> None:
        deadline = time.monotonic() + _ALL_WITHIN_S
        while len(self.came) < count:
            if time.monotonic() > deadline:
                raise SystemExit(f"{len(self.came)} of {count} rows came within {_ALL_WITHIN_S} s")
            await asyncio.sleep(0.05)


def run(quick: bool) -> dict[str, Any]:
    """Prints what it finds; returns the metrics."""
    with fresh_stack(*OWNERS, "reporting") as stack:
        for service in OWNERS:
            stack.stop(service)  # their tables are there, and made-up orders are not for them
        stack.wait_ready("connect")
        return asyncio.run(_run(stack, 20_000 if quick else 100_000, 1 if quick else 3, 15 if quick else 60))


async def _run(stack: Stack, orders: int, rounds: int, seconds: int) -> dict[str, Any]:
    bootstrap = stack.env("reporting")["LOSTWAX_KAFKA_BOOTSTRAP"]
    password = POSTGRES_SUPERUSER.read_text().strip()
    shards = [
        await asyncpg.connect(f"{stack.url(name).replace('//', f'//postgres:{password}@')}/orders", command_timeout=60)
        for name in postgres.SHARDS
    ]
    for number, shard in enumerate(shards):
        await _streams(shard, f"capture_orders_{number}")
    to_kafka, into = [], []
    async with httpx.AsyncClient(base_url=stack.url("reporting"), timeout=60) as reporting:
        warehouse = _Warehouse(stack, reporting)
        for number in range(rounds):
            to_kafka.append(await _backlog(stack, bootstrap, shards, orders, warehouse, stopped=True))
            into.append(await _backlog(stack, bootstrap, shards, orders, warehouse, stopped=False))
            print(f"round {number + 1}: {to_kafka[-1]:,.0f} rows/s to Kafka alone, {into[-1]:,.0f} into the warehouse")
        await asyncio.to_thread(stack.start_one, "reporting")
        seen = asyncio.create_task(warehouse.ages(seconds))
        waits = await _freshness(bootstrap, shards, seconds)
        ages = await seen
    await _each_connector(stack, "pause")
    await asyncio.to_thread(stack.stop, "reporting")
    async with jdbc_sink(stack) as sink:
        peer = [await _into_postgres(sink, shards, orders) for _ in range(rounds)]
    for shard in shards:
        await shard.close()
    p50, p95, age50, age95 = (some[int(share * len(some))] for some in (waits, ages) for share in (0.5, 0.95))
    print(
        f"median {statistics.median(to_kafka):,.0f} rows/s to Kafka, {statistics.median(into):,.0f} into the warehouse"
        f" ({statistics.median(peer):,.0f} into PostgreSQL by the JDBC sink);"
        f" at {RATE} orders/s {p50:.2f} s old at p50 in Kafka, {p95:.2f} at p95; in the"
        f" warehouse {age50:.2f}, {age95:.2f}"
    )
    return {
        "rows": metric(statistics.median(into), "rows/s"),
        "freshness_p95_s": metric(round(age95, 3), "s"),
        "peer_rows": metric(statistics.median(peer), "rows/s"),
        "against_jdbc_sink": metric(round(statistics.median(into) / statistics.median(peer), 2), "x"),
        "to_kafka_rows": metric(statistics.median(to_kafka), "rows/s"),
        "to_kafka_freshness_p95_s": metric(round(p95, 3), "s"),
    }


async def _rate(there: Callable[[], Awaitable[int]], before: int, count: int) -> float:
    """Rows a second, from the first of `count` that are there beyond `before` to the last."""
    first: tuple[float, int] | None = None
    deadline = time.monotonic() + _ALL_WITHIN_S
    while True:
        rows, at = await there(), time.monotonic()
        if first is None and rows > before:
            first = (at, rows)
        if rows >= before + count:
            assert first is not None
            return (rows - first[1]) / max(at - first[0], 0.001)
        if at > deadline:
            raise SystemExit(f"{rows - before} of {count} rows are there after {_ALL_WITHIN_S} s")
        await asyncio.sleep(0.1)


class _Warehouse:
    """Reporting's answers about what is in."""

    def __init__(self, stack: Stack, reporting: httpx.AsyncClient) -> None:
        self._stack, self._reporting = stack, reporting

    async def _ask(self, sql: str) -> Any:
        headers = {"Authorization": f"Bearer {self._stack.console_token('reporting')}"}
        answer = await self._reporting.post("/v1/sql", json={"sql": sql, "seconds": 30}, headers=headers)
        return answer.raise_for_status().json()

    async def rows(self) -> int:
        """Of orders and their history."""
        answer = await self._ask("SELECT (SELECT count(*) FROM orders) + (SELECT count(*) FROM history) AS n")
        return int(answer["rows"][0][0])

    async def all_in(self) -> None:
        """Returns when nothing has come for two seconds."""
        before = -1
        while (now := await self.rows()) != before:
            before = now
            await asyncio.sleep(2)

    async def ages(self, seconds: float) -> list[float]:
        """How old, in seconds, the newest change was that was to be seen, looked at ten times a second; sorted. What
        came before the first of this stretch does not count."""
        found: list[float] = []
        began = time.time()
        while (now := time.time()) < began + seconds:
            as_of = (await self._ask("SELECT 1 AS one"))["as_of"]
            newest = datetime.fromisoformat(as_of).timestamp() if as_of else 0.0
            if newest > began or now > began + 5:
                found.append(time.time() - newest)
            await asyncio.sleep(0.1)
        return sorted(found)


def _ids(count: int) -> list[UUID]:
    return [new_id() for _ in range(count)]


async def _streams(shard: "asyncpg.Connection[asyncpg.Record]", slot: str) -> None:
    for _ in range(600):
        if await shard.fetchval("SELECT active FROM pg_replication_slots WHERE slot_name = $1", slot):
            return
        await asyncio.sleep(0.1)
    raise SystemExit(f"nobody reads from {slot} after a minute: ./lostwax capture status")


async def _backlog(
    stack: Stack,
    bootstrap: str,
    shards: "list[asyncpg.Connection[asyncpg.Record]]",
    orders: int,
    warehouse: _Warehouse,
    *,
    stopped: bool,
) -> float:
    """Rows a second of what has piled up while the connectors were paused, from the first that came to the last: into
    the warehouse, or with Reporting `stopped` into Kafka."""
    await _each_connector(stack, "pause")
    if stopped:
        await asyncio.to_thread(stack.stop, "reporting")
    else:
        await asyncio.to_thread(stack.start_one, "reporting")
        await warehouse.all_in()

    if not stopped:
        before = await warehouse.rows()
        await _fill(shards, orders)
        await _each_connector(stack, "resume")
        return await _rate(warehouse.rows, before, 2 * orders)
    with _Reader(bootstrap) as reader:
        await _fill(shards, orders)
        early = len(reader.came)
        await _each_connector(stack, "resume")
        await reader.until(2 * orders)
        rest = reader.came[early:]
        return (len(rest) - 1) / (rest[-1][0] - rest[0][0])


async def _into_postgres(sink: Sink, shards: "list[asyncpg.Connection[asyncpg.Record]]", orders: int) -> float:
    """The same of the peer."""
    await _let(sink.connect, "resume", "capture-peer")
    before = await sink.rows()
    for number, shard in enumerate(shards):
        await _streams(shard, f"capture_peer_{number}")
        await shard.execute(_ORDERS, _ids(1), BODY)  # lets it make its tables, which belongs to no rate
    await _rate(sink.rows, before, 2 * len(shards))
    await _let(sink.connect, "pause", "capture-peer")
    before = await sink.rows()
    await _fill(shards, orders)
    await _let(sink.connect, "resume", "capture-peer")
    return await _rate(sink.rows, before, 2 * orders)


async def _fill(shards: "list[asyncpg.Connection[asyncpg.Record]]", orders: int) -> None:
    async def fill(shard: "asyncpg.Connection[asyncpg.Record]") -> None:
        for _ in range(orders // len(shards) // BATCH):
            await shard.execute(_ORDERS, _ids(BATCH), BODY)

    await asyncio.gather(*map(fill, shards))


async def _each_connector(stack: Stack, verb: str) -> None:
    async with httpx.AsyncClient(base_url=stack.url("connect"), timeout=30) as connect:
        await _let(connect, verb, "capture-orders")


async def _let(connect: httpx.AsyncClient, verb: str, connectors: str) -> None:
    """`pause` or `resume` the connectors of both shards; returns once they do."""
    wanted = {"pause": "PAUSED", "resume": "RUNNING"}[verb]
    names = [f"{connectors}-{number}" for number in range(len(postgres.SHARDS))]
    for name in names:
        (await connect.put(f"/connectors/{name}/{verb}")).raise_for_status()
    while True:
        states = [(await connect.get(f"/connectors/{name}/status")).json() for name in names]
        if all(part["state"] == wanted for s in states for part in (s["connector"], *s["tasks"])):
            return
        await asyncio.sleep(0.1)


async def _freshness(bootstrap: str, shards: "list[asyncpg.Connection[asyncpg.Record]]", seconds: int) -> list[float]:
    """Seconds from the writing of a row until a reader of committed records had it, sorted."""
    with _Reader(bootstrap) as reader:
        began, turns = time.monotonic(), seconds * RATE // AT_ONCE
        for number in range(turns):
            await shards[number % len(shards)].execute(_ORDERS, _ids(AT_ONCE), BODY)
            await asyncio.sleep(max(0.0, began + (number + 1) * AT_ONCE / RATE - time.monotonic()))
        await reader.until(2 * turns * AT_ONCE)
        return sorted(came - json.loads(json.loads(value)["after"]["body"])["written"] for came, value in reader.came)
