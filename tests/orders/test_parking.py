"""An order whose command lies in the dead letters: its later commands wait, and are applied in their order, whatever
the order in which the dead ones are settled, and whoever is killed when."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import pytest
from tests.builders import (
    ACCOUNT,
    NOON,
    SELLER,
    a_command,
    a_price,
    a_request,
    an_order,
    wait_for,
)
from tests.conftest import NewDatabase

import lostwax.orders
from lostwax.audit.run import _dead
from lostwax.audit.sources import Databases, parked
from lostwax.audit.verdict import Kind
from lostwax.contracts import catalogue, topics
from lostwax.contracts.ids import PARTITIONS, bucket_of, new_id, partition_of
from lostwax.contracts.orders import Action, Cancel, Command, Hold, Order, Outcome, Resume, Status
from lostwax.contracts.topics import Topic
from lostwax.kit import dead
from lostwax.kit.consumer import Runner
from lostwax.kit.kafka import OutgoingRecord, Publisher, ensure_topics
from lostwax.kit.messages import Burial, Incoming
from lostwax.kit.objects import Bucket, S3Settings
from lostwax.kit.postgres import open_pool
from lostwax.kit.shards import Shard, ShardMap, assign_first_buckets
from lostwax.local.stack import Stack
from lostwax.orders import changes, domain, handlers, parking, worker
from lostwax.orders.changes import Orders

COMMAND = "orders.command.v1"
MIGRATIONS = Path(lostwax.orders.__file__).parent / "migrations"


@pytest.fixture(scope="module")
async def orders(stack: Stack, new_database: NewDatabase) -> AsyncIterator[Orders]:
    """The use cases on two fresh shards that nothing else works on; the clock stands at NOON."""
    shards = []
    for number in range(2):
        dsn = await new_database(MIGRATIONS)
        pool = await open_pool(dsn, name="test", size=6)
        async with pool.acquire() as connection:
            await assign_first_buckets(connection, number, 2)
        shards.append(Shard(number, dsn, pool))
    env = stack.env("orders")
    models = Bucket(
        S3Settings(*(env[f"LOSTWAX_S3_{n}"] for n in ("ENDPOINT", "ACCESS_KEY", "SECRET_KEY"))),
        env["LOSTWAX_MODELS_BUCKET"],
    )
    yield Orders(
        ShardMap(shards),
        models=models,
        staging=lambda _: models,
        tariff=changes.load_tariff("2026-11"),
        now=lambda: NOON,
        largest_model_bytes=1_000_000,
    )
    for shard in shards:
        await shard.pool.close()


def shard_of(orders: Orders, order_id: UUID) -> Shard:
    return orders.shards.of(bucket_of(order_id))


async def a_submitted_order(orders: Orders) -> Order:
    request = a_request()
    await handlers.create_orders(orders, shard_of(orders, request.order_id), [request])
    return domain.submit(request, NOON)


async def statuses(orders: Orders, order_id: UUID) -> list[Status]:
    """The order's whole life."""
    rows = await shard_of(orders, order_id).pool.fetch(
        "SELECT status FROM order_history WHERE order_id = $1 ORDER BY version", order_id
    )
    return [Status(r["status"]) for r in rows]


async def outcomes(orders: Orders, order_id: UUID) -> list[tuple[UUID, bool]]:
    """What was told of the order's commands: id and whether it was accepted, as it was told."""
    rows = await shard_of(orders, order_id).pool.fetch(
        "SELECT payload FROM outbox WHERE key = $1 AND topic = $2 ORDER BY id",
        str(order_id),
        topics.ORDER_OUTCOMES.name,
    )
    told: list[Outcome] = [catalogue.decode("orders.outcome.v1", r["payload"]) for r in rows]
    return [(o.command_id, o.accepted) for o in told]


async def left(orders: Orders, order_id: UUID) -> tuple[int, int, int]:
    """How many marks, parked and early commands there are of an order."""
    pool = shard_of(orders, order_id).pool
    counts = [
        await pool.fetchval(f"SELECT count(*) FROM {table} WHERE order_id = $1", order_id)
        for table in ("dead_commands", "parked_commands", "early_commands")
    ]
    return counts[0], counts[1], counts[2]


def chain(order: Order, *actions: Action) -> list[Command]:
    """Commands of a seller's, each of which takes effect only right after the one before."""
    return [a_command(order, action, SELLER, seen_version=order.version + n) for n, action in enumerate(actions)]


class Post:
    """Orders' commands on a topic of its own, and what spoils some of them."""

    def __init__(self, bootstrap: str, orders: Orders) -> None:
        self.bootstrap, self.orders = bootstrap, orders
        self.topic = Topic(f"test.commands.{new_id()}", ("mes",), ("orders",))
        assert self.topic.partitions == PARTITIONS
        self.publisher = Publisher(bootstrap, client_id="test-parking", timeout_s=10)
        self.group = f"test-{new_id()}"
        self.cannot: set[UUID] = set()
        ensure_topics(bootstrap, [self.topic])

    async def send(self, commands: Sequence[Command], *, source: str = "crm") -> None:
        await self.publisher.publish([self.record(c.order_id, catalogue.encode(c), source) for c in commands])

    def record(self, order_id: UUID, payload: bytes, source: str = "crm") -> OutgoingRecord:
        headers = catalogue.cloud_headers(str(new_id()), COMMAND, source, NOON, None)
        return OutgoingRecord(self.topic.name, str(order_id), payload, headers, partition_of(bucket_of(order_id)))

    @asynccontextmanager
    async def read_by_orders(self) -> AsyncIterator[Runner]:
        obey = worker.commands(self.orders)

        async def handle(batch: Sequence[Incoming]) -> None:
            if any(i.body.command_id in self.cannot for i in batch):
                raise RuntimeError("a bug of ours")
            await obey(batch)

        runner = Runner(
            self.bootstrap,
            group=self.group,
            routes={self.topic: handle},
            publisher=self.publisher,
            instance="a",
            dead_watches={self.topic: worker.dead_watch(self.orders)},
        )
        task = asyncio.create_task(runner.run())
        try:
            yield runner
            assert runner.readiness is None
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def open_letters(self, at_least: int = 0) -> list[dead.Letter]:
        async def found() -> list[dead.Letter] | None:
            letters = list((await asyncio.to_thread(dead.read, self.bootstrap, [self.topic]))[self.topic].open.values())
            return letters if len(letters) >= at_least else None

        letters = await wait_for(found) if at_least else await found()
        assert isinstance(letters, list)
        return letters

    async def replay(self, *letters: dead.Letter) -> None:
        await dead.replay(self.publisher, self.topic, letters, by="test", at=NOON)

    async def discard(self, *letters: dead.Letter) -> None:
        await dead.discard(self.publisher, self.topic, letters, "of a test", tell=True, by="test", at=NOON)

    async def until_left(self, order: Order, *counts: int) -> None:
        async def so_far() -> bool:
            return await left(self.orders, order.order_id) == counts

        await wait_for(so_far)


@pytest.fixture
async def post(stack: Stack, orders: Orders) -> AsyncIterator[Post]:
    made = Post(stack.env("orders")["LOSTWAX_KAFKA_BOOTSTRAP"], orders)
    yield made
    assert await made.open_letters() == [], "a test has left dead letters"
    await asyncio.to_thread(made.publisher.close)


async def test_a_replay_after_the_mend_applies_it_and_all_that_waited_behind(orders: Orders, post: Post) -> None:
    order, other = await a_submitted_order(orders), await a_submitted_order(orders)
    commands = chain(order, Hold("a"), Resume(), Hold("b"), Resume())
    post.cannot = {commands[1].command_id}
    await post.send([*commands[:3], *chain(other, Cancel("not concerned")), commands[3]])
    async with post.read_by_orders():
        (letter,) = await post.open_letters(1)
        assert letter.reason == "handler_failed"
        await post.until_left(order, 1, 2, 0)
        # What came before it was applied, though in one batch with it; another order is not concerned.
        assert await statuses(orders, order.order_id) == [Status.SUBMITTED, Status.ON_HOLD]
        assert (await statuses(orders, other.order_id))[-1] is Status.CANCELLED
        later = chain(order, Hold("a"), Resume(), Hold("b"), Resume(), Cancel("at last"))[4]
        await post.send([later])
        await post.until_left(order, 1, 3, 0)
        post.cannot = set()
        await post.replay(letter)
        await post.until_left(order, 0, 0, 0)
    assert await outcomes(orders, order.order_id) == [(c.command_id, True) for c in (*commands, later)]


async def test_two_dead_ones_may_be_settled_in_any_order(orders: Orders, post: Post) -> None:
    order = await a_submitted_order(orders)
    commands = chain(order, Hold("a"), Resume(), Hold("b"), Resume())
    post.cannot = {commands[0].command_id, commands[2].command_id}
    await post.send(commands)
    async with post.read_by_orders():
        first, second = await post.open_letters(2)
        await post.until_left(order, 2, 2, 0)
        post.cannot = set()
        await post.replay(second)
        await post.until_left(order, 1, 3, 0)
        assert await statuses(orders, order.order_id) == [Status.SUBMITTED]
        await post.replay(first)
        await post.until_left(order, 0, 0, 0)
    assert await outcomes(orders, order.order_id) == [(c.command_id, True) for c in commands]


async def test_what_stands_between_two_dead_ones_goes_on_when_the_first_is_settled(orders: Orders, post: Post) -> None:
    order = await a_submitted_order(orders)
    commands = chain(order, Hold("a"), Resume(), Hold("b"), Resume())
    post.cannot = {commands[0].command_id, commands[2].command_id}
    await post.send(commands)
    async with post.read_by_orders():
        first, second = await post.open_letters(2)
        await post.until_left(order, 2, 2, 0)
        post.cannot = {commands[2].command_id}
        await post.replay(first)
        await post.until_left(order, 1, 1, 0)
        assert await outcomes(orders, order.order_id) == [(c.command_id, True) for c in commands[:2]]
        await post.discard(second)
        await post.until_left(order, 0, 0, 0)
    # What is discarded is refused; and without the second hold there is nothing to resume.
    told = await outcomes(orders, order.order_id)
    assert told == [(c.command_id, c in commands[:2]) for c in commands]


async def test_one_that_dies_again_keeps_its_place_and_the_others_waiting(orders: Orders, post: Post) -> None:
    order = await a_submitted_order(orders)
    commands = chain(order, Hold("a"), Resume())
    post.cannot = {commands[0].command_id}
    await post.send(commands)
    async with post.read_by_orders():
        (letter,) = await post.open_letters(1)
        await post.until_left(order, 1, 1, 0)
        await post.replay(letter)

        async def again() -> bool:
            return [x.text("replayed_from") for x in await post.open_letters()] == [letter.source]

        await wait_for(again)
        assert await left(orders, order.order_id) == (1, 1, 0)
        post.cannot = set()
        await post.replay(*await post.open_letters())
        await post.until_left(order, 0, 0, 0)
    assert await outcomes(orders, order.order_id) == [(c.command_id, True) for c in commands]


async def test_a_malformed_command_parks_the_order_of_its_key_until_it_is_discarded(orders: Orders, post: Post) -> None:
    order = await a_submitted_order(orders)
    before, after = chain(order, Hold("a"), Resume())
    await post.send([before])
    await post.publisher.publish([post.record(order.order_id, b'{"rubbish": 1}')])
    await post.publisher.publish(
        [OutgoingRecord(post.topic.name, "no id", b"{", post.record(new_id(), b"").headers, 0)]
    )
    await post.send([after])
    async with post.read_by_orders():
        letters = await post.open_letters(2)
        await post.until_left(order, 1, 1, 0)
        assert await statuses(orders, order.order_id) == [Status.SUBMITTED, Status.ON_HOLD]
        await post.discard(*letters)
        await post.discard(*letters)  # as a crash between telling and settling would repeat it
        await post.until_left(order, 0, 0, 0)
    assert await outcomes(orders, order.order_id) == [(before.command_id, True), (after.command_id, True)]


def incoming(
    commands: Sequence[Command], *, start: int = 0, replayed_from: str | None = None, topic: str = "t"
) -> list[Incoming]:
    """Commands as the runner hands them on, from this offset of their order's partition."""
    return [
        Incoming(
            topic,
            partition_of(bucket_of(command.order_id)),
            start + n,
            str(command.order_id),
            COMMAND,
            "crm",
            str(new_id()),
            None,
            command,
            replayed_from,
        )
        for n, command in enumerate(commands)
    ]


def burial_of(message: Incoming) -> Burial:
    return Burial(message.place, message.partition, message.offset, message.key, message.replayed_from, message.body)


async def test_a_reader_killed_before_the_burial_handles_it_after_all_and_nothing_stays_parked(orders: Orders) -> None:
    order = await a_submitted_order(orders)
    messages = incoming(chain(order, Hold("a"), Resume(), Cancel("b")), topic="t1")
    handle, watch = worker.commands(orders), worker.dead_watch(orders)
    await watch.before_burial(burial_of(messages[0]))
    await handle(messages[1:])
    assert await left(orders, order.order_id) == (1, 2, 0)
    # Killed here. It comes again, with what followed it, and the fault is gone.
    await handle(messages)
    assert await left(orders, order.order_id) == (0, 0, 0)
    assert await outcomes(orders, order.order_id) == [(m.body.command_id, True) for m in messages]


async def test_everything_twice_is_as_once(orders: Orders) -> None:
    order = await a_submitted_order(orders)
    messages = incoming(chain(order, Hold("a"), Resume(), Cancel("b")), topic="t2")
    (again,) = incoming([messages[0].body], start=9, replayed_from=messages[0].place, topic="t2")
    handle, watch = worker.commands(orders), worker.dead_watch(orders)
    for _ in range(2):
        await watch.before_burial(burial_of(messages[0]))
        await handle([*messages[1:], messages[2]])
    assert await left(orders, order.order_id) == (1, 2, 0)
    await handle([again, again])
    await handle([again, *messages[1:]])
    assert await left(orders, order.order_id) == (0, 0, 0)
    assert await outcomes(orders, order.order_id) == [(m.body.command_id, True) for m in messages]


async def test_a_day_old_command_without_its_order_keeps_the_later_ones_waiting_when_the_order_comes(
    orders: Orders, stack: Stack
) -> None:
    request = a_request()
    coming = domain.submit(request, NOON)
    shard, handle = shard_of(orders, request.order_id), worker.commands(orders)
    messages = incoming(chain(coming, Hold("a"), Resume(), Cancel("b")), topic="t3")
    await handle(messages)
    await shard.pool.execute(
        "UPDATE early_commands SET received_at = received_at - interval '25 h' WHERE command_id = $1",
        messages[0].body.command_id,
    )
    publisher = Publisher(stack.env("orders")["LOSTWAX_KAFKA_BOOTSTRAP"], client_id="test-parking")
    given_up = [await parking.give_up_on(orders, shard, publisher, parking.EARLY_LIMIT_S) for _ in range(2)]
    assert given_up == [1, 0]
    all_letters = await asyncio.to_thread(
        dead.read, stack.env("orders")["LOSTWAX_KAFKA_BOOTSTRAP"], [topics.ORDER_COMMANDS]
    )
    letters = [x for x in all_letters[topics.ORDER_COMMANDS].open.values() if x.subject == str(request.order_id)]
    await dead.discard(publisher, topics.ORDER_COMMANDS, letters, "of a test", tell=False, by="test", at=NOON)
    assert [(x.reason, x.source) for x in letters] == [("order_never_came", messages[0].place)]
    assert [x.text("ce_source") for x in letters] == ["crm"], "without it a replay would be nobody's command"
    assert await left(orders, request.order_id) == (1, 0, 2)

    await handlers.create_orders(orders, shard, [request])
    assert await left(orders, request.order_id) == (1, 2, 0)
    assert await statuses(orders, request.order_id) == [Status.SUBMITTED]
    await handle(incoming([messages[0].body], start=9, replayed_from=messages[0].place, topic="t3"))
    assert await left(orders, request.order_id) == (0, 0, 0)
    assert await outcomes(orders, request.order_id) == [(m.body.command_id, True) for m in messages]


async def test_a_command_replayed_before_its_order_came_waits_again_before_the_later_ones(orders: Orders) -> None:
    request = a_request()
    shard, handle = shard_of(orders, request.order_id), worker.commands(orders)
    messages = incoming(chain(domain.submit(request, NOON), Hold("a"), Resume()), topic="t4")
    await worker.dead_watch(orders).before_burial(burial_of(messages[0]))
    await handle(messages[1:])
    await handle(incoming([messages[0].body], start=9, replayed_from=messages[0].place, topic="t4"))
    assert await left(orders, request.order_id) == (0, 0, 2)
    await handlers.create_orders(orders, shard, [request])
    assert await outcomes(orders, request.order_id) == [(m.body.command_id, True) for m in messages]


async def test_a_kill_between_marking_and_burying_an_early_command_is_finished_the_next_time(
    orders: Orders, stack: Stack
) -> None:
    command = a_command(an_order(), Hold("a"), SELLER)
    shard = shard_of(orders, command.order_id)
    await worker.commands(orders)(incoming([command], topic="t5"))
    await shard.pool.execute(
        "UPDATE early_commands SET received_at = now() - interval '25 h' WHERE order_id = $1", command.order_id
    )
    bootstrap = stack.env("orders")["LOSTWAX_KAFKA_BOOTSTRAP"]

    class Killed(Publisher):
        async def publish(self, records: Sequence[OutgoingRecord]) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await parking.give_up_on(orders, shard, Killed(bootstrap, client_id="killed"), parking.EARLY_LIMIT_S)
    assert await left(orders, command.order_id) == (1, 0, 1)
    publisher = Publisher(bootstrap, client_id="test-parking")
    assert await parking.give_up_on(orders, shard, publisher, parking.EARLY_LIMIT_S) == 1
    assert await left(orders, command.order_id) == (1, 0, 0)
    all_letters = await asyncio.to_thread(dead.read, bootstrap, [topics.ORDER_COMMANDS])
    letters = [x for x in all_letters[topics.ORDER_COMMANDS].open.values() if x.subject == str(command.order_id)]
    assert len(letters) == 1
    await dead.discard(publisher, topics.ORDER_COMMANDS, letters, "of a test", tell=False, by="test", at=NOON)


async def test_a_price_does_not_wait_behind_a_dead_command(orders: Orders) -> None:
    request = a_request(account=ACCOUNT)
    shard = shard_of(orders, request.order_id)
    sha256 = request.specification.model.sha256
    await orders.shards.of(int(sha256[-3:], 16) & 1023).pool.execute("INSERT INTO models VALUES ($1, 84)", sha256)
    await handlers.create_orders(orders, shard, [request])
    (message,) = incoming([a_command(domain.submit(request, NOON), Hold("a"), SELLER)], topic="t6")
    await worker.dead_watch(orders).before_burial(burial_of(message))
    job = domain.price_job(domain.submit(request, NOON))
    await handlers.take_prices(orders, shard, [a_price(job, request.order_id)])
    assert await statuses(orders, request.order_id) == [Status.SUBMITTED, Status.PRICE_CALCULATED]


async def test_the_audit_names_who_waits_and_who_waits_for_nothing(orders: Orders) -> None:
    order = await a_submitted_order(orders)
    messages = incoming(chain(order, Hold("a"), Resume(), Cancel("b")), topic="t7")
    await worker.dead_watch(orders).before_burial(burial_of(messages[0]))
    await worker.commands(orders)(messages[1:])
    everything = await parked(
        Databases(partner_api="", shop="", mes="", crm="", shards=tuple(s.dsn for s in orders.shards.shards))
    )
    (mine,) = [mark for mark in everything if mark.order_id == order.order_id]
    assert (mine.place, mine.waiting) == (messages[0].place, 2)
    reasons = dead.reasons("handler_failed", "a bug", group="orders", place=mine.place, at=NOON)
    letter = dead.Letter("t7.dead", 4, str(order.order_id), {k: v.encode() for k, v in reasons.items()}, b"")
    (finding,) = _dead([letter], [mine], {}, mine.since)
    assert (finding.kind, finding.order_id) == (Kind.DEAD, order.order_id)
    assert "t7.dead offset 4" in finding.detail
    assert "2 later commands" in finding.detail
    assert _dead([], [mine], {}, mine.since) == [], "it may be being released just now"
    (stuck,) = _dead([], [mine], {}, mine.since.replace(year=mine.since.year + 1))
    assert (stuck.kind, stuck.order_id) == (Kind.STUCK, order.order_id)
