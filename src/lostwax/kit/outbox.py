"""The outbox: a message joins the transaction of the change that it tells of, or neither happens."""

from collections.abc import Sequence
from uuid import UUID

import msgspec

from lostwax.contracts import catalogue
from lostwax.contracts.ids import bucket_of, bucket_of_digest, new_id, partition_of
from lostwax.contracts.topics import Topic
from lostwax.kit import tracing
from lostwax.kit.postgres import Connection


class Message(msgspec.Struct, frozen=True):
    """A row for the outbox, already encoded and proven to decode."""

    topic: str
    partition: int
    key: str
    type: str
    message_id: UUID
    traceparent: str | None
    payload: bytes


def message(
    topic: Topic,
    key: UUID | str,
    body: msgspec.Struct,
    *,
    placed_by: UUID | str | None = None,
    message_id: UUID | None = None,
    traceparent: str | None = None,
) -> Message:
    """Encode a message for `topic`. Its partition follows from the bucket of `placed_by` (default: of `key`), an id
    or a sha-256. Raises msgspec.ValidationError for a body that its readers could not decode."""
    place = key if placed_by is None else placed_by
    bucket = bucket_of(place) if isinstance(place, UUID) else bucket_of_digest(place)
    return Message(
        topic=topic.name,
        partition=partition_of(bucket) if topic.by_bucket else -1,
        key=str(key),
        type=catalogue.type_of(body).name,
        message_id=message_id or new_id(),
        traceparent=traceparent or tracing.of(catalogue.subject_of(body)),
        payload=catalogue.encode(body),
    )


async def add(connection: Connection, messages: Sequence[Message]) -> None:
    """Put messages into the outbox in the caller's transaction; never commits. Their order is kept for each key.

    Whoever publishes state of a row must hold that row's lock first, so that outbox ids follow the row's versions.
    """
    if not messages:
        return
    await connection.execute(
        """
        INSERT INTO outbox (topic, partition, key, type, message_id, traceparent, payload)
        SELECT * FROM unnest($1::text[], $2::int[], $3::text[], $4::text[], $5::uuid[], $6::text[], $7::bytea[])
        """,
        [m.topic for m in messages],
        [m.partition for m in messages],
        [m.key for m in messages],
        [m.type for m in messages],
        [m.message_id for m in messages],
        [m.traceparent for m in messages],
        [m.payload for m in messages],
    )
