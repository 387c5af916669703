"""`lostwax bench relay`: outbox rows a second to Kafka, acknowledged, and how long a row waits at 500 a second.

The ceiling is the producer alone, sending the same records in the same batches without a database. (Debezium's
EventRouter on the same table, the peer of the budget, comes with Kafka Connect.)
"""

import asyncio
import statistics
import time
from datetime import datetime
from typing import Any

import asyncpg
import httpx

from _stack import fresh_stack
from lostwax.contracts import topics
from lostwax.contracts.ids import new_id
from lostwax.kit.kafka import OutgoingRecord, Publisher
from lostwax.kit.kafka_reading import headers_of, read_to_end
from lostwax.local.stack import Stack

BATCH = 1000
PAYLOAD = b'{"order_id":"' + b"x" * 800 + b'"}'
TYPE = "bench.ignored.v1"
_ROWS = """
    INSERT INTO outbox (topic, partition, key, type, message_id, traceparent, payload)
    SELECT $1, n % 8, gen_random_uuid()::text, $2, gen_random_uuid(), NULL, $3 FROM generate_series(1, $4::int) AS n
"""


def run(quick: bool) -> dict[str, Any]:
    """Prints a table; returns the metrics."""
    with fresh_stack("partner_api") as stack:
        return asyncio.run(_run(stack, 20_000 if quick else 100_000, 3 if quick else 5, 8 if quick else 30))


async def _run(stack: Stack, rows: int, rounds: int, seconds: int) -> dict[str, Any]:
    # Readers skip the type; nobody reads this topic here, for the other services do not run.
    topic = topics.ORDER_COMMANDS.name
    connection = await asyncpg.connect(stack.env("partner_api")["LOSTWAX_DATABASE_URL"], command_timeout=120)
    publisher = Publisher(stack.env("partner_api")["LOSTWAX_KAFKA_BOOTSTRAP"], client_id="bench")
    relayed, alone = [], []
    for number in range(rounds):
        _pause(stack, topic, paused=True)
        await connection.execute(_ROWS, topic, TYPE, PAYLOAD, rows)
        began = time.monotonic()
        _pause(stack, topic, paused=False)
        while await connection.fetchval("SELECT EXISTS (SELECT FROM outbox)"):  # noqa: ASYNC110 - the relay's doing
            await asyncio.sleep(0.02)
        relayed.append(rows / (time.monotonic() - began))
        alone.append(await _producer_alone(publisher, topic, rows))
        print(f"round {number + 1}: relay {relayed[-1]:,.0f}/s, producer alone {alone[-1]:,.0f}/s")
    waits = await _waits(stack, connection, topic, seconds)
    await connection.close()
    published, ceiling = statistics.median(relayed), statistics.median(alone)
    print(
        f"relay {published:,.0f} rows/s, {published / ceiling:.2f} of the producer alone; at 500/s a row waits", waits
    )
    return {
        "published": {"value": published, "unit": "rows/s", "ceiling": ceiling, "ratio": published / ceiling},
        **{
            f"lag_{name}": {"value": value, "unit": "ms", "ceiling": None, "ratio": None}
            for name, value in waits.items()
        },
    }


async def _producer_alone(publisher: Publisher, topic: str, rows: int) -> float:
    records = [
        OutgoingRecord(topic, str(new_id()), PAYLOAD, {"ce_type": TYPE, "ce_id": str(new_id())}, n % 8)
        for n in range(BATCH)
    ]
    began = time.monotonic()
    for _ in range(rows // BATCH):
        await publisher.publish(records)
    return rows / (time.monotonic() - began)


async def _waits(
    stack: Stack, connection: "asyncpg.Connection[asyncpg.Record]", topic: str, seconds: int
) -> dict[str, float]:
    """Milliseconds from a row's transaction to Kafka's timestamp of it, the relay's sending."""
    since_ms = int(time.time() * 1000)
    began = time.monotonic()
    for number in range(seconds * 50):
        await connection.execute(_ROWS, topic, "bench.paced.v1", PAYLOAD, 10)
        await asyncio.sleep(max(0.0, began + number / 50 - time.monotonic()))
    await asyncio.sleep(1)
    waits = sorted(
        max(0.0, record.timestamp()[1] - datetime.fromisoformat(headers["ce_time"]).timestamp() * 1000)
        for record in read_to_end(stack.env("partner_api")["LOSTWAX_KAFKA_BOOTSTRAP"], {topic: None}, since_ms=since_ms)
        if (headers := headers_of(record)).get("ce_type") == "bench.paced.v1"
    )
    return {name: waits[int(share * len(waits))] for name, share in (("p50_ms", 0.5), ("p99_ms", 0.99))}


def _pause(stack: Stack, topic: str, *, paused: bool) -> None:
    httpx.put(
        f"{stack.url('partner_api')}/v1/publishing/{topic}",
        json={"paused": paused},
        headers={"Authorization": f"Bearer {stack.console_token('partner_api')}"},
    ).raise_for_status()
