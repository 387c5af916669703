"""How far Kafka's readers are behind, measured from outside."""

from collections import defaultdict
from collections.abc import Iterable

from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

_LIMIT_S = 10


def lags(admin: AdminClient, groups: Iterable[str]) -> dict[tuple[str, str], int]:
    """By group and topic: messages that are in Kafka and not committed as handled. Blocks; raises KafkaException."""
    asked = {g: admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(g)])[g] for g in groups}
    committed: dict[tuple[str, str, int], int] = {}
    for group, future in asked.items():
        for place in future.result(timeout=_LIMIT_S).topic_partitions:
            committed[(group, place.topic, place.partition)] = place.offset
    places = sorted({(topic, number) for _, topic, number in committed})
    ends = admin.list_offsets({TopicPartition(t, n): OffsetSpec.latest() for t, n in places}) if places else {}
    high = {(p.topic, p.partition): f.result(timeout=_LIMIT_S).offset for p, f in ends.items()}
    behind: dict[tuple[str, str], int] = defaultdict(int)
    for (group, topic, number), offset in committed.items():
        behind[(group, topic)] += max(0, high[(topic, number)] - max(0, offset))
    return behind
