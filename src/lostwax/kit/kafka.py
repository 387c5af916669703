"""Kafka: the producer as every service uses it, and the creation of topics."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka import Message as KafkaMessage
from confluent_kafka.admin import AdminClient, NewTopic

from lostwax.contracts.topics import Topic

log = logging.getLogger(__name__)

_ERRORS_EVERY_S = 60.0


class NotPublished(Exception):
    """The broker did not acknowledge. Nothing is known of the messages' fate: send them again."""


class ClientErrors:
    """The client's own complaints in the log. With the broker away there are many a second, and all say the same: each
    kind is told once, then once a minute with how many there were. For `error_cb`; the fields go into each line."""

    def __init__(self, **fields: str) -> None:
        self._fields = fields
        self._told: dict[int, float] = {}
        self._untold: Counter[int] = Counter()

    def __call__(self, error: KafkaError) -> None:
        code, now = error.code(), time.monotonic()
        if now - self._told.get(code, -_ERRORS_EVERY_S) < _ERRORS_EVERY_S:
            self._untold[code] += 1
            return
        self._told[code] = now
        log.warning("kafka client", extra={**self._fields, "error": str(error), "more": self._untold.pop(code, 0)})


class OutgoingRecord:
    """One record for the producer. `partition` -1 lets the key's hash choose."""

    __slots__ = ("headers", "key", "partition", "topic", "value")

    def __init__(
        self,
        topic: str,
        key: str | None,
        value: bytes | None,
        headers: Mapping[str, str | bytes],
        partition: int = -1,
    ) -> None:
        self.topic, self.key, self.value, self.headers, self.partition = topic, key, value, headers, partition


class Publisher:
    """An idempotent producer: order is kept within a partition, and a retry inside the client never doubles.

    After a failure the client is made anew: an idempotent one may be in a state that it never leaves.
    """

    def __init__(self, bootstrap: str, *, client_id: str, timeout_s: float = 20) -> None:
        self._timeout_s = timeout_s
        self._settings: dict[str, Any] = {
            "bootstrap.servers": bootstrap,
            "client.id": client_id,
            "enable.idempotence": True,
            "acks": "all",
            "linger.ms": 1,
            "compression.type": "lz4",
            "delivery.timeout.ms": int(timeout_s * 1000),
            "delivery.report.only.error": True,
            "queue.buffering.max.messages": 100_000,
            "partitioner": "murmur2_random",
            "log_level": 3,
            "reconnect.backoff.max.ms": 1000,
            "error_cb": ClientErrors(client=client_id),
        }
        self._producer = Producer(self._settings)
        self._turn = asyncio.Lock()

    async def publish(self, records: Sequence[OutgoingRecord]) -> None:
        """Send all records and wait for the broker's acknowledgement of each. Raises NotPublished unless all came.

        The wait is in a thread, so the event loop goes on. Calls take turns, which keeps their order.
        """
        failures: list[str] = []

        def failed(error: KafkaError | None, _message: KafkaMessage) -> None:
            if error is not None:
                failures.append(str(error))

        async with self._turn:
            try:
                await asyncio.to_thread(self._send, records, failed)
                if failures:
                    raise NotPublished(f"{len(failures)} of {len(records)}: {failures[0]}")
            except NotPublished:
                self._producer = Producer(self._settings)
                raise

    def _send(
        self, records: Sequence[OutgoingRecord], failed: Callable[[KafkaError | None, KafkaMessage], None]
    ) -> None:
        produce = self._producer.produce
        for record in records:
            try:
                produce(
                    record.topic,
                    value=record.value,
                    key=record.key,
                    partition=record.partition,
                    headers=list(record.headers.items()),
                    on_delivery=failed,
                )
            except (BufferError, KafkaException) as error:
                self._give_up()
                raise NotPublished(str(error)) from error
        left = self._producer.flush(self._timeout_s + 5)
        if left:
            self._give_up()
            raise NotPublished(f"{left} of {len(records)} without an answer")

    def _give_up(self) -> None:
        self._producer.purge()
        self._producer.flush(1)

    def close(self) -> None:
        self._producer.flush(5)


def _settings(topic: Topic) -> dict[str, str]:
    policy, retention_ms = topic.cleanup
    settings = {"cleanup.policy": ",".join(policy)}
    if topic.compacted:
        settings["min.cleanable.dirty.ratio"] = "0.3"
    if retention_ms is not None:
        settings["retention.ms"] = str(retention_ms)
    return settings


def ensure_topics(bootstrap: str, topics: Sequence[Topic], *, replication: int = 1, timeout_s: float = 30) -> None:
    """Create what is missing of `topics`, and a dead-letter topic for each. Existing topics are left as they are."""
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 3})
    present = admin.list_topics(timeout=timeout_s).topics
    wanted = [
        NewTopic(
            topic.name,
            num_partitions=topic.partitions,
            replication_factor=replication,
            config=_settings(topic),
        )
        for topic in topics
    ]
    wanted += [
        NewTopic(topic.dead, num_partitions=1, replication_factor=replication, config={"retention.ms": "-1"})
        for topic in topics
    ]
    missing = [topic for topic in wanted if topic.topic not in present]
    if not missing:
        return
    for name, future in admin.create_topics(missing, operation_timeout=timeout_s).items():
        try:
            future.result(timeout=timeout_s)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise NotPublished(f"cannot create topic {name}: {error}") from error
