"""Kafka -> documents -> OpenSearch. Offsets are stored after OpenSearch has the documents; what it can never take is
dead-lettered, once it is known that the rest of its record is stored."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial

from lostwax.contracts import topics
from lostwax.contracts.metrics import TELEMETRY_STORED
from lostwax.contracts.topics import Topic
from lostwax.kit import metrics
from lostwax.kit.messages import Decoder, Handler, Incoming, Poison
from lostwax.telemetry import documents, indices
from lostwax.telemetry.clients import OpenSearch
from lostwax.telemetry.documents import Document
from lostwax.telemetry.indices import Stream

BATCH, BATCH_BYTES = 100, 500_000
"""Records at once, and the size past which no more are taken together: each holds up to some hundred documents, which
are several times as large in memory."""

_stored = metrics.counter(TELEMETRY_STORED)

_READ: Mapping[Topic, tuple[Stream, Callable[[bytes, datetime], Iterable[Document]]]] = {
    topics.TELEMETRY_LOGS: (indices.LOGS, documents.log_documents),
    topics.TELEMETRY_TRACES: (indices.TRACES, documents.span_documents),
    topics.TELEMETRY_METRICS: (indices.METRICS, documents.metric_documents),
}


def decoders(now: Callable[[], datetime]) -> Mapping[Topic, Decoder]:
    """How the records of each topic are read."""

    def decoder(read: Callable[[bytes, datetime], Iterable[Document]]) -> Decoder:
        return lambda value: list(read(value, now()))

    return {topic: decoder(read) for topic, (_, read) in _READ.items()}


def routes(search: OpenSearch) -> Mapping[Topic, Handler]:
    """What is done with the documents of each topic."""
    return {topic: partial(_store, search, stream) for topic, (stream, _) in _READ.items()}


async def _store(search: OpenSearch, stream: Stream, batch: Sequence[Incoming]) -> None:
    """Raises Poison for the first record with a document that OpenSearch can never take, having stored all others."""
    together = [document for incoming in batch for document in incoming.body]
    refused = await search.add(stream, together)
    _stored.add(len(together) - len(refused), stream.signal)
    if not refused:
        return
    number = refused[0].number
    for incoming in batch:
        if number < len(incoming.body):
            raise Poison(incoming, "refused", refused[0].reason)
        number -= len(incoming.body)
