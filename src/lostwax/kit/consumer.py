"""The one Kafka runner: batches for each partition, offsets stored only after the work is committed, trouble retried
with backoff on its own partition while the others go on, poison dead-lettered with its reason.

One thread polls the client and is the only one to touch it: the client serialises its calls, so another thread would
wait for a poll to end. The work runs on the event loop. Each partition has a buffer and at most one task, so its
messages are handled in order. A full buffer pauses its partition at the broker.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka import Message as KafkaMessage

from lostwax.contracts import catalogue
from lostwax.contracts import metrics as measured
from lostwax.contracts.topics import Topic
from lostwax.kit import dead, metrics, tracing
from lostwax.kit.clock import utc_now
from lostwax.kit.kafka import ClientErrors, NotPublished, OutgoingRecord, Publisher
from lostwax.kit.kafka_reading import headers_of
from lostwax.kit.messages import Burial, DeadWatch, Decoder, Discarded, Handler, Incoming, Later, Poison

log = logging.getLogger(__name__)

_POLL_S = 0.25
_HIGH_WATER, _HIGH_WATER_BYTES = 2000, 8_000_000
_LOW_WATER, _LOW_WATER_BYTES = 500, 2_000_000
_LONE_ATTEMPTS = 6
_DEAD_PER_MINUTE = 100
_REJOIN_S = 1.0
_UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError)
# Beyond the ValueError that a decoder promises: what another program wrote must not stop all that stands behind it.

_handled = metrics.counter(measured.MESSAGES_HANDLED)
_failed = metrics.counter(measured.MESSAGES_FAILED)
_dead = metrics.counter(measured.MESSAGES_DEAD)
_handling = metrics.histogram(measured.HANDLING)
_age = metrics.histogram(measured.MESSAGE_AGE)


class _LetGo(Exception):
    """The partition was taken away while something had to be repeated: its next owner does it."""


class _Fenced(Exception):
    """The client has had a fatal error: it will hear nothing more, and its group has given its place away."""


class TooManyDead(Exception):
    """More messages than the limit were dead-lettered in a minute: the fault is not in them. The partition stops."""


class _Partition:
    """Buffer and state of one partition assigned to `client`; touched only on the event loop."""

    def __init__(self, topic: str, number: int, client: Consumer) -> None:
        self.topic, self.number, self.client = topic, number, client
        self.buffer: deque[KafkaMessage] = deque()
        self.size = 0
        self.task: asyncio.Task[None] | None = None
        self.paused = False
        self.revoked = False
        self.stopped_by: str | None = None
        self.in_hand: KafkaMessage | None = None


class Runner:
    """Consumer group member for a set of topics. `run()` until cancelled; `readiness` says why it is not well.

    `instance` names this member within the group, so that it is known again when it comes back. A handler gets up to
    `batch` messages of about `batch_bytes` together. `decoders` are for
    topics of other programs' records: those are not traced, for nobody's order is in them, and a record without a value
    is passed over.
    """

    def __init__(
        self,
        bootstrap: str,
        *,
        group: str,
        routes: Mapping[Topic, Handler],
        publisher: Publisher,
        instance: str = "",
        batch: int = 500,
        batch_bytes: int = 4_000_000,
        later: tuple[type[BaseException], ...] = (),
        dead_watches: Mapping[Topic, DeadWatch] | None = None,
        decoders: Mapping[Topic, Decoder] | None = None,
        from_beginning: bool = True,
        max_poll_interval_ms: int = 300_000,
    ) -> None:
        self._group = group
        self._routes = {topic.name: (topic, handler) for topic, handler in routes.items()}
        self._dead_watches = {topic.name: watch for topic, watch in (dead_watches or {}).items()}
        self._decoders = {topic.name: decoder for topic, decoder in (decoders or {}).items()}
        self._publisher = publisher
        self._batch, self._batch_bytes = batch, batch_bytes
        self._later: tuple[type[BaseException], ...] = (Later, NotPublished, *later)
        self._partitions: dict[tuple[str, int], _Partition] = {}
        self._dead_at: deque[float] = deque()
        self._stopping = threading.Event()
        self._for_client: deque[tuple[Consumer, Callable[[], object]]] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._failure: str | None = None
        self.handled = 0
        self.skipped = 0
        self.dead = 0
        self._complain = ClientErrors(group=group)
        self._settings: dict[str, Any] = {
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "client.id": group,
            "enable.auto.commit": True,
            "enable.auto.offset.store": False,
            "auto.commit.interval.ms": 500,
            "auto.offset.reset": "earliest" if from_beginning else "latest",
            "partition.assignment.strategy": "cooperative-sticky",
            "session.timeout.ms": 10_000,
            "heartbeat.interval.ms": 2_000,
            "max.poll.interval.ms": max_poll_interval_ms,
            "fetch.queue.backoff.ms": 10,
            "fetch.wait.max.ms": 500,
            "queued.max.messages.kbytes": 32_768,
            "topic.metadata.refresh.interval.ms": 60_000,
            "reconnect.backoff.max.ms": 1_000,
            # A named member that comes back after a kill gets its partitions at once; an unnamed one waits for the
            # session of its former self to run out.
            **({"group.instance.id": f"{group}-{instance}"} if instance else {}),
            "log_level": 3,
            "error_cb": self._complain,
        }
        self._consumer = Consumer(self._settings)

    @property
    def readiness(self) -> str | None:
        """None when well, else what is wrong."""
        stopped = [f"{p.topic}/{p.number}: {p.stopped_by}" for p in self._partitions.values() if p.stopped_by]
        return self._failure or ("; ".join(stopped) or None)

    def delay_s(self, topic: Topic) -> float:
        """Age in seconds of the oldest message of a topic that has come here and is not done; 0 when all is done."""
        oldest = [
            message.timestamp()[1]
            for p in self._partitions.values()
            if p.topic == topic.name and (message := p.in_hand or (p.buffer[0] if p.buffer else None)) is not None
        ]
        return max(0.0, time.time() - min(oldest) / 1000) if oldest else 0.0

    async def run(self) -> None:
        """Consume until cancelled, then finish the work in hand, commit its offsets and leave the group."""
        self._loop = asyncio.get_running_loop()
        thread = threading.Thread(target=self._poll, name=f"kafka {self._group}", daemon=True)
        thread.start()
        try:
            while thread.is_alive():  # noqa: ASYNC110 - a thread has no event to wait on
                await asyncio.sleep(5)
            self._failure = self._failure or "the polling thread ended"
            raise RuntimeError(self._failure)
        finally:
            self._stopping.set()
            await asyncio.to_thread(thread.join, 25)

    # -- the polling thread ---------------------------------------------------------------------------------------

    def _poll(self) -> None:
        try:
            while not self._stopping.is_set():
                try:
                    self._poll_until_stopped(self._consumer)
                except _Fenced as fenced:
                    # The coordinator may lose the answer in which it named this member anew, as when it is killed: the
                    # member then goes by a name that is fenced. The offsets of work in hand can no longer be stored, so
                    # it comes again, to whoever has the partitions then.
                    log.error("fenced, joining the group anew", extra={"group": self._group, "error": str(fenced)})
                    self._call(self._let_go, None, True)
                    self._consumer.close()
                    self._consumer = Consumer(self._settings)
                    self._stopping.wait(_REJOIN_S)
            self._consumer.close()
        except KafkaException as error:
            self._failure = f"kafka: {error}"
            log.exception("kafka consumer failed", extra={"group": self._group})

    def _poll_until_stopped(self, consumer: Consumer) -> None:
        assert self._loop is not None
        consumer.subscribe(list(self._routes), on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost)
        while not self._stopping.is_set():
            self._serve_client()
            first = consumer.poll(_POLL_S)
            if first is None:
                continue
            # poll() returns as soon as one is there; what else has arrived comes along without waiting.
            batch = [first, *consumer.consume(self._batch - 1, 0)]
            self._loop.call_soon_threadsafe(self._receive, batch)
            for message in batch:
                error = message.error()
                if error is not None and (error.fatal() or error.code() == KafkaError._FATAL):
                    raise _Fenced(str(error))
        self._call(self._let_go, None, True)
        self._serve_client()

    def _assigned(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        log.info(
            "partitions assigned",
            extra={"group": self._group, "partitions": [f"{p.topic}/{p.partition}" for p in partitions]},
        )

    def _revoked(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        # Called in the polling thread: the next owner must not start before our work in hand is committed.
        self._call(self._let_go, {(p.topic, p.partition) for p in partitions}, True)
        self._serve_client()

    def _lost(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._call(self._let_go, {(p.topic, p.partition) for p in partitions}, False)

    def _serve_client(self) -> None:
        """Do what the event loop wants done with the client: store offsets, pause, resume."""
        while self._for_client:
            client, what = self._for_client.popleft()
            if client is not self._consumer:
                continue  # for one that was fenced: it is closed, and its partitions are somebody's anew
            try:
                what()
            except KafkaException as error:
                # The partition was taken away meanwhile; its next owner starts from what was stored before.
                if error.args[0].code() not in (KafkaError._STATE, KafkaError._UNKNOWN_PARTITION):
                    raise

    def _call(self, what: Callable[..., Awaitable[None]], *args: Any) -> None:
        assert self._loop is not None
        future = asyncio.run_coroutine_threadsafe(_as_coroutine(what(*args)), self._loop)
        try:
            future.result(timeout=20)
        except TimeoutError:
            log.warning("work in hand did not end in time", extra={"group": self._group})

    # -- the event loop -------------------------------------------------------------------------------------------

    def _receive(self, messages: Sequence[KafkaMessage]) -> None:
        for message in messages:
            if (error := message.error()) is not None:
                if error.code() not in (KafkaError._PARTITION_EOF,):
                    self._complain(error)
                continue
            key = (message.topic(), message.partition())
            partition = self._partitions.get(key)
            if partition is None or partition.revoked:
                partition = self._partitions[key] = _Partition(*key, self._consumer)
            partition.buffer.append(message)
            partition.size += len(message)
            if partition.task is None and partition.stopped_by is None:
                partition.task = asyncio.create_task(self._work(partition))
            full = len(partition.buffer) > _HIGH_WATER or partition.size > _HIGH_WATER_BYTES
            if full and not partition.paused:
                self._pause(partition)

    def _pause(self, partition: _Partition) -> None:
        # pause() drops what the client has prefetched; it is fetched again after resume(), from the position that the
        # application has reached, so nothing is skipped.
        place = TopicPartition(partition.topic, partition.number)
        self._for_client.append((partition.client, partial(partition.client.pause, [place])))
        partition.paused = True

    def _resume(self, partition: _Partition) -> None:
        place = TopicPartition(partition.topic, partition.number)
        self._for_client.append((partition.client, partial(partition.client.resume, [place])))
        partition.paused = False

    async def _let_go(self, keys: "set[tuple[str, int]] | None", finish: bool) -> None:
        """Stop work on partitions (None: on all), after the batch in hand when `finish`."""
        gone = [p for k, p in self._partitions.items() if keys is None or k in keys]
        for partition in gone:
            partition.revoked = True
            partition.buffer.clear()
            partition.size = 0
        tasks = [p.task for p in gone if p.task is not None]
        if tasks and finish:
            await asyncio.wait(tasks, timeout=15)
        for partition in gone:
            self._partitions.pop((partition.topic, partition.number), None)

    async def _work(self, partition: _Partition) -> None:
        try:
            while partition.buffer and not partition.revoked:
                taken = self._take(partition)
                partition.in_hand = taken[0]
                await self._handle_for_certain(partition, taken)
                partition.in_hand = None
                low = len(partition.buffer) < _LOW_WATER and partition.size < _LOW_WATER_BYTES
                if partition.paused and not partition.revoked and low:
                    self._resume(partition)
        except _LetGo:
            pass
        except TooManyDead as error:
            partition.stopped_by = str(error)
            log.error(
                "partition stopped",
                extra={"topic": partition.topic, "partition": partition.number, "why": str(error)},
            )
        except BaseException as error:
            # A cancelled handler, or a fault in here: to go on would pass over the batch in hand.
            partition.stopped_by = repr(error)
            log.exception("partition stopped", extra={"topic": partition.topic, "partition": partition.number})
            raise
        finally:
            partition.task = None

    def _take(self, partition: _Partition) -> list[KafkaMessage]:
        """The next batch. A notice of a discarded dead letter begins one: a reader that comes from behind meets both
        the message that it buries and the notice, and must do all that stands before the notice first."""
        watched = partition.topic in self._dead_watches
        taken = [partition.buffer.popleft()]
        size = len(taken[0])
        while partition.buffer and len(taken) < self._batch and size < self._batch_bytes:
            if watched and _is_notice(partition.buffer[0]):
                break
            taken.append(partition.buffer.popleft())
            size += len(taken[-1])
        partition.size -= size
        return taken

    async def _handle_for_certain(self, partition: _Partition, taken: Sequence[KafkaMessage]) -> None:
        """Handle the batch, by whatever it takes: together, then one by one, waiting, dead-lettering.

        Raises TooManyDead, having settled all that came before the message that was too many: a new start goes on
        there, instead of burying the same messages again."""
        incoming: list[Incoming] = []
        end = taken[-1].offset() + 1
        stop: TooManyDead | None = None
        for message in taken:
            try:
                decoded = await self._decode(partition, message)
            except TooManyDead as error:
                stop, end = error, message.offset()
                break
            if decoded is not None:
                incoming.append(decoded)
        by_offset = {m.offset(): m for m in taken}
        handler = self._routes[partition.topic][1]
        pending: list[list[Incoming]] = [incoming] if incoming else []
        pause, attempts = 0.1, 0
        while pending:
            if partition.revoked:
                return
            group = pending[0]
            ours = partition.topic not in self._decoders
            traces = tracing.Batch([(catalogue.subject_of(i.body), i.traceparent) for i in group] if ours else [])
            traces.enter()
            began = time.monotonic()
            try:
                await handler(group)
                pending.pop(0)
                self.handled += len(group)
                pause, attempts = 0.1, 0
                _handled.add(len(group), partition.topic)
                _handling.record(time.monotonic() - began, partition.topic)
                _age.record(time.time() - by_offset[group[0].offset].timestamp()[1] / 1000, partition.topic)
                traces.finish(f"handle {partition.topic}", messages=len(group))
                continue
            except Poison as poison:
                try:
                    await self._bury_for_certain(
                        partition, by_offset[poison.incoming.offset], poison.code, poison.detail, poison.incoming.body
                    )
                    rest = [i for i in group if i is not poison.incoming]
                    pending[0:1] = [rest] if rest else []
                except TooManyDead as error:
                    stop, end = error, poison.incoming.offset
                    before = [i for i in group if i.offset < end]
                    pending = [before] if before else []
                continue
            except self._later as error:
                _failed.add(1, partition.topic)
                traces.finish(f"handle {partition.topic}", error, messages=len(group))
                log.warning(
                    "waiting",
                    extra={
                        "topic": partition.topic,
                        "partition": partition.number,
                        "error": repr(error),
                        "pause_s": pause,
                    },
                )
            except Exception as error:
                # Not of the kinds that waiting cures: find the message that it is about, and bury it in the end.
                _failed.add(1, partition.topic)
                traces.finish(f"handle {partition.topic}", error, messages=len(group))
                log.exception("handler failed", extra={"topic": partition.topic, "messages": len(group)})
                if len(group) > 1:
                    pending[0:1] = [[i] for i in group]
                    continue
                attempts += 1
                if attempts >= _LONE_ATTEMPTS:
                    try:
                        await self._bury_for_certain(
                            partition, by_offset[group[0].offset], "handler_failed", repr(error), group[0].body
                        )
                        pending.pop(0)
                    except TooManyDead as too_many:
                        stop, end = too_many, group[0].offset
                        pending = []
                    pause, attempts = 0.1, 0
                    continue
            await asyncio.sleep(pause)
            pause = min(pause * 2, 10.0)
        self._store(partition, end)
        if stop is not None:
            raise stop

    def _store(self, partition: _Partition, offset: int) -> None:
        place = TopicPartition(partition.topic, partition.number, offset)
        self._for_client.append((partition.client, partial(partition.client.store_offsets, offsets=[place])))

    async def _decode(self, partition: _Partition, message: KafkaMessage) -> Incoming | None:
        headers = headers_of(message)
        if (decoder := self._decoders.get(partition.topic)) is not None:
            return await self._decode_foreign(partition, message, decoder, headers.get(dead.REPLAYED_FROM))
        type_name = headers.get("ce_type", "")
        watch = self._dead_watches.get(partition.topic)
        if type_name == dead.DISCARDED and watch is not None:
            notice = Discarded(headers.get("discarded", ""), partition.number)
            await self._until_done(partition, lambda: watch.after_discard(notice))
            return None
        if message.value() is None or (type_name and not catalogue.knows(type_name)):
            self.skipped += 1
            log.info("unknown type skipped", extra={"topic": message.topic(), "type": type_name})
            return None
        try:
            if not type_name:
                raise msgspec.ValidationError("no ce_type header")
            body = catalogue.decode(type_name, message.value())
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            await self._bury_for_certain(partition, message, "malformed", str(error), None)
            return None
        return Incoming(
            topic=message.topic(),
            partition=message.partition(),
            offset=message.offset(),
            key=(message.key() or b"").decode(errors="replace"),
            type=type_name,
            source=headers.get("ce_source", ""),
            message_id=headers.get("ce_id", ""),
            traceparent=headers.get("traceparent"),
            body=body,
            replayed_from=headers.get(dead.REPLAYED_FROM),
        )

    async def _decode_foreign(
        self, partition: _Partition, message: KafkaMessage, decoder: Decoder, replayed_from: str | None
    ) -> Incoming | None:
        if message.value() is None:
            return None
        try:
            body = decoder(message.value())
        except _UNREADABLE as error:
            detail = str(error) if isinstance(error, ValueError) else repr(error)
            await self._bury_for_certain(partition, message, "malformed", detail, None)
            return None
        return Incoming(
            topic=message.topic(),
            partition=message.partition(),
            offset=message.offset(),
            key=(message.key() or b"").decode(errors="replace"),
            type="",
            source="",
            message_id="",
            traceparent=None,
            body=body,
            replayed_from=replayed_from,
        )

    async def _bury_for_certain(
        self, partition: _Partition, message: KafkaMessage, code: str, detail: str, body: Any
    ) -> None:
        """Put the message into its topic's dead-letter topic, as it was, with the reason in headers.

        Raises TooManyDead past the limit: then the fault is most likely ours, and the topic must not be emptied."""
        now = time.monotonic()
        while self._dead_at and self._dead_at[0] < now - 60:
            self._dead_at.popleft()
        if len(self._dead_at) >= _DEAD_PER_MINUTE:
            raise TooManyDead(f"{_DEAD_PER_MINUTE} messages a minute could not be handled, the last: {code}: {detail}")
        self._dead_at.append(now)
        topic = self._routes[message.topic()][0]
        place = f"{message.topic()}/{message.partition()}/{message.offset()}"
        headers: dict[str, str | bytes] = {k: v for k, v in message.headers() or [] if v is not None}
        headers |= dead.reasons(code, detail, group=self._group, place=place, at=utc_now())
        key = message.key().decode(errors="replace") if message.key() is not None else None
        if (watch := self._dead_watches.get(partition.topic)) is not None:
            said = headers_of(message)
            replayed_from, source = said.get(dead.REPLAYED_FROM), said.get("ce_source", "")
            burial = Burial(place, partition.number, message.offset(), key or "", replayed_from, body, source)
            await self._until_done(partition, lambda: watch.before_burial(burial))
        record = OutgoingRecord(topic.dead, key, message.value(), headers)
        await self._until_done(partition, lambda: self._publisher.publish([record]))
        self.dead += 1
        _dead.add(1, topic.name, code)
        log.error("dead-lettered", extra={"source": place, "code": code, "detail": detail[:500]})

    async def _until_done(self, partition: _Partition, work: Callable[[], Awaitable[None]]) -> None:
        """Do what a dead letter needs, again and again. Raises _LetGo once the partition is another member's."""
        pause = 0.1
        while True:
            try:
                return await work()
            except self._later as error:
                log.warning("waiting with a dead letter", extra={"topic": partition.topic, "error": repr(error)})
            except Exception:
                log.exception("cannot settle a dead letter", extra={"topic": partition.topic})
            if partition.revoked:
                raise _LetGo
            await asyncio.sleep(pause)
            pause = min(pause * 2, 10.0)


def _is_notice(message: KafkaMessage) -> bool:
    return any(name == "ce_type" and value == dead.DISCARDED.encode() for name, value in message.headers() or [])


async def _as_coroutine(awaitable: Awaitable[None]) -> None:
    await awaitable
