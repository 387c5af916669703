"""The Kafka runner on the real broker: nothing is lost, nothing overtakes within a partition, poison goes aside with
its reason, and trouble on one partition does not stop another."""

import asyncio
import os
import signal
import sys
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition
from tests.builders import NOON, as_record, records_of, wait_for

from lostwax.contracts import catalogue
from lostwax.contracts.ids import new_id
from lostwax.contracts.orders import Outcome, Status
from lostwax.contracts.topics import Topic
from lostwax.kit.consumer import Runner
from lostwax.kit.kafka import Publisher, ensure_topics
from lostwax.kit.messages import Handler, Incoming, Later, Poison
from lostwax.local.places import PROJECT
from lostwax.local.stack import Stack

OUTCOME = "orders.outcome.v1"


def payload(number: int) -> bytes:
    return catalogue.encode(Outcome(new_id(), new_id(), True, number, Status.SUBMITTED, NOON))


class Line:
    """A topic with two partitions that only this test knows, and what its handler has seen of it."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        self.topic = Topic(f"test.line.{new_id()}", ("mes",), ("orders",), partitions=2)
        self.group = f"test-{new_id()}"
        self.seen: dict[int, list[int]] = defaultdict(list)
        self.publisher = Publisher(bootstrap, client_id="test-line", timeout_s=10)
        ensure_topics(bootstrap, [self.topic])

    async def send(self, partition: int, numbers: Sequence[int], type_name: str = OUTCOME) -> None:
        await self.publisher.publish(
            [as_record(self.topic.name, partition, type_name, payload(n), key=f"key-{n}") for n in numbers]
        )

    async def send_raw(self, partition: int, type_name: str, value: bytes) -> None:
        await self.publisher.publish([as_record(self.topic.name, partition, type_name, value, key="raw")])

    async def note(self, batch: Sequence[Incoming]) -> None:
        self.seen[batch[0].partition] += [i.body.version for i in batch]

    def saw(self, partition: int, numbers: Sequence[int]) -> Callable[[], bool]:
        return lambda: self.seen[partition] == list(numbers)

    def dead(self) -> list[dict[str, str]]:
        """What stands in the dead-letter topic: headers, with the record's key and value beside."""
        return [
            {
                **{name: value.decode() for name, value in record.headers() or []},  # type: ignore[union-attr]
                "key": (record.key() or b"").decode(),
                "value": (record.value() or b"").decode(errors="replace"),
            }
            for record in records_of(self.bootstrap, [self.topic.dead])
        ]

    async def committed(self, partition: int) -> int:
        """The offset from which the group would go on after a crash now."""

        def ask() -> int:
            consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": self.group, "log_level": 3})
            try:
                (place,) = consumer.committed([TopicPartition(self.topic.name, partition)], timeout=10)
                return max(0, int(place.offset))
            finally:
                consumer.close()

        return await asyncio.to_thread(ask)

    async def has_committed(self, partition: int, offset: int) -> None:
        async def so_far() -> bool:
            return await self.committed(partition) == offset

        await wait_for(so_far)

    @asynccontextmanager
    async def running(self, handler: Handler | None = None, **options: Any) -> AsyncIterator[Runner]:
        """A member of the group at work; stopped in order at the end."""
        runner = Runner(
            self.bootstrap,
            group=self.group,
            routes={self.topic: handler or self.note},
            publisher=self.publisher,
            **{"instance": "a", **options},
        )
        task = asyncio.create_task(runner.run())
        try:
            yield runner
            assert not task.done(), task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def line(stack: Stack) -> AsyncIterator[Line]:
    made = Line(stack.env("mes")["LOSTWAX_KAFKA_BOOTSTRAP"])
    yield made
    await asyncio.to_thread(made.publisher.close)


async def test_each_partition_is_handled_in_order_and_by_one_at_a_time(line: Line) -> None:
    at_work: Counter[int] = Counter()

    async def handle(batch: Sequence[Incoming]) -> None:
        (partition,) = {i.partition for i in batch}
        at_work[partition] += 1
        assert at_work[partition] == 1
        await asyncio.sleep(0.002)
        await line.note(batch)
        at_work[partition] -= 1

    async with line.running(handle, batch=7) as runner:
        for start in range(0, 300, 30):
            await line.send(0, range(start, start + 30))
            await line.send(1, range(start, start + 30))
        await wait_for(lambda: runner.handled == 600)
        assert runner.readiness is None
    assert line.seen == {0: list(range(300)), 1: list(range(300))}


async def test_stopping_in_order_leaves_nothing_to_repeat(line: Line) -> None:
    await line.send(0, range(100))
    async with line.running() as runner:
        await wait_for(lambda: runner.handled == 100)
    assert await line.committed(0) == 100
    await line.send(0, range(100, 110))
    async with line.running() as runner:
        await wait_for(lambda: runner.handled >= 10)
        await asyncio.sleep(0.2)
    assert line.seen[0] == list(range(110))


async def test_poison_goes_to_the_dead_letters_with_its_reason_and_the_rest_flows(line: Line) -> None:
    async def handle(batch: Sequence[Incoming]) -> None:
        for incoming in batch:
            if incoming.body.version in (3, 4):
                raise Poison(incoming, "not_staging", f"number {incoming.body.version} is no good")
        await line.note(batch)

    await line.send(1, range(3))
    await line.send_raw(1, OUTCOME, b'{"version": "not a number"}')
    await line.send_raw(1, OUTCOME, b"\xff not json")
    await line.send_raw(1, "", payload(99))
    await line.send(1, range(3, 10))
    async with line.running(handle) as runner:
        await wait_for(line.saw(1, [0, 1, 2, 5, 6, 7, 8, 9]))
        await line.has_committed(1, 13)
        assert (runner.handled, runner.dead, runner.skipped) == (8, 5, 0)
        assert runner.readiness is None
    dead = line.dead()
    assert [d["dead_reason"] for d in dead] == ["malformed", "malformed", "malformed", "not_staging", "not_staging"]
    assert [d["dead_source"] for d in dead] == [f"{line.topic.name}/1/{offset}" for offset in (3, 4, 5, 6, 7)]
    assert dead[3]["dead_detail"] == "number 3 is no good"
    assert "version" in dead[0]["dead_detail"]
    assert "ce_type" in dead[2]["dead_detail"]
    assert {d["dead_group"] for d in dead} == {line.group}
    assert all(d["dead_at"] and d["ce_id"] for d in dead)
    assert (dead[0]["key"], dead[0]["value"], dead[0]["ce_type"]) == ("raw", '{"version": "not a number"}', OUTCOME)
    assert catalogue.decode(OUTCOME, dead[4]["value"].encode()).version == 4


async def test_an_unknown_type_is_counted_and_skipped(line: Line) -> None:
    await line.send(0, [1])
    await line.send_raw(0, "orders.order_melted.v9", b'{"anything": true}')
    await line.send_raw(0, "orders.order_melted.v9", b"not even json")
    await line.send(0, [2])
    async with line.running() as runner:
        await wait_for(line.saw(0, [1, 2]))
        assert (runner.skipped, runner.dead) == (2, 0)
        await line.has_committed(0, 4)
    assert line.dead() == []


async def test_what_must_wait_delays_only_its_own_partition(line: Line) -> None:
    open_again = asyncio.Event()
    refused = 0

    async def handle(batch: Sequence[Incoming]) -> None:
        nonlocal refused
        if batch[0].partition == 0 and not open_again.is_set():
            refused += 1
            raise Later("shard away")
        await line.note(batch)

    await line.send(0, range(50))
    await line.send(1, range(50))
    async with line.running(handle) as runner:
        await wait_for(line.saw(1, range(50)))
        await line.send(1, range(50, 60))
        await wait_for(line.saw(1, range(60)))
        await wait_for(lambda: refused >= 3)
        assert line.seen[0] == []
        await line.has_committed(1, 60)
        assert await line.committed(0) == 0
        open_again.set()
        await wait_for(line.saw(0, range(50)))
        assert runner.dead == 0


async def test_waiting_is_without_limit_and_never_buries(line: Line) -> None:
    """More attempts than a fault of the handler's own would get."""
    attempts = 0

    async def handle(batch: Sequence[Incoming]) -> None:
        nonlocal attempts
        attempts += 1
        if attempts <= 6:
            raise Later("away") if attempts % 2 else ConnectionRefusedError("away")
        await line.note(batch)

    await line.send(0, range(3))
    async with line.running(handle, later=(OSError,)) as runner:
        await wait_for(line.saw(0, range(3)), 30)
        assert (attempts, runner.dead) == (7, 0)


async def test_a_message_that_the_handler_stumbles_over_is_found_and_buried(line: Line) -> None:
    calls: list[list[int]] = []

    async def handle(batch: Sequence[Incoming]) -> None:
        calls.append([i.body.version for i in batch])
        if 2 in calls[-1]:
            raise RuntimeError("a bug of ours")
        await line.note(batch)

    await line.send(0, range(5))
    async with line.running(handle) as runner:
        await wait_for(line.saw(0, [0, 1, 3, 4]), 30)
        assert runner.dead == 1
    assert calls.count([2]) > 1, "given up at the first stumble"
    (dead,) = line.dead()
    assert dead["dead_reason"] == "handler_failed"
    assert "a bug of ours" in dead["dead_detail"]


async def test_past_the_limit_of_dead_letters_a_partition_stops_instead_of_emptying_itself(line: Line) -> None:
    await line.publisher.publish([as_record(line.topic.name, 0, OUTCOME, b"{}", key=f"{n}") for n in range(130)])
    await line.send(1, range(10))
    async with line.running() as runner:
        await wait_for(lambda: runner.readiness)
        assert f"{line.topic.name}/0" in str(runner.readiness)
        await line.send(1, range(10, 20))
        await wait_for(line.saw(1, range(20)))
        assert runner.dead == 100
    assert await line.committed(0) == 100
    assert len(line.dead()) == 100
    async with line.running() as runner:
        await line.has_committed(0, 130)
        assert runner.readiness is None
    assert [int(d["key"]) for d in line.dead()] == list(range(130))


async def test_past_the_limit_of_poison_what_came_before_is_handled_still(line: Line) -> None:
    async def handle(batch: Sequence[Incoming]) -> None:
        for incoming in batch:
            if incoming.body.version % 2:
                raise Poison(incoming, "odd", "an odd number")
        await line.note(batch)

    await line.send(0, range(260))
    async with line.running(handle) as runner:
        await wait_for(lambda: runner.readiness)
        assert line.seen[0] == list(range(0, 201, 2))
        await line.has_committed(0, 201)
    async with line.running(handle):
        await line.has_committed(0, 260)
    assert line.seen[0] == list(range(0, 260, 2))
    assert len(line.dead()) == 130


async def test_a_handler_that_is_cancelled_stops_its_partition_and_loses_nothing(line: Line) -> None:
    """CancelledError is no Exception: unseen, the batch would be passed over and the next one's offset stored."""
    spoilt = True

    async def handle(batch: Sequence[Incoming]) -> None:
        if spoilt:
            raise asyncio.CancelledError
        await line.note(batch)

    await line.send(0, range(5))
    async with line.running(handle) as runner:
        await wait_for(lambda: runner.readiness)
        spoilt = False
        await line.send(0, range(5, 10))
        await line.send(1, range(3))
        await wait_for(line.saw(1, range(3)))
        assert line.seen[0] == []
    assert await line.committed(0) == 0
    async with line.running(handle) as runner:
        await wait_for(line.saw(0, range(10)))


KILLED = """
import asyncio, os, signal, sys
from lostwax.contracts.topics import Topic
from lostwax.kit.consumer import Runner
from lostwax.kit.kafka import Publisher

bootstrap, topic, group, out, most = sys.argv[1:]
done = 0

async def handle(batch):
    global done
    for incoming in batch:
        if done == int(most):
            await asyncio.sleep(60)  # the other partition, while this process is about to die
        with open(out, "a") as file:
            file.write(f"{incoming.partition} {incoming.body.version}\\n")
        done += 1
        if done == int(most):
            await asyncio.sleep(1.2)  # an offset that was stored too early would be committed by now
            os.kill(os.getpid(), signal.SIGKILL)
    await asyncio.sleep(0.1)

runner = Runner(bootstrap, group=group, routes={Topic(topic, (), ()): handle}, instance="a", batch=10,
                publisher=Publisher(bootstrap, client_id="killed"))
asyncio.run(runner.run())
"""


async def test_a_reader_killed_in_the_middle_of_a_batch_is_given_it_again(line: Line, tmp_path: Path) -> None:
    await line.send(0, range(60))
    await line.send(1, range(60))
    out = tmp_path / "handled"
    for most in (15, 33):
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            KILLED,
            line.bootstrap,
            line.topic.name,
            line.group,
            str(out),
            str(most),
            cwd=PROJECT,
            env={**os.environ, "PYTHONPATH": str(PROJECT / "src")},
        )
        try:
            assert await asyncio.wait_for(process.wait(), 30) == -signal.SIGKILL
        finally:
            if process.returncode is None:
                process.kill()
    before = [tuple(map(int, row.split())) for row in out.read_text().splitlines()]
    assert len(before) == 15 + 33
    async with line.running(batch=10):
        await wait_for(lambda: line.seen[0][-1:] == [59] and line.seen[1][-1:] == [59])
    for partition in (0, 1):
        numbers = [n for p, n in before if p == partition] + line.seen[partition]
        assert set(numbers) == set(range(60))
        furthest = -1
        for number in numbers:
            assert number <= furthest + 1, "a message was passed over"
            furthest = max(furthest, number)
        assert line.seen[partition] == list(range(line.seen[partition][0], 60))
    assert len(before) + sum(map(len, line.seen.values())) > 120, "nothing was repeated: the kill proved nothing"


async def test_a_long_backlog_is_paused_and_resumed_without_a_loss(line: Line) -> None:
    """More than the buffer takes, and a handler slower than the broker."""
    total, pauses = 9_000, 0

    async def handle(batch: Sequence[Incoming]) -> None:
        nonlocal pauses
        await asyncio.sleep(0.03)
        pauses += any(p.paused for p in runner._partitions.values())
        await line.note(batch)

    for start in range(0, total, 3000):
        await line.send(0, range(start, start + 3000))
    await line.send(1, range(10))
    async with line.running(handle) as runner:
        await wait_for(lambda: len(line.seen[0]) >= total, 60)
        await wait_for(line.saw(1, range(10)))
        await line.has_committed(0, total)
        assert not any(p.paused for p in runner._partitions.values())
    assert line.seen[0] == list(range(total))
    assert pauses > 0, "it was never paused: this proves nothing"


async def test_partitions_move_to_a_member_that_joins_and_back_without_a_loss(line: Line) -> None:
    by_member: dict[str, set[int]] = {"a": set(), "b": set()}

    def member(name: str) -> Handler:
        async def handle(batch: Sequence[Incoming]) -> None:
            by_member[name].add(batch[0].partition)
            await asyncio.sleep(0.005)
            await line.note(batch)

        return handle

    sent = 0

    async def send_some() -> None:
        nonlocal sent
        await line.send(0, range(sent, sent + 20))
        await line.send(1, range(sent, sent + 20))
        sent += 20

    async def both_work() -> bool:
        by_member["a"].clear()
        by_member["b"].clear()
        await send_some()
        await asyncio.sleep(0.1)
        return len(by_member["a"]) == len(by_member["b"]) == 1 and by_member["a"] != by_member["b"]

    def all_seen() -> bool:
        return all(set(line.seen[p]) == set(range(sent)) for p in (0, 1))

    async with line.running(member("a"), instance=""):
        await send_some()
        await wait_for(all_seen)
        async with line.running(member("b"), instance=""):
            await wait_for(both_work, 30)
        for _ in range(5):
            await send_some()
        await wait_for(all_seen, 30)
    for partition in (0, 1):
        assert list(dict.fromkeys(line.seen[partition])) == list(range(sent))


async def test_a_member_that_was_fenced_joins_anew_instead_of_going_deaf(line: Line) -> None:
    """A killed broker may forget whom it has named; the member is then fenced as if another had taken its place."""

    def take_its_place() -> None:
        usurper = Consumer(
            {
                "bootstrap.servers": line.bootstrap,
                "group.id": line.group,
                "group.instance.id": f"{line.group}-a",
                "partition.assignment.strategy": "cooperative-sticky",
                "enable.auto.commit": False,
                "log_level": 3,
            }
        )
        assigned: list[TopicPartition] = []
        usurper.subscribe([line.topic.name], on_assign=lambda _, places: assigned.extend(places))
        while not assigned:
            usurper.poll(0.1)
        usurper.close()

    async with line.running() as runner:
        await line.send(0, [1])
        await wait_for(line.saw(0, [1]))
        await line.has_committed(0, 1)
        async with asyncio.timeout(20):
            await asyncio.to_thread(take_its_place)
        await line.send(0, [2])
        await line.has_committed(0, 2)  # not by the fenced one: it may still handle the message, and can say so no more
        await line.send(1, [3])
        await wait_for(line.saw(1, [3]))
        assert runner.readiness is None
    assert line.seen[0] in ([1, 2], [1, 2, 2])
