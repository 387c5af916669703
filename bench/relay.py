"""`lostwax bench relay`: outbox rows a second to Kafka, acknowledged, and how long a row waits at 500 a second.

The peer is Debezium's outbox EventRouter on a table of the same shape with the same rows, in the same run, alternated.
Each is asked for the time from the moment that it may begin (the relay is let go; the rows of the other are committed,
which is when its slot sees them) until a consumer has read the last of them; a wait is from just before a row's
transaction until the same consumer has it. The producer alone, sending the same records in the same batches without
a database, is what either could reach at most.
"""

import asyncio
import statistics
import threading
import time
from typing import Any

import asyncpg
import httpx
from confluent_kafka import OFFSET_END, Consumer, TopicPartition

from _debezium import routed_outbox
from _stack import fresh_stack
from lostwax.contracts import topics
from lostwax.contracts.ids import new_id
from lostwax.kit.kafka import OutgoingRecord, Publisher
from lostwax.local.stack import Stack

BATCH, PARTITIONS = 1000, 8
TYPE = "bench.ignored.v1"
RATE, AT_ONCE = 500, 10
TOPIC = topics.ORDER_COMMANDS.name
"""Readers skip the type; nobody reads this topic here, for the other services do not run."""

_ROWS = """
    INSERT INTO outbox (topic, partition, key, type, message_id, traceparent, payload)
    SELECT $1, n % 8, gen_random_uuid()::text, $2, gen_random_uuid(), NULL, $3 FROM generate_series(1, $4::int) AS n
"""
_ALL_WITHIN_S = 120

Connection = asyncpg.Connection  # its stubs alone know it as generic


class _Reader:
    """Reads all that comes to the topic from now on, in a thread of its own, and says when it was."""

    def __init__(self, bootstrap: str) -> None:
        self._consumer = Consumer(
            {"bootstrap.servers": bootstrap, "group.id": "bench", "enable.auto.commit": False, "log_level": 3,
             "isolation.level": "read_committed", "fetch.wait.max.ms": 5}
        )  # fmt: skip
        self._over = threading.Event()
        self._assigned = threading.Event()
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
        self._consumer.assign([TopicPartition(TOPIC, n, OFFSET_END) for n in range(PARTITIONS)])
        for _ in range(20):  # the ends are looked up with the first answers, and what comes before is not seen
            self._consumer.consume(1000, 0.1)
        self._assigned.set()
        while not self._over.is_set():
            for message in self._consumer.consume(1000, 0.05):
                if message.error() is None:
                    self.came.append((time.time(), message.value() or b""))
        self._consumer.close()

    async def until(self, count: int) -> float:
        """When so many had come, in seconds since 1970."""
        deadline = time.monotonic() + _ALL_WITHIN_S
        while len(self.came) < count:
            if time.monotonic() > deadline:
                raise SystemExit(f"{len(self.came)} of {count} rows came within {_ALL_WITHIN_S} s")
            await asyncio.sleep(0.005)
        return self.came[count - 1][0]


def run(quick: bool) -> dict[str, Any]:
    """Prints a table; returns the metrics."""
    with fresh_stack("partner_api") as stack:
        return asyncio.run(_run(stack, 20_000 if quick else 100_000, 3 if quick else 5, 8 if quick else 30))


async def _run(stack: Stack, rows: int, rounds: int, seconds: int) -> dict[str, Any]:
    bootstrap = stack.env("partner_api")["LOSTWAX_KAFKA_BOOTSTRAP"]
    own = await asyncpg.connect(stack.env("partner_api")["LOSTWAX_DATABASE_URL"], command_timeout=120)
    publisher = Publisher(bootstrap, client_id="bench")
    relayed, routed, alone = [], [], []
    async with routed_outbox(stack) as theirs:
        await _relay(stack, own, bootstrap, rows // 10)
        await _route(theirs, bootstrap, rows // 10)
        print(f"{'round':>5}{'relay/s':>12}{'Debezium/s':>12}{'producer alone/s':>18}")
        for number in range(1, rounds + 1):
            relayed.append(await _relay(stack, own, bootstrap, rows))
            routed.append(await _route(theirs, bootstrap, rows))
            alone.append(await _producer_alone(publisher, rows))
            print(f"{number:>5}{relayed[-1]:12,.0f}{routed[-1]:12,.0f}{alone[-1]:18,.0f}")
        ours = await _waits(own, bootstrap, seconds)
        peers = await _waits(theirs, bootstrap, seconds)
    await own.close()
    published, peer, most = (statistics.median(figures) for figures in (relayed, routed, alone))
    print(
        f"relay {published:,.0f} rows/s, {published / peer:.2f} of Debezium's {peer:,.0f}, {published / most:.2f} of"
        f" the producer alone; at {RATE}/s a row waits {ours}, with Debezium {peers}"
    )
    return {
        "published": {"value": published, "unit": "rows/s", "ceiling": peer, "ratio": published / peer},
        "producer_alone": {"value": most, "unit": "rows/s", "ceiling": None, "ratio": None},
        **{
            f"lag_{name}": {"value": value, "unit": "ms", "ceiling": peers[name], "ratio": value / peers[name]}
            for name, value in ours.items()
        },
    }


async def _relay(stack: Stack, connection: "Connection[asyncpg.Record]", bootstrap: str, rows: int) -> float:
    await asyncio.to_thread(_pause, stack, paused=True)
    await connection.execute(_ROWS, TOPIC, TYPE, _payload(), rows)
    with _Reader(bootstrap) as reader:
        began = time.time()
        await asyncio.to_thread(_pause, stack, paused=False)
        return rows / (await reader.until(rows) - began)


async def _route(connection: "Connection[asyncpg.Record]", bootstrap: str, rows: int) -> float:
    with _Reader(bootstrap) as reader:
        await connection.execute("TRUNCATE outbox")
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(_ROWS, TOPIC, TYPE, _payload(), rows)
        began = time.time()
        await transaction.commit()
        return rows / (await reader.until(rows) - began)


async def _producer_alone(publisher: Publisher, rows: int) -> float:
    records = [
        OutgoingRecord(TOPIC, str(new_id()), _payload(), {"ce_type": TYPE, "ce_id": str(new_id())}, n % PARTITIONS)
        for n in range(BATCH)
    ]
    began = time.monotonic()
    for _ in range(rows // BATCH):
        await publisher.publish(records)
    return rows / (time.monotonic() - began)


async def _waits(connection: "Connection[asyncpg.Record]", bootstrap: str, seconds: int) -> dict[str, float]:
    """Milliseconds from just before a row's transaction until it has come to a consumer."""
    with _Reader(bootstrap) as reader:
        began = time.monotonic()
        for number in range(seconds * RATE // AT_ONCE):
            await connection.execute(_ROWS, TOPIC, TYPE, _payload(), AT_ONCE)
            await asyncio.sleep(max(0.0, began + (number + 1) * AT_ONCE / RATE - time.monotonic()))
        await reader.until(seconds * RATE // AT_ONCE * AT_ONCE)
        waits = sorted(1000 * (came - float(payload[:20])) for came, payload in reader.came)
    return {name: round(waits[int(share * len(waits))], 1) for name, share in (("p50_ms", 0.5), ("p99_ms", 0.99))}


def _payload() -> bytes:
    """840 bytes that begin with the time."""
    return f"{time.time():20.6f}".encode() + b"x" * 820


def _pause(stack: Stack, *, paused: bool) -> None:
    httpx.put(
        f"{stack.url('partner_api')}/v1/publishing/{TOPIC}",
        json={"paused": paused},
        headers={"Authorization": f"Bearer {stack.console_token('partner_api')}"},
    ).raise_for_status()
