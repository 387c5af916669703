"""Reading what stands in Kafka now, for people and tools: no group, nothing committed, an end that comes.

These functions block, and raise KafkaException when the broker does not answer.
"""

import time
from collections.abc import Iterator, Mapping, Sequence

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka import Message as KafkaMessage

_LIMIT_S = 60.0
_ASK_LIMIT_S = 10.0
_NO_LEADER_YET = (KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE)


def read_to_end(
    bootstrap: str,
    topics: Mapping[str, Sequence[int] | None],
    *,
    since_ms: int | None = None,
    limit_s: float = _LIMIT_S,
) -> list[KafkaMessage]:
    """Everything in these partitions of these topics (None: all of them) up to their present ends, in the order of each
    partition; with `since_ms` (since 1970) only what Kafka got from then on. A topic that does not exist is empty.
    """
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "reader",  # never used: no group is joined, nothing is committed
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "fetch.queue.backoff.ms": 10,
            "log_level": 3,
        }
    )
    try:
        wanted = [place for name, numbers in topics.items() for place in _holding(consumer, name, numbers)]
        if since_ms is not None and wanted:
            # Behind the end when nothing is that new: then the end is reported at once.
            asked = [TopicPartition(p.topic, p.partition, since_ms) for p in wanted]
            wanted = consumer.offsets_for_times(asked, timeout=_ASK_LIMIT_S)
        reading = {(p.topic, p.partition) for p in wanted}
        consumer.assign(wanted)
        found: list[KafkaMessage] = []
        deadline = time.monotonic() + limit_s
        while reading:
            if time.monotonic() > deadline:
                late = ", ".join(sorted({name for name, _ in reading}))
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT, f"cannot read {late}"))
            for message in consumer.consume(1000, 0.2):
                place = (str(message.topic()), int(message.partition() or 0))
                if (error := message.error()) is None:
                    found.append(message)
                elif error.code() == KafkaError._PARTITION_EOF:
                    reading.discard(place)
        return found
    finally:
        consumer.close()


def _holding(consumer: Consumer, name: str, numbers: Sequence[int] | None) -> Iterator[TopicPartition]:
    """The partitions that hold anything, from their beginning."""
    known = consumer.list_topics(name, timeout=_ASK_LIMIT_S).topics[name]
    if known.error is not None:
        if known.error.code() in (KafkaError._UNKNOWN_TOPIC, KafkaError.UNKNOWN_TOPIC_OR_PART):
            return
        raise KafkaException(known.error)
    for number in sorted(known.partitions) if numbers is None else numbers:
        low, high = _ends(consumer, TopicPartition(name, number))
        if high > low:
            yield TopicPartition(name, number, OFFSET_BEGINNING)


def _ends(consumer: Consumer, place: TopicPartition) -> tuple[int, int]:
    """A partition that has just been made, or moved, has no leader for a moment."""
    deadline = time.monotonic() + _ASK_LIMIT_S
    while True:
        try:
            low, high = consumer.get_watermark_offsets(place, timeout=_ASK_LIMIT_S)
        except KafkaException as error:
            if error.args[0].code() not in _NO_LEADER_YET or time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return low, high


def headers_of(message: KafkaMessage) -> dict[str, str]:
    """A record's headers as text."""
    return {k: v.decode(errors="replace") for k, v in message.headers() or [] if isinstance(v, bytes)}
