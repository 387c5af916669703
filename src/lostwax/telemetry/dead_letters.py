"""How many dead letters wait for a decision. A topic is read again only when something has come to it."""

import asyncio
import logging

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from lostwax.contracts.metrics import DEAD_OPEN
from lostwax.contracts.topics import ALL, TELEMETRY, Topic
from lostwax.kit import dead, metrics

log = logging.getLogger(__name__)

EVERY_S = 15.0
_LIMIT_S = 10.0
_open = metrics.gauge(DEAD_OPEN)


async def run(bootstrap: str) -> None:
    """Count until cancelled; Kafka may come and go."""
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0, "reconnect.backoff.max.ms": 5_000})
    known: dict[Topic, int] = {}
    away = False
    while True:
        try:
            ends = await asyncio.to_thread(_ends, admin)
            grown = [topic for topic, end in ends.items() if known.get(topic) != end]
            if grown:
                for topic, letters in (await asyncio.to_thread(dead.read, bootstrap, grown)).items():
                    _open.set(len(letters.open), topic.name)
                known |= {topic: ends[topic] for topic in grown}
            away = False
        except (KafkaException, TimeoutError) as error:
            if not away:
                log.warning("dead letters not counted", extra={"error": repr(error)})
            away = True
        await asyncio.sleep(EVERY_S)


def _ends(admin: AdminClient) -> dict[Topic, int]:
    """Up to where each dead-letter topic that exists has grown, over its partitions. Blocks."""
    there = admin.list_topics(timeout=_LIMIT_S).topics
    places = {
        TopicPartition(topic.dead, number): topic
        for topic in (*ALL, *TELEMETRY)
        if topic.dead in there
        for number in there[topic.dead].partitions
    }
    if not places:
        return {}
    by_place = {(place.topic, place.partition): topic for place, topic in places.items()}
    ends = dict.fromkeys(by_place.values(), 0)
    for place, future in admin.list_offsets({place: OffsetSpec.latest() for place in places}).items():
        ends[by_place[(place.topic, place.partition)]] += future.result(timeout=_LIMIT_S).offset
    return ends
