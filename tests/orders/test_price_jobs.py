"""Price jobs and the desk on a shard of their own: bounded, fair by account, nothing lost, nothing twice."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from uuid import UUID

import asyncpg
import pytest
from tests.builders import (
    NOON,
    NOT_CLOSED,
    PARTNER,
    SELLER,
    a_command,
    a_digest,
    a_price,
    a_request,
    a_specification,
    wait_for,
)
from tests.conftest import NewDatabase

import lostwax.orders
from lostwax.contracts import catalogue, topics
from lostwax.contracts.ids import bucket_of, new_id, partition_of
from lostwax.contracts.orders import Cancel, Hold, ModelRef, Resume, Status
from lostwax.contracts.pricing import PriceRequest
from lostwax.kit.objects import Bucket, S3Settings
from lostwax.kit.postgres import open_pool
from lostwax.kit.shards import Shard, ShardMap, assign_first_buckets
from lostwax.local.stack import Stack
from lostwax.orders import changes, handlers, models_store, price_jobs, store
from lostwax.orders.changes import Orders
from lostwax.orders.desk import MOST_ATTEMPTS, Desk
from lostwax.orders.price_jobs import Lane, PriceJob, SubjectKind, Terms

MIGRATIONS = Path(lostwax.orders.__file__).parent / "migrations"
QUICK, HEAVY = 8, 2
TERMS = {Lane.QUICK: Terms(QUICK, 60), Lane.HEAVY: Terms(HEAVY, 600)}


@pytest.fixture(scope="module")
async def only(stack: Stack, new_database: NewDatabase) -> AsyncIterator[Orders]:
    """The use cases on one shard that nothing else works on; the clock stands at NOON."""
    dsn = await new_database(MIGRATIONS)
    pool = await open_pool(dsn, name="test", size=12)
    async with pool.acquire() as connection:
        await assign_first_buckets(connection, 0, 1)
    env = stack.env("orders")
    bucket = Bucket(S3Settings(*(env[f"LOSTWAX_S3_{n}"] for n in ("ENDPOINT", "ACCESS_KEY", "SECRET_KEY"))), "models")
    yield Orders(
        ShardMap([Shard(0, dsn, pool)]),
        models=bucket,
        staging=lambda name: bucket,
        tariff=changes.load_tariff("2026-11"),
        now=lambda: NOON,
        largest_model_bytes=1_000_000,
    )
    await pool.close()


@pytest.fixture
async def orders(only: Orders) -> Orders:
    """The same, with nothing in the queue."""
    await only.shards.shards[0].pool.execute("TRUNCATE price_jobs, outbox, orders, order_history")
    await only.shards.shards[0].pool.execute("UPDATE price_lanes SET mean_s = NULL")
    return only


def shard_of(orders: Orders) -> Shard:
    return orders.shards.shards[0]


@asynccontextmanager
async def a_desk(orders: Orders, **terms: Terms) -> AsyncIterator[Desk]:
    """A desk at work. `quick`, `heavy`: other terms than usual."""
    desk = Desk(orders, shard_of(orders), TERMS | {Lane(name): value for name, value in terms.items()})
    task = asyncio.create_task(desk.run())
    try:
        yield desk
    finally:
        task.cancel()
        await asyncio.wait([task])


async def let_wait(orders: Orders, account: UUID, count: int, lane: Lane = Lane.QUICK) -> list[UUID]:
    """So many jobs of an account at the end of the queue; their ids in order."""
    jobs = [
        PriceJob(new_id(), SubjectKind.ORDER, new_id(), account, lane, a_specification(), "2026-11")
        for _ in range(count)
    ]
    async with shard_of(orders).pool.acquire() as connection:
        await price_jobs.insert(connection, jobs)
    return [j.job_id for j in jobs]


async def requests(orders: Orders) -> list[PriceRequest]:
    """Everything published so far, in order."""
    rows = await shard_of(orders).pool.fetch(
        "SELECT type, payload FROM outbox WHERE topic LIKE 'pricing.requests.%' ORDER BY id"
    )
    return [catalogue.decode(r["type"], r["payload"]) for r in rows]


async def ids_published(orders: Orders) -> list[UUID]:
    return [r.job_id for r in await requests(orders)]


async def be_answered(orders: Orders, some: Sequence[PriceRequest]) -> None:
    await handlers.take_prices(orders, shard_of(orders), [a_price(r.job_id, r.subject_id) for r in some])


async def when_published(orders: Orders, count: int) -> list[PriceRequest]:
    async def there() -> list[PriceRequest] | None:
        found = await requests(orders)
        return found if len(found) >= count else None

    return list(await wait_for(there, 10))


async def an_order(orders: Orders, account: UUID, size_bytes: int = 84) -> tuple[UUID, UUID]:
    """A new order whose model is stored; returns its id and its price job's."""
    model = ModelRef(sha256=a_digest(), size_bytes=size_bytes, name="ring.stl")
    async with shard_of(orders).pool.acquire() as connection:
        await models_store.insert_model(connection, model.sha256, 84)
    request = a_request(account=account, specification=a_specification(model=model))
    await handlers.create_orders(orders, shard_of(orders), [request])
    job_id = await shard_of(orders).pool.fetchval(
        "SELECT price_job_id FROM orders WHERE order_id = $1", request.order_id
    )
    return request.order_id, job_id


async def jobs_left(orders: Orders) -> int:
    return int(await shard_of(orders).pool.fetchval("SELECT count(*) FROM price_jobs"))


async def test_an_order_asks_through_the_desk(orders: Orders) -> None:
    """And its request is what its order says, in its lane, in the partition of its order."""
    order_id, job_id = await an_order(orders, PARTNER.account or new_id())
    heavy_id, heavy_job = await an_order(orders, PARTNER.account or new_id(), size_bytes=10_000_000)
    assert await requests(orders) == []
    async with a_desk(orders):
        asked = {r.subject_id: r for r in await when_published(orders, 2)}
    rows = await shard_of(orders).pool.fetch("SELECT topic, key FROM outbox WHERE topic LIKE 'pricing.requests.%'")
    assert {(r["topic"], r["key"]) for r in rows} == {
        (topics.PRICING_QUICK.name, str(job_id)),
        (topics.PRICING_HEAVY.name, str(heavy_job)),
    }
    partitions = {partition_of(bucket_of(i)) for i in (order_id, heavy_id)}
    assert (
        set(
            await shard_of(orders).pool.fetchval(
                "SELECT array_agg(partition) FROM outbox WHERE topic LIKE 'pricing.requests.%'"
            )
        )
        == partitions
    )
    assert asked[order_id].tariff == orders.tariff
    assert asked[heavy_id].specification.model.size_bytes == 10_000_000
    await be_answered(orders, list(asked.values()))
    assert await jobs_left(orders) == 0


async def test_one_job_of_a_quiet_account_goes_before_the_thousand_of_another(orders: Orders) -> None:
    burst, quiet = new_id(), new_id()
    many = await let_wait(orders, burst, 1000)
    async with a_desk(orders):
        first = await when_published(orders, QUICK)
        assert [r.job_id for r in first] == many[:QUICK]
        (one,) = await let_wait(orders, quiet, 1)
        await be_answered(orders, first[:1])
        assert [r.job_id for r in await when_published(orders, QUICK + 1)][QUICK:] == [one]
        await be_answered(orders, first[1:2])
        assert [r.job_id for r in await when_published(orders, QUICK + 2)][QUICK + 1 :] == [many[QUICK]]


async def test_with_a_giant_and_a_burst_before_them_small_jobs_of_others_go_before_the_rest_of_the_burst(
    orders: Orders,
) -> None:
    burst, others = new_id(), [new_id() for _ in range(10)]
    giants = await let_wait(orders, burst, 5, Lane.HEAVY)
    many = await let_wait(orders, burst, 200)
    small = [job for account in others for job in await let_wait(orders, account, 2)]
    async with a_desk(orders):
        answered = 0
        while await jobs_left(orders) > len(giants):
            found = [r for r in await requests(orders) if r.job_id not in giants][answered:]
            await be_answered(orders, found)
            answered += len(found)
            await asyncio.sleep(0.005)
    published = await ids_published(orders)
    assert sum(g in published for g in giants) == HEAVY
    order = [job for job in published if job not in giants]
    assert set(order) == {*many, *small}
    last_small = max(order.index(job) for job in small)
    # While others wait, the burst has one place in each window: 20 small ones take three windows, or four.
    assert sum(job in many for job in order[: last_small + 1]) <= 4
    assert [job for job in order if job in many] == many


@pytest.mark.parametrize("seed", range(3))
async def test_places_go_to_whoever_has_the_fewest_out_as_a_plain_loop_would_give_them(
    orders: Orders, seed: int
) -> None:
    """The query against its meaning, with accounts from one job to many."""
    random = Random(seed)
    accounts = [new_id() for _ in range(random.choice([1, 3, 12]))]
    queue: list[tuple[UUID, UUID]] = []
    for _ in range(40):
        account = random.choice(accounts[: random.randint(1, len(accounts))])
        queue += [(account, job) for job in await let_wait(orders, account, random.randint(1, 4))]
    expected, out = [], Counter[UUID]()
    async with shard_of(orders).pool.acquire() as connection:
        for places in (5, 1, 7, 20):
            for _ in range(places):
                heads = dict(reversed(queue))
                if not heads:
                    break
                fewest = min(out[a] for a in heads)
                turn = next(pair for pair in queue if out[pair[0]] == fewest and heads[pair[0]] == pair[1])
                queue.remove(turn)
                out[turn[0]] += 1
                expected.append(turn[1])
            if queue:
                # What the place of everybody who waits is, before it is their turn.
                account, job = random.choice(queue)
                subject = await connection.fetchval("SELECT subject_id FROM price_jobs WHERE job_id = $1", job)
            taken = await price_jobs.publish_next(connection, Lane.QUICK, places, 33, 60)
            assert [j.job_id for j in taken] == expected[-len(taken) :]
        if queue:
            seen = await price_jobs.place(connection, SubjectKind.ORDER, subject, TERMS)
            assert seen is not None
            ahead = await price_jobs.publish_next(connection, Lane.QUICK, seen.place, 1000, 60)
            assert ahead[-1].job_id == job


async def test_never_more_than_the_window_is_out_however_it_is_asked_for(orders: Orders) -> None:
    """Orders come, prices come, two desks work and are killed in turn; in the end everything was published once."""
    pool, most, over = shard_of(orders).pool, 0, False
    jobs: list[UUID] = []

    async def come() -> None:
        for _ in range(20):
            jobs.extend(await let_wait(orders, new_id(), 10))
            await asyncio.sleep(0.01)

    async def look() -> None:
        nonlocal most
        done: set[UUID] = set()
        while len(done) < 200:
            most = max(most, await pool.fetchval("SELECT count(*) FROM price_jobs WHERE state = 'published'"))
            some = [r for r in await requests(orders) if r.job_id not in done][:3]
            await be_answered(orders, some)
            done |= {r.job_id for r in some}

    async def desks() -> None:
        while not over:
            async with a_desk(orders) as one, a_desk(orders) as other:
                await wait_for(lambda: one.active or other.active)  # however long a busy machine takes to start one
                await asyncio.sleep(0.15)

    async with asyncio.timeout(60):
        working = asyncio.create_task(desks())
        try:
            await asyncio.gather(come(), look())
        finally:
            over = True
            await working
    assert most == QUICK
    assert sorted(await ids_published(orders)) == sorted(jobs)


async def test_a_desk_ends_though_its_connection_does_not_close_in_time(
    orders: Orders, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(self: object, *, timeout: float | None = None) -> None:
        raise TimeoutError

    desk = Desk(orders, shard_of(orders), TERMS)
    task = asyncio.create_task(desk.run())
    await wait_for(lambda: desk.active)
    with monkeypatch.context() as patched:
        patched.setattr(asyncpg.Connection, "close", never)
        task.cancel()
        await asyncio.wait([task], timeout=5)
    assert task.cancelled()
    async with a_desk(orders) as other:  # nor does what it left behind keep the lock
        await wait_for(lambda: other.active)


async def test_of_two_desks_one_works_and_the_other_takes_over(orders: Orders) -> None:
    async with a_desk(orders) as second_to_start_with:
        await wait_for(lambda: second_to_start_with.active)
        async with a_desk(orders) as other:
            await let_wait(orders, new_id(), 1)
            await when_published(orders, 1)
            assert not other.active
            await shard_of(orders).pool.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'desk shard 0' AND datname = current_database()"
                " AND pid IN (SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted)"
            )
            await let_wait(orders, new_id(), 1)
            await when_published(orders, 2)
            assert len(await ids_published(orders)) == 2


async def test_a_lost_job_is_asked_again_counted_and_answered_once(orders: Orders) -> None:
    order_id, job_id = await an_order(orders, new_id())
    async with a_desk(orders, quick=Terms(QUICK, 0.2)):
        await when_published(orders, 1)
        # While its message waits in the outbox for the broker, it is not lost.
        await asyncio.sleep(0.5)
        assert await ids_published(orders) == [job_id]
        await shard_of(orders).pool.execute("DELETE FROM outbox WHERE topic LIKE 'pricing.requests.%'")
        (again,) = await when_published(orders, 1)
        assert (again.job_id, again.subject_id) == (job_id, order_id)
        async with shard_of(orders).pool.acquire() as connection:
            seen = await price_jobs.place(connection, SubjectKind.ORDER, order_id, TERMS)
        assert seen is not None
        assert (seen.attempts, seen.place, seen.state) == (2, 0, "published")
    for _ in range(3):  # the first answer was only late
        await be_answered(orders, [again])
    async with shard_of(orders).pool.acquire() as connection:
        order = await store.order(connection, order_id)
    assert order is not None
    assert (order.status, order.version) == (Status.PRICE_CALCULATED, 2)
    assert await jobs_left(orders) == 0


async def test_a_price_that_is_never_answered_fails_with_who_can_mend_it(orders: Orders) -> None:
    order_id, job_id = await an_order(orders, new_id())
    pool = shard_of(orders).pool
    published = 0

    async def failed() -> bool:
        nonlocal published
        published += len(await pool.fetch("DELETE FROM outbox WHERE key = $1 RETURNING id", str(job_id)))
        return bool(await pool.fetchval("SELECT status = 'PRICE_FAILED' FROM orders WHERE order_id = $1", order_id))

    async with a_desk(orders, quick=Terms(QUICK, 0.05)):
        await wait_for(failed, 20)
    async with pool.acquire() as connection:
        order = await store.order(connection, order_id)
    assert order is not None
    assert order.failure is not None
    assert (order.failure.code, order.failure.mended_by) == ("price_not_answered", "operator")
    assert published == MOST_ATTEMPTS
    assert await jobs_left(orders) == 0
    await handlers.take_prices(orders, shard_of(orders), [a_price(job_id, order_id)])
    async with pool.acquire() as connection:
        assert await store.order(connection, order_id) == order


async def test_a_cancelled_order_leaves_the_queue_and_a_held_one_stays(orders: Orders) -> None:
    account = new_id()
    first, first_job = await an_order(orders, account)
    second, second_job = await an_order(orders, account)
    async with shard_of(orders).pool.acquire() as connection:
        one, other = await store.order(connection, first), await store.order(connection, second)
    assert one is not None
    assert other is not None
    await handlers.obey_commands(
        orders, shard_of(orders), [a_command(one, Cancel("no"), SELLER), a_command(other, Hold("wait"), SELLER)]
    )
    assert await shard_of(orders).pool.fetchval("SELECT array_agg(job_id) FROM price_jobs") == [second_job]
    async with a_desk(orders):
        (asked,) = await when_published(orders, 1)
    await be_answered(orders, [asked])
    assert await jobs_left(orders) == 0
    async with shard_of(orders).pool.acquire() as connection:
        held = await store.order(connection, second)
        assert held is not None
        assert held.status is Status.ON_HOLD
        resumed = a_command(held, Resume(), SELLER)
    await handlers.obey_commands(orders, shard_of(orders), [resumed])
    async with shard_of(orders).pool.acquire() as connection:
        priced = await store.order(connection, second)
    assert priced is not None
    assert priced.status is Status.PRICE_CALCULATED
    await handlers.take_prices(orders, shard_of(orders), [a_price(first_job, first, failure=NOT_CLOSED)])
    assert await jobs_left(orders) == 0


async def test_place_and_expected_time(orders: Orders) -> None:
    account, other = new_id(), new_id()
    pool = shard_of(orders).pool
    await let_wait(orders, account, QUICK + 2)
    order_id, _ = await an_order(orders, other)
    late = await an_order(orders, account)
    async with pool.acquire() as connection:

        async def seen(subject: UUID) -> price_jobs.Place:
            found = await price_jobs.place(connection, SubjectKind.ORDER, subject, TERMS)
            assert found is not None
            return found

        assert ((await seen(order_id)).place, (await seen(late[0])).place) == (2, QUICK + 4)
        assert (await seen(order_id)).expected_at is None
        async with a_desk(orders):
            published = await when_published(orders, QUICK)
        assert (await seen(order_id)).place == 0
        assert (await seen(late[0])).place == 4
        await pool.execute(
            "UPDATE price_jobs SET published_at = published_at - interval '8 s' WHERE state = 'published'"
        )
        await be_answered(orders, [r for r in published if r.subject_id != order_id][:1])
        mean = await pool.fetchval("SELECT mean_s FROM price_lanes WHERE lane = 'quick'")
        assert 8 < mean < 30
        now = await pool.fetchval("SELECT clock_timestamp()")
        waits = (await seen(late[0])).expected_at
        assert waits is not None
        assert abs((waits - now).total_seconds() - mean * (1 + 4 / QUICK)) < 5
        assert await price_jobs.place(connection, SubjectKind.ORDER, new_id(), TERMS) is None


async def test_a_desk_whose_shard_is_away_goes_on_when_it_is_back(orders: Orders) -> None:
    """Here: whose table cannot be read for a while."""
    pool = shard_of(orders).pool
    await pool.execute("ALTER TABLE price_jobs RENAME TO elsewhere")
    async with a_desk(orders) as desk:
        await wait_for(lambda: desk.active)
        await pool.execute("ALTER TABLE elsewhere RENAME TO price_jobs")
        jobs = await let_wait(orders, new_id(), 1)
        await when_published(orders, 1)
        assert await ids_published(orders) == jobs


async def test_thousands_of_waiting_jobs_are_not_read_to_find_the_next(orders: Orders) -> None:
    """Counted in rows that PostgreSQL reads, not in time."""
    account = new_id()
    await let_wait(orders, account, 20_000)
    await let_wait(orders, new_id(), 1)
    pool = shard_of(orders).pool
    await pool.execute("ANALYZE price_jobs")
    connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(shard_of(orders).dsn)
    try:
        async with connection.transaction():
            reads = (
                "SELECT coalesce(sum(pg_stat_get_xact_tuples_fetched(c) + pg_stat_get_xact_tuples_returned(c)), 0)"
                " FROM (SELECT 'price_jobs'::regclass::oid UNION ALL SELECT indexrelid FROM pg_index"
                " WHERE indrelid = 'price_jobs'::regclass) AS all_of_it(c)"
            )
            before = await connection.fetchval(reads)
            assert len(await price_jobs.publish_next(connection, Lane.QUICK, QUICK, QUICK, 60)) == QUICK
            assert await connection.fetchval(reads) - before < 300
    finally:
        await connection.close()
