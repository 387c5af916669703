"""The relay: carries outbox rows to Kafka, in order for each key, and deletes them only after the acknowledgement.

One relay at a time for each database, by a session's advisory lock; others wait for the lock. A relay that loses its
connection loses the lock, so at worst two publish the same rows: readers are ready for repeated messages.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence

import asyncpg

from lostwax.contracts import catalogue
from lostwax.contracts import metrics as measured
from lostwax.contracts.topics import Topic
from lostwax.kit import metrics, tracing
from lostwax.kit.kafka import NotPublished, OutgoingRecord, Publisher
from lostwax.kit.postgres import UNREACHABLE, OwnConnection, let_go
from lostwax.kit.publishing import PublishingLimits, TokenBucket

log = logging.getLogger(__name__)

_RELAY_LOCK = 7_300_002
_BATCH = 1000
_SAFETY_POLL_S = 30.0
_MEASURE_EVERY_S = 5.0

_sent = metrics.counter(measured.MESSAGES_SENT)
_wait = metrics.histogram(measured.OUTBOX_WAIT)
_depth = metrics.gauge(measured.OUTBOX_DEPTH)
_oldest = metrics.gauge(measured.OUTBOX_AGE)


class Relay:
    """Relay of one database. `share` is its part of a topic's rate when several relays of a service divide it."""

    def __init__(
        self,
        dsn: str,
        *,
        service: str,
        topics: Sequence[Topic],
        publisher: Publisher,
        limits: PublishingLimits,
        share: float = 1.0,
        name: str | None = None,
    ) -> None:
        self._dsn = dsn
        self._service = service
        self._name = name or service
        self._topics = [t.name for t in topics]
        self._publisher = publisher
        self._limits = limits
        self._share = share
        self._wake = asyncio.Event()
        self._buckets: dict[str, TokenBucket] = {}
        self._measured_at = 0.0
        self._held_back = False
        self.published = 0
        self.active = False
        limits.on_change(self._wake.set)

    async def run(self) -> None:
        """Publish until cancelled; database and broker may come and go."""
        await self._limits.known()
        pause = 0.1
        while True:
            try:
                await self._hold_lock_and_publish()
            except UNREACHABLE as error:
                log.warning("relay: database away", extra={"relay": self._name, "error": repr(error)})
            except NotPublished as error:
                log.warning("relay: broker away", extra={"relay": self._name, "error": str(error)})
            finally:
                self.active = False
            await asyncio.sleep(pause)
            pause = min(pause * 2, 2.0)

    async def _hold_lock_and_publish(self) -> None:
        connection = await asyncpg.connect(
            self._dsn, timeout=5, server_settings={"application_name": f"relay {self._name}", "jit": "off"}
        )
        try:
            await connection.add_listener("outbox", lambda *_: self._wake.set())
            connection.add_termination_listener(lambda *_: self._wake.set())
            await connection.execute("SELECT pg_advisory_lock($1)", _RELAY_LOCK)
            self.active = True
            await self._measure(connection)
            while True:
                self._wake.clear()
                busy, next_token_s = False, _SAFETY_POLL_S
                self._held_back = False
                for topic in self._topics:
                    sent, wait_s = await self._publish_some(connection, topic)
                    busy = busy or sent == _BATCH
                    next_token_s = min(next_token_s, wait_s)
                if (busy or self._held_back) and time.monotonic() - self._measured_at > _MEASURE_EVERY_S:
                    await self._measure(connection)
                if not busy:
                    if not self._held_back:
                        self._drained()
                    await self._sleep(min(next_token_s, _MEASURE_EVERY_S) if self._held_back else next_token_s)
        finally:
            await let_go(connection)

    async def _measure(self, connection: OwnConnection) -> None:
        self._measured_at = time.monotonic()
        row = await connection.fetchrow(
            "SELECT count(*) AS waiting, coalesce(extract(epoch FROM now() - min(created_at)), 0)::float8 AS age"
            " FROM outbox"
        )
        assert row is not None
        _depth.set(row["waiting"], self._name)
        _oldest.set(max(0.0, row["age"]), self._name)

    def _drained(self) -> None:
        _depth.set(0, self._name)
        _oldest.set(0, self._name)

    async def _sleep(self, seconds: float) -> None:
        # Not wait_for: in Python 3.11 it may lose a cancellation.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()

    async def _publish_some(self, connection: OwnConnection, topic: str) -> tuple[int, float]:
        """Publish up to a batch of one topic; returns how many, and the seconds until more may be sent."""
        now = time.monotonic()
        bucket = self._bucket(topic, now)
        allowed = bucket.available(now, _BATCH)
        if allowed == 0:
            self._held_back = True
            wait_s = bucket.seconds_to_next()
            return 0, _SAFETY_POLL_S if wait_s is None else max(wait_s, 0.02)
        # No cursor is kept: a row whose transaction commits late has a low id and is simply first next time.
        rows = await connection.fetch(
            "SELECT id, partition, key, type, message_id, traceparent, payload, created_at"
            " FROM outbox WHERE topic = $1 ORDER BY id LIMIT $2",
            topic,
            allowed,
        )
        if not rows:
            return 0, _SAFETY_POLL_S
        # In Kafka a message continues its relay's span, which lasts from the transaction to the acknowledgement.
        traces = [tracing.child_of(t) if tracing.sampled(t := r["traceparent"]) else t for r in rows]
        await self._publisher.publish(
            [
                OutgoingRecord(
                    topic,
                    r["key"],
                    r["payload"],
                    catalogue.cloud_headers(str(r["message_id"]), r["type"], self._service, r["created_at"], trace),
                    r["partition"],
                )
                for r, trace in zip(rows, traces, strict=True)
            ]
        )
        self._acknowledged(topic, rows, traces)
        await connection.execute("DELETE FROM outbox WHERE topic = $1 AND id = ANY($2)", topic, [r["id"] for r in rows])
        bucket.spend(len(rows))
        self.published += len(rows)
        wait_s = bucket.seconds_to_next() if len(rows) == allowed else None
        return len(rows), _SAFETY_POLL_S if wait_s is None else max(wait_s, 0.02)

    def _acknowledged(self, topic: str, rows: Sequence[asyncpg.Record], traces: Sequence[str | None]) -> None:
        _sent.add(len(rows), topic)
        at_ns = time.time_ns()
        for row, trace in zip(rows, traces, strict=True):
            created_at = row["created_at"].timestamp()
            _wait.record(at_ns / 1e9 - created_at, topic)
            if trace is not None and tracing.sampled(trace):
                written_ns = int(created_at * 1e9)
                tracing.record(
                    tracing.Span(f"send {topic}", "producer", trace, row["traceparent"], written_ns, at_ns, {})
                )

    def _bucket(self, topic: str, now: float) -> TokenBucket:
        limit = self._limits.of(topic)
        bucket = self._buckets.get(topic)
        if bucket is None or bucket.limit != limit:
            bucket = self._buckets[topic] = TokenBucket(limit, self._share, now)
        return bucket
