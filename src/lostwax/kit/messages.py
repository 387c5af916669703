"""What handlers of Kafka messages get and give: a decoded message, and what they say when they cannot handle it."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec


class Incoming(msgspec.Struct, frozen=True):
    """A decoded message. `body` is the contract's struct; `source` and `message_id` are its CloudEvents
    source (the service that wrote it) and id; `replayed_from` is the place of the dead letter that it was. Another
    program's record has no type and no id, and as `body` whatever its topic's Decoder made of it."""

    topic: str
    partition: int
    offset: int
    key: str
    type: str
    source: str
    message_id: str
    traceparent: str | None
    body: Any
    replayed_from: str | None = None

    @property
    def place(self) -> str:
        """`topic/partition/offset`, as dead letters name where they came from."""
        return f"{self.topic}/{self.partition}/{self.offset}"


Decoder = Callable[[bytes], Any]
"""Reads the records of a topic whose records are no messages of the catalogue: another program's. Raises ValueError for
one that nobody can read."""

Handler = Callable[[Sequence[Incoming]], Awaitable[None]]
"""Handles messages of one partition, in order, all or nothing, and must be idempotent. Raises Poison for a message
that can never succeed, Later for one that must wait; anything else is retried."""


class Poison(Exception):
    """This one message can never succeed: dead-letter it with `code` and `detail`."""

    def __init__(self, incoming: Incoming, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.incoming, self.code, self.detail = incoming, code, detail


class Later(Exception):
    """Something that the work needs is away; the messages are fine. Retried with backoff without limit."""


class Burial(msgspec.Struct, frozen=True):
    """A message that is about to be dead-lettered. `place` is where it stands, `replayed_from` where it stood when it
    was dead before; `source` is the service that wrote it, as it says; `body` is None when it cannot be decoded."""

    place: str
    partition: int
    offset: int
    key: str
    replayed_from: str | None
    body: Any
    source: str = ""


class Discarded(msgspec.Struct, frozen=True):
    """Notice that the dead letter that stood at `place` will not come again."""

    place: str
    partition: int


class DeadWatch(msgspec.Struct, frozen=True):
    """What a service has to do about dead letters of a topic. `before_burial` is done before a message is
    dead-lettered, `after_discard` when the person on call has discarded one. Both are repeated until they succeed and
    must be idempotent; a message may be buried twice."""

    before_burial: Callable[[Burial], Awaitable[None]]
    after_discard: Callable[[Discarded], Awaitable[None]]
