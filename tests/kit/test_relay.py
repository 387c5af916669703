"""Outbox and relay on the real servers: a row goes when, and only when, the broker has it; order is kept for each key;
whoever is killed meanwhile."""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
import pytest
from tests.builders import NOON, records_of, wait_for
from tests.conftest import NewDatabase

from lostwax.contracts import catalogue
from lostwax.contracts.ids import bucket_of, new_id, partition_of
from lostwax.contracts.orders import Outcome, Status
from lostwax.contracts.topics import Topic
from lostwax.kit import outbox, tracing
from lostwax.kit.kafka import Publisher, ensure_topics
from lostwax.kit.postgres import open_pool
from lostwax.kit.publishing import Publishing, PublishingLimits, set_limit
from lostwax.kit.relay import Relay
from lostwax.local.stack import Stack


class Post:
    """A database with an outbox, and topics that only this test knows."""

    def __init__(self, bootstrap: str, dsn: str, pool: Any, topics: Sequence[Topic]) -> None:
        self.bootstrap, self.dsn, self.pool, self.topics = bootstrap, dsn, pool, tuple(topics)
        self.written: list[tuple[str, str, int]] = []

    async def write(self, topic: Topic, key: UUID, numbers: Sequence[int]) -> None:
        """Messages under one key, in one transaction."""
        async with self.pool.acquire() as connection, connection.transaction():
            await outbox.add(connection, [outbox.message(topic, key, numbered(key, n)) for n in numbers])
        self.written += [(topic.name, str(key), n) for n in numbers]

    async def waiting(self, topic: Topic | None = None) -> int:
        count: int = await self.pool.fetchval(
            "SELECT count(*) FROM outbox WHERE $1::text IS NULL OR topic = $1", topic and topic.name
        )
        return count

    async def empty(self) -> bool:
        return await self.waiting() == 0

    def arrived(self) -> dict[tuple[str, str], list[int]]:
        """What stands in Kafka: the numbers under each topic and key, in their order, with repetitions."""
        found: dict[tuple[str, str], list[int]] = defaultdict(list)
        for record in records_of(self.bootstrap, [t.name for t in self.topics]):
            body = catalogue.decode("orders.outcome.v1", record.value() or b"")
            key = (record.key() or b"").decode()
            assert key == str(body.order_id)
            found[(str(record.topic()), key)].append(body.version)
        return dict(found)

    def check_all_arrived_in_order(self, *, repeats: bool) -> None:
        """Every message is there; the first time each came, it came after those before it. `repeats`: after a failure
        a message may come again."""
        expected: dict[tuple[str, str], list[int]] = defaultdict(list)
        for topic, key, number in self.written:
            expected[(topic, key)].append(number)
        arrived = self.arrived()
        assert {place: list(dict.fromkeys(numbers)) for place, numbers in arrived.items()} == dict(expected)
        if not repeats:
            assert arrived == dict(expected)


def numbered(key: UUID, number: int) -> Outcome:
    return Outcome(new_id(), key, True, number, Status.SUBMITTED, NOON)


@pytest.fixture
async def post(stack: Stack, new_database: NewDatabase) -> AsyncIterator[Post]:
    bootstrap = stack.env("mes")["LOSTWAX_KAFKA_BOOTSTRAP"]
    made = [Topic(f"test.relay.{new_id()}", ("mes",), ("orders",), partitions=8) for _ in range(2)]
    ensure_topics(bootstrap, made)
    dsn = await new_database()
    pool = await open_pool(dsn, name="test", size=12)
    yield Post(bootstrap, dsn, pool, made)
    await pool.close()


@asynccontextmanager
async def relaying(post: Post, name: str = "test", *, limits_after_s: float = 0) -> AsyncIterator[Relay]:
    """A relay at work, and its copy of the limits; both must still be alive at the end."""
    limits = PublishingLimits(post.dsn)
    publisher = Publisher(post.bootstrap, client_id=name, timeout_s=3)
    relay = Relay(post.dsn, service="test", topics=post.topics, publisher=publisher, limits=limits, name=name)

    async def follow() -> None:
        await asyncio.sleep(limits_after_s)
        await limits.run()

    tasks = [asyncio.create_task(follow()), asyncio.create_task(relay.run())]
    try:
        yield relay
    finally:
        ended = [task.exception() for task in tasks if task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.to_thread(publisher.close)
        assert ended == []


async def test_what_was_committed_goes_out_once_with_its_headers(post: Post) -> None:
    topic, key = post.topics[0], new_id()
    trace = tracing.new_traceparent()
    token = tracing.current.set(trace)
    try:
        await post.write(topic, key, [1, 2, 3])
    finally:
        tracing.current.reset(token)
    async with relaying(post) as relay:
        await wait_for(post.empty)
        assert relay.published == 3
    post.check_all_arrived_in_order(repeats=False)
    for record in records_of(post.bootstrap, [topic.name]):
        headers = {name: value.decode() for name, value in record.headers() or []}  # type: ignore[union-attr]
        assert headers["ce_type"] == "orders.outcome.v1"
        assert headers["ce_source"] == "test"
        assert UUID(headers["ce_id"]).version == 7
        assert headers["traceparent"] == trace
        assert record.partition() == partition_of(bucket_of(key))


async def test_what_was_rolled_back_is_never_told(post: Post) -> None:
    topic, key = post.topics[0], new_id()
    async with relaying(post):
        async with post.pool.acquire() as connection:
            transaction = connection.transaction()
            await transaction.start()
            await outbox.add(connection, [outbox.message(topic, key, numbered(key, 1))])
            await transaction.rollback()
        await post.write(topic, key, [2])
        await wait_for(post.empty)
    assert post.arrived() == {(topic.name, str(key)): [2]}


async def test_a_body_that_readers_could_not_read_fails_its_own_transaction(post: Post) -> None:
    topic, key = post.topics[0], new_id()
    bad = msgspec.structs.replace(numbered(key, 1), version="one")
    with pytest.raises(msgspec.ValidationError):
        outbox.message(topic, key, bad)


async def test_a_row_that_commits_late_with_a_low_id_is_not_forgotten(post: Post) -> None:
    topic, slow, quick = post.topics[0], new_id(), new_id()
    async with relaying(post):
        async with post.pool.acquire() as connection, connection.transaction():
            await outbox.add(connection, [outbox.message(topic, slow, numbered(slow, 1))])
            await post.write(topic, quick, list(range(5)))
            await wait_for(post.empty)
        post.written.append((topic.name, str(slow), 1))
        await wait_for(post.empty)
    post.check_all_arrived_in_order(repeats=False)


async def test_order_is_kept_for_each_key_with_many_writers(post: Post) -> None:
    async def writer(key: UUID, topic: Topic) -> None:
        for start in range(0, 200, 4):
            await post.write(topic, key, range(start, start + 4))

    async with relaying(post):
        await asyncio.gather(*(writer(new_id(), post.topics[n % 2]) for n in range(12)))
        await wait_for(post.empty)
    assert len(post.written) == 2400
    post.check_all_arrived_in_order(repeats=False)


async def test_of_two_relays_one_works_and_the_other_takes_over(post: Post) -> None:
    topic, key = post.topics[0], new_id()
    async with relaying(post, "first") as first:
        await wait_for(lambda: first.active)
        async with relaying(post, "second") as second:
            await post.write(topic, key, range(300))
            await wait_for(post.empty)
            assert (first.published, second.published) == (300, 0)
            assert not second.active
            connection = await asyncpg.connect(post.dsn)
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'relay first'"
            )
            await connection.close()
            await wait_for(lambda: second.active)
            await post.write(topic, key, range(300, 400))
            await wait_for(post.empty)
            assert (first.published, second.published) == (300, 100)
            assert not first.active
    post.check_all_arrived_in_order(repeats=False)


async def test_a_paused_topic_waits_while_the_others_go(post: Post) -> None:
    paused, other = post.topics
    key = new_id()
    await set_limit(post.pool, paused.name, Publishing(paused=True))
    async with relaying(post):
        await post.write(paused, key, range(50))
        await post.write(other, key, range(50))

        async def others_gone() -> bool:
            return await post.waiting(other) == 0

        await wait_for(others_gone)
        await asyncio.sleep(0.3)
        assert await post.waiting(paused) == 50
        await set_limit(post.pool, paused.name, Publishing())
        await wait_for(post.empty)
        await set_limit(post.pool, paused.name, Publishing(paused=True))
        await asyncio.sleep(0.3)
        await post.write(paused, key, [50])
        await asyncio.sleep(0.3)
        assert await post.waiting(paused) == 1
        await set_limit(post.pool, paused.name, Publishing())
        await wait_for(post.empty)
    post.check_all_arrived_in_order(repeats=False)


async def test_a_relay_that_starts_knows_what_is_paused_before_it_publishes(post: Post) -> None:
    paused, key = post.topics[0], new_id()
    await set_limit(post.pool, paused.name, Publishing(paused=True))
    await post.write(paused, key, range(5))
    async with relaying(post, limits_after_s=0.5):
        await asyncio.sleep(1.5)
        assert await post.waiting(paused) == 5
        await set_limit(post.pool, paused.name, Publishing())
        await wait_for(post.empty)


async def test_a_rate_is_honoured(post: Post) -> None:
    topic, key = post.topics[0], new_id()
    await set_limit(post.pool, topic.name, Publishing(rate_per_s=60, burst=10))
    await post.write(topic, key, range(300))
    started = time.monotonic()
    async with relaying(post) as relay:
        await wait_for(lambda: relay.published > 0)
        for _ in range(20):
            await asyncio.sleep(0.05)
            published = relay.published
            assert published <= 10 + 60 * (time.monotonic() - started) + 1
        assert relay.published < 300
        await set_limit(post.pool, topic.name, Publishing())
        await wait_for(post.empty)
    post.check_all_arrived_in_order(repeats=False)


async def test_a_relay_whose_connection_is_killed_again_and_again_loses_nothing(post: Post) -> None:
    topic, keys = post.topics[0], [new_id() for _ in range(4)]
    writing = True

    async def writer(key: UUID) -> None:
        number = 0
        while writing:
            await post.write(topic, key, [number, number + 1])
            number += 2
            await asyncio.sleep(0.002)

    connection = await asyncpg.connect(post.dsn)
    killed = 0
    async with relaying(post) as relay:
        writers = [asyncio.create_task(writer(key)) for key in keys]
        try:
            for _ in range(3):
                await wait_for(lambda: relay.active)
                await asyncio.sleep(0.1)
                killed += await connection.fetchval(
                    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                    " WHERE application_name = 'relay test'"
                )
                await wait_for(lambda: not relay.active)
        finally:
            writing = False
            await asyncio.gather(*writers)
        await wait_for(post.empty)
    await connection.close()
    assert killed == 3
    post.check_all_arrived_in_order(repeats=True)


async def test_with_kafka_away_rows_stay_and_go_out_in_order_when_it_is_back(post: Post, stack: Stack) -> None:
    topic, keys = post.topics[0], [new_id() for _ in range(4)]
    writing = True

    async def writer(key: UUID) -> None:
        number = 0
        while writing:
            await post.write(topic, key, [number])
            number += 1
            await asyncio.sleep(0.01)

    async with relaying(post) as relay:
        writers = [asyncio.create_task(writer(key)) for key in keys]
        await wait_for(lambda: relay.published > 20)
        await asyncio.to_thread(stack.stop, "kafka")
        try:
            published = relay.published
            written = len(post.written)
            await asyncio.sleep(4)  # longer than the client waits for a broker, so the relay sees its failure
            assert relay.published == published
            assert len(post.written) > written, "writers do not wait for Kafka"
            assert await post.waiting() >= len(post.written) - written
        finally:
            await asyncio.to_thread(stack.start_one, "kafka")
            writing = False
            await asyncio.gather(*writers)
        await wait_for(post.empty, 30)
        assert len(post.written) > 100
    post.check_all_arrived_in_order(repeats=True)
    for process in stack.status():
        if process.state != "stopped":
            await asyncio.to_thread(stack.wait_ready, process.name)
