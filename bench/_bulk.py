"""How fast telemetry gets from Kafka into OpenSearch, beside OpenSearch's own `_bulk` with the same documents."""

import asyncio
import logging
import statistics
import time
from typing import Any

import httpx

from _stack import fresh_stack
from lostwax.contracts import topics
from lostwax.contracts.ids import new_id
from lostwax.kit import otlp
from lostwax.kit.clock import utc_now
from lostwax.kit.kafka import OutgoingRecord, Publisher
from lostwax.kit.tracing import SUBJECT, new_traceparent
from lostwax.local.stack import Stack
from lostwax.telemetry import indices
from lostwax.telemetry.clients import OpenSearch
from lostwax.telemetry.documents import Document, log_documents
from lostwax.telemetry.indices import Stream

LINES = 400
"""Of a record, as a busy service sends them."""

_RAW_AT_ONCE, _RAW_LINES = 2, 5_000


def measure(quick: bool) -> dict[str, Any]:
    """Prints the rounds; returns the metric `bulk`."""
    records, rounds = (60, 3) if quick else (150, 5)
    with fresh_stack("telemetry") as stack:
        stack.wait_ready("opensearch")
        return asyncio.run(_measure(stack, records, rounds))


async def _measure(stack: Stack, records: int, rounds: int) -> dict[str, Any]:
    search = OpenSearch(stack.url("opensearch"))
    publisher = Publisher(stack.env("telemetry")["LOSTWAX_KAFKA_BOOTSTRAP"], client_id="bench", timeout_s=30)
    other = Stream("bench-raw", indices.LOGS.properties)
    await search.prepare([other], replicas=0)
    ours, raw = [], []
    for _ in range(2):  # until the streams are there, and Java has warmed up
        await _ours(search, publisher, _some(10))
        await _raw(stack.url("opensearch"), other, _some(10))
    for number in range(rounds):
        raw.append(await _raw(stack.url("opensearch"), other, _some(records)))
        ours.append(await _ours(search, publisher, _some(records)))
        print(f"round {number + 1}: from Kafka {ours[-1]:,.0f} documents/s, raw _bulk {raw[-1]:,.0f}/s")
    await search.close()
    stored, ceiling = statistics.median(ours), statistics.median(raw)
    ratio = statistics.median(a / b for a, b in zip(ours, raw, strict=True))
    print(f"telemetry into OpenSearch: {stored:,.0f} documents/s, {ratio:.2f} of raw _bulk")
    return {"bulk": {"value": stored, "unit": "documents/s", "ceiling": ceiling, "ratio": ratio}}


def _some(records: int) -> list[bytes]:
    """Records of log lines, no two alike."""
    source = otlp.resource("orders", "orders-0")
    made = []
    for _ in range(records):
        now_ns = time.time_ns()
        made.append(
            otlp.encode_logs(
                source,
                [
                    otlp.Log(
                        now_ns + n,
                        logging.INFO,
                        "order moved on",
                        {"logger": "lostwax.orders.handlers", SUBJECT: str(new_id()), "status": "SHIPPED", "line": n},
                        new_traceparent(),
                    )
                    for n in range(LINES)
                ],
            )
        )
    return made


async def _raw(url: str, stream: Stream, values: list[bytes]) -> float:
    """Documents a second of `_bulk` alone: bodies made before, two requests at once."""
    documents = [document for value in values for document in log_documents(value, utc_now())]
    bodies = [_body(documents[n : n + _RAW_LINES]) for n in range(0, len(documents), _RAW_LINES)]
    async with httpx.AsyncClient(base_url=url, timeout=60, headers={"Content-Type": "application/json"}) as client:
        began = time.monotonic()

        async def send() -> None:
            while bodies:
                response = await client.post(
                    f"/{stream.name}/_bulk", content=bodies.pop(), params={"filter_path": "errors"}
                )
                assert response.json() == {"errors": False}, response.text

        await asyncio.gather(*(send() for _ in range(_RAW_AT_ONCE)))
        return len(documents) / (time.monotonic() - began)


def _body(documents: list[Document]) -> bytes:
    return b"".join(b'{"create":{"_id":"%s"}}\n%s\n' % (d.id.encode(), d.source) for d in documents)


async def _ours(search: OpenSearch, publisher: Publisher, values: list[bytes]) -> float:
    """Documents a second from the first one's way into Kafka to the last one's into OpenSearch."""
    wanted = len(values) * LINES + await _indexed(search)
    records = [
        OutgoingRecord(topics.TELEMETRY_LOGS.name, None, value, {}, number % topics.TELEMETRY_LOGS.partitions)
        for number, value in enumerate(values)
    ]
    began = time.monotonic()
    await publisher.publish(records)
    while await _indexed(search) < wanted:
        if time.monotonic() > began + 120:
            raise RuntimeError("what was sent to Kafka is not in OpenSearch after two minutes")
        await asyncio.sleep(0.05)
    return len(values) * LINES / (time.monotonic() - began)


async def _indexed(search: OpenSearch) -> int:
    """Documents that the stream of logs has ever taken; 0 before it is there."""
    answer = await search.call(
        "GET", f"/{indices.LOGS.name}/_stats/indexing", ignore_unavailable="true", filter_path="_all.primaries"
    )
    return int(answer["_all"]["primaries"]["indexing"]["index_total"]) if answer["_all"].get("primaries") else 0
