"""Dead letters: what a reader gave up on, kept in `<topic>.dead` for the person on call to replay or discard.

What has been settled is remembered in the dead-letter topic itself, by a record behind the letters that it settles: the
topic is kept without limit, and one pass over it tells what is still open. Settling is at least once: the message goes
back first, then it counts as settled; a crash in between leaves it open, and a second replay harms nobody, for every
handler is idempotent. See docs/decisions/0008-dead-letters.md.

Functions that take a bootstrap address block, and raise KafkaException when the broker does not answer.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec
from confluent_kafka import Message as KafkaMessage

from lostwax.contracts.catalogue import cloud_headers
from lostwax.contracts.ids import new_id
from lostwax.contracts.topics import Topic
from lostwax.kit.kafka import OutgoingRecord, Publisher
from lostwax.kit.kafka_reading import read_to_end

SETTLED = "dead.settled.v1"
"""Type of a record in a dead-letter topic that settles the letter named in its header `settles`."""

DISCARDED = "dead.discarded.v1"
"""Type of a record in a source topic: the message that stood at the place in its header `discarded` will not come
again. Only for topics whose reader asks to be told; others skip it as a type that they do not know."""

REPLAYED_FROM = "replayed_from"
"""Header of a message that was sent again: the place, `topic/partition/offset`, at which it was given up."""

_PREFIX = "dead_"
_COPY = "#replayed"


class NoSuchLetter(Exception):
    """There is no dead letter at this offset, or it does not tell where it came from."""


class AlreadySettled(Exception):
    """The letter was replayed or discarded before; the text says by whom and when."""


class Letter(msgspec.Struct, frozen=True):
    """A dead letter as it lies: `topic` is the dead-letter topic, `headers` are all of them."""

    topic: str
    offset: int
    key: str | None
    headers: dict[str, bytes]
    value: bytes | None

    def text(self, header: str) -> str:
        """A header as text; "" when it is not there."""
        return self.headers.get(header, b"").decode(errors="replace")

    @property
    def reason(self) -> str:
        return self.text("dead_reason")

    @property
    def detail(self) -> str:
        return self.text("dead_detail")

    @property
    def source(self) -> str:
        """Where it stood when it was given up: `topic/partition/offset`."""
        return self.text("dead_source")

    @property
    def subject(self) -> str:
        """Its key as it was at first, before any replay."""
        return (self.key or "").removesuffix(_COPY)


class Settlement(msgspec.Struct, frozen=True):
    """How a letter was settled: "replayed" or "discarded", by whom, when, and why."""

    offset: int
    how: str
    by: str
    at: str
    why: str

    def __str__(self) -> str:
        return f"{self.how} by {self.by} at {self.at[:19]} UTC" + (f": {self.why}" if self.why else "")


class Letters(msgspec.Struct, frozen=True):
    """What one dead-letter topic holds: open letters by offset, and how the others were settled. A letter that was
    buried twice, because its reader was killed between burying and remembering, counts once."""

    open: dict[int, Letter]
    settled: dict[int, Settlement]

    def at(self, topic: Topic, offset: int) -> Letter:
        """The open letter at an offset. Raises NoSuchLetter, AlreadySettled."""
        if (settlement := self.settled.get(offset)) is not None:
            raise AlreadySettled(f"{topic.dead} {offset} was {settlement}")
        if offset not in self.open:
            there = ", ".join(map(str, list(self.open)[:20])) or "none"
            raise NoSuchLetter(f"{topic.dead} has no dead letter at {offset}; open: {there}")
        return self.open[offset]


def read(bootstrap: str, topics: Sequence[Topic]) -> dict[Topic, Letters]:
    """All letters of each topic's dead-letter topic. One that does not exist has none."""
    by_name = {topic.dead: topic for topic in topics}
    records: dict[str, list[KafkaMessage]] = {}
    for record in read_to_end(bootstrap, dict.fromkeys(by_name)):
        records.setdefault(str(record.topic()), []).append(record)
    return {topic: _sorted_out(records.get(name, ())) for name, topic in by_name.items()}


def _sorted_out(records: Sequence[KafkaMessage]) -> Letters:
    letters = Letters({}, {})
    first_at: dict[tuple[str, str], int] = {}
    copies: dict[int, list[int]] = {}
    for record in records:
        offset = int(record.offset() or 0)
        headers = {k: v for k, v in record.headers() or [] if isinstance(v, bytes)}
        key = record.key()
        letter = Letter(
            str(record.topic()), offset, None if key is None else key.decode(errors="replace"), headers, record.value()
        )
        if letter.text("ce_type") == SETTLED:
            settlement = Settlement(
                int(letter.text("settles")),
                letter.text("how"),
                letter.text("by"),
                letter.text("at"),
                letter.text("why"),
            )
            for settled in (settlement.offset, *copies.get(settlement.offset, ())):
                letters.settled.setdefault(settled, settlement)
            letters.open.pop(settlement.offset, None)
            continue
        first = first_at.setdefault((letter.source, letter.text("dead_group")), offset) if letter.source else offset
        if first == offset:
            letters.open[offset] = letter
            continue
        copies.setdefault(first, []).append(offset)
        if first in letters.settled:
            letters.settled[offset] = letters.settled[first]
    return letters


def reasons(code: str, detail: str, *, group: str, place: str, at: datetime) -> dict[str, str]:
    """The headers that make a message a dead letter: why, who gave it up, and where it stood."""
    return {
        "dead_reason": code,
        "dead_detail": detail[:2000],
        "dead_group": group,
        "dead_source": place,
        "dead_at": at.isoformat(),
    }


async def replay(publisher: Publisher, topic: Topic, letters: Sequence[Letter], *, by: str, at: datetime) -> None:
    """Send letters back to the partitions of `topic` that they came from, in this order, as they were and with
    `replayed_from`; then settle them. Raises NoSuchLetter before anything is sent, NotPublished."""
    await publisher.publish([_again(topic, letter) for letter in letters])
    await publisher.publish([_settlement(letter, "replayed", "", by, at) for letter in letters])


async def discard(
    publisher: Publisher, topic: Topic, letters: Sequence[Letter], why: str, *, tell: bool, by: str, at: datetime
) -> None:
    """Settle letters that shall not be handled; with `tell`, let the reader of `topic` know in their partitions.
    Raises NoSuchLetter before anything is sent, NotPublished."""
    if tell:
        await publisher.publish([_notice(topic, letter, why, by, at) for letter in letters])
    await publisher.publish([_settlement(letter, "discarded", why, by, at) for letter in letters])


def _partition(topic: Topic, letter: Letter) -> int:
    name, _, place = letter.source.partition("/")
    number = place.partition("/")[0]
    if name != topic.name or not number.isdecimal():
        raise NoSuchLetter(f"{letter.topic} {letter.offset} does not tell from where in {topic.name} it came")
    return int(number)


def _again(topic: Topic, letter: Letter) -> OutgoingRecord:
    headers: dict[str, str | bytes] = {k: v for k, v in letter.headers.items() if not k.startswith(_PREFIX)}
    headers[REPLAYED_FROM] = letter.source
    key = letter.key
    if topic.compacted and key is not None:
        # Under its own key it would be the last one of that key, and compaction would drop the newer versions for it.
        key = letter.subject + _COPY
    return OutgoingRecord(topic.name, key, letter.value, headers, _partition(topic, letter))


def _notice(topic: Topic, letter: Letter, why: str, by: str, at: datetime) -> OutgoingRecord:
    headers: Mapping[str, str | bytes] = {
        **cloud_headers(str(new_id()), DISCARDED, "console", at, None),
        "discarded": letter.source,
        "why": why,
        "by": by,
    }
    return OutgoingRecord(topic.name, letter.key, b"", headers, _partition(topic, letter))


def _settlement(letter: Letter, how: str, why: str, by: str, at: datetime) -> OutgoingRecord:
    headers: Mapping[str, str | bytes] = {
        **cloud_headers(str(new_id()), SETTLED, "console", at, None),
        "settles": str(letter.offset),
        "how": how,
        "why": why,
        "by": by,
        "at": at.isoformat(),
    }
    return OutgoingRecord(letter.topic, letter.key, b"", headers, 0)
