"""Orders' use cases on real shards of their own: repeated, reordered, concurrent, interrupted."""

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
import pytest
from tests.builders import (
    ACCOUNT,
    NOON,
    NOT_CLOSED,
    OPERATOR,
    OTHER_OPERATOR,
    PARTNER,
    SELLER,
    a_command,
    a_digest,
    a_price,
    a_quote,
    a_request,
    a_specification,
    an_order,
    wait_for,
)
from tests.conftest import NewDatabase

import lostwax.orders
from lostwax.contracts import catalogue, topics
from lostwax.contracts.ids import bucket_of, bucket_of_digest, new_id, partition_of
from lostwax.contracts.models import ModelNeeded, ModelStored, ModelUploaded
from lostwax.contracts.orders import (
    Action,
    Approve,
    Cancel,
    Command,
    Hold,
    ModelReady,
    ModelRef,
    Order,
    OrderChanged,
    OrderRequested,
    Outcome,
    ReleaseClaim,
    Resubmit,
    Resume,
    StartManufacturing,
    Status,
)
from lostwax.kit import dead
from lostwax.kit.kafka import Publisher
from lostwax.kit.messages import Incoming, Later, Poison
from lostwax.kit.objects import Bucket, S3Settings
from lostwax.kit.postgres import open_pool
from lostwax.kit.shards import NotOwner, Shard, ShardMap, assign_first_buckets, first_owner
from lostwax.local.stack import Stack
from lostwax.orders import changes, domain, handlers, model_handlers, parking, price_jobs, worker
from lostwax.orders.changes import Orders

MIGRATIONS = Path(lostwax.orders.__file__).parent / "migrations"


def bucket(stack: Stack, service: str, name: str) -> Bucket:
    env = stack.env(service)
    return Bucket(S3Settings(*(env[f"LOSTWAX_S3_{n}"] for n in ("ENDPOINT", "ACCESS_KEY", "SECRET_KEY"))), name)


@pytest.fixture(scope="module")
async def orders(stack: Stack, new_database: NewDatabase) -> AsyncIterator[Orders]:
    """The use cases on two fresh shards that nothing else works on; the clock stands at NOON."""
    shards = []
    for number in range(2):
        dsn = await new_database(MIGRATIONS)
        pool = await open_pool(dsn, name="test", size=12)
        async with pool.acquire() as connection:
            await assign_first_buckets(connection, number, 2)
        shards.append(Shard(number, dsn, pool))
    env = stack.env("orders")
    yield Orders(
        ShardMap(shards),
        models=bucket(stack, "orders", env["LOSTWAX_MODELS_BUCKET"]),
        staging=lambda name: bucket(stack, "orders", name),
        tariff=changes.load_tariff("2026-11"),
        now=lambda: NOON,
        largest_model_bytes=1_000_000,
    )
    for shard in shards:
        await shard.pool.close()


def an_id(shard: int = 0) -> UUID:
    """A new id that the shard owns."""
    return next(i for i in iter(new_id, None) if first_owner(bucket_of(i), 2) == shard)


def digest_on(shard: int) -> str:
    return next(d for d in iter(a_digest, "") if first_owner(bucket_of_digest(d), 2) == shard)


def request_for(sha256: str | None = None, **changes: Any) -> OrderRequested:
    """A request on shard 0, for a model that nobody has unless one is named."""
    model = ModelRef(sha256=sha256 or a_digest(), size_bytes=84, name="ring.stl")
    return a_request(**{"order_id": an_id(), "specification": a_specification(model=model), **changes})


async def stored_order(orders: Orders, order_id: UUID) -> tuple[Order, UUID | None]:
    row = await orders.shards.of(bucket_of(order_id)).pool.fetchrow(
        "SELECT body, version, status, price_job_id FROM orders WHERE order_id = $1", order_id
    )
    assert row is not None
    order = msgspec.json.decode(row["body"], type=Order)
    assert (row["version"], row["status"]) == (order.version, order.status)
    return order, row["price_job_id"]


async def history(orders: Orders, order_id: UUID) -> list[Order]:
    rows = await orders.shards.of(bucket_of(order_id)).pool.fetch(
        "SELECT version, body FROM order_history WHERE order_id = $1 ORDER BY version", order_id
    )
    bodies = [msgspec.json.decode(r["body"], type=Order) for r in rows]
    assert [b.version for b in bodies] == [r["version"] for r in rows]
    return bodies


async def told(shard: Shard, kind: type[Any], key: UUID | str) -> list[Any]:
    """What the outbox will tell under this key, of one type of message, in its order."""
    name = next(t.name for t in catalogue.TYPES if t.struct is kind)
    rows = await shard.pool.fetch(
        "SELECT type, payload, partition FROM outbox WHERE key = $1 AND type = $2 ORDER BY id", str(key), name
    )
    return [catalogue.decode(r["type"], r["payload"]) for r in rows]


async def versions_told(orders: Orders, order_id: UUID) -> list[int]:
    changes = await told(orders.shards.of(bucket_of(order_id)), OrderChanged, order_id)
    return [change.order.version for change in changes]


async def counts(shard: Shard, *tables: str) -> list[int]:
    return [await shard.pool.fetchval(f"SELECT count(*) FROM {table}") for table in tables]


EVERYTHING = ("orders", "order_history", "commands", "early_commands", "models", "model_waiters", "outbox")


async def put_model_into_index(orders: Orders, sha256: str) -> None:
    await orders.shards.of(bucket_of_digest(sha256)).pool.execute(
        "INSERT INTO models (sha256, size_bytes) VALUES ($1, 84)", sha256
    )


async def a_priced_order(orders: Orders, **changes: Any) -> Order:
    """An order on shard 0 whose price has just come."""
    sha256 = a_digest()
    await put_model_into_index(orders, sha256)
    request = request_for(sha256, **changes)
    shard = orders.shards.shards[0]
    await handlers.create_orders(orders, shard, [request])
    order, job_id = await stored_order(orders, request.order_id)
    assert job_id is not None
    await handlers.take_prices(orders, shard, [a_price(job_id, order.order_id)])
    return (await stored_order(orders, request.order_id))[0]


def approval(order: Order, **changes: Any) -> Command:
    quote = order.quote or a_quote()
    return a_command(order, Approve(quote.quote_id, quote.amount), PARTNER, **changes)


async def test_an_order_requested_twice_is_created_once(orders: Orders) -> None:
    shard, request = orders.shards.shards[0], request_for()
    await handlers.create_orders(orders, shard, [request, request])
    await handlers.create_orders(orders, shard, [request])
    await asyncio.gather(*(handlers.create_orders(orders, shard, [request]) for _ in range(6)))
    assert (await stored_order(orders, request.order_id))[0].version == 1
    assert len(await history(orders, request.order_id)) == 1
    assert await versions_told(orders, request.order_id) == [1]
    sha256 = request.specification.model.sha256
    assert await told(shard, ModelNeeded, sha256) == [ModelNeeded(sha256, request.order_id, ACCOUNT)]


async def test_of_many_that_create_one_order_at_the_same_time_one_does(orders: Orders) -> None:
    shard, requests = orders.shards.shards[0], [request_for() for _ in range(20)]
    batches = [Random(n).sample(requests, 20) for n in range(8)]
    await asyncio.gather(*(handlers.create_orders(orders, shard, batch) for batch in batches))
    for request in requests:
        assert [o.version for o in await history(orders, request.order_id)] == [1]
        assert await versions_told(orders, request.order_id) == [1]


async def test_a_second_request_of_the_same_id_changes_nothing(orders: Orders) -> None:
    shard, request = orders.shards.shards[0], request_for()
    await handlers.create_orders(orders, shard, [request])
    await handlers.create_orders(orders, shard, [msgspec.structs.replace(request, reference="another")])
    assert (await stored_order(orders, request.order_id))[0].reference == "PO-1"


@pytest.mark.parametrize("model_on", [0, 1])
async def test_an_order_whose_model_is_stored_asks_for_its_price_at_once(orders: Orders, model_on: int) -> None:
    """Also when the model lives on the other shard."""
    shard, sha256 = orders.shards.shards[0], digest_on(model_on)
    await put_model_into_index(orders, sha256)
    request = request_for(sha256)
    await handlers.create_orders(orders, shard, [request, request])
    order, job_id = await stored_order(orders, request.order_id)
    assert job_id == domain.price_job(order)
    async with shard.pool.acquire() as connection:
        (asked,) = await price_jobs.waiting_for(connection, [request.order_id])
    assert (asked.job_id, asked.account, asked.specification, asked.tariff) == (
        job_id,
        ACCOUNT,
        request.specification,
        orders.tariff.version,
    )
    assert await told(shard, ModelNeeded, sha256) == []


async def test_a_large_model_goes_down_the_heavy_lane(orders: Orders) -> None:
    shard = orders.shards.shards[0]
    lanes = {}
    for size in (9_999_999, 10_000_000):
        sha256 = a_digest()
        await put_model_into_index(orders, sha256)
        request = request_for(
            specification=a_specification(model=ModelRef(sha256=sha256, size_bytes=size, name="large.stl"))
        )
        await handlers.create_orders(orders, shard, [request])
        lanes[size] = await shard.pool.fetchval("SELECT lane FROM price_jobs WHERE subject_id = $1", request.order_id)
    assert lanes == {9_999_999: "quick", 10_000_000: "heavy"}


async def test_a_price_counts_once_and_only_for_its_job(orders: Orders) -> None:
    shard, sha256 = orders.shards.shards[0], a_digest()
    await put_model_into_index(orders, sha256)
    request = request_for(sha256)
    await handlers.create_orders(orders, shard, [request])
    job_id = (await stored_order(orders, request.order_id))[1]
    assert job_id is not None
    right = a_price(job_id, request.order_id)
    wrong = a_price(new_id(), request.order_id, "1.00")
    unknown = a_price(new_id(), an_id(), "1.00")
    await handlers.take_prices(orders, shard, [wrong, unknown, right, right, wrong])
    await handlers.take_prices(orders, shard, [right])
    order, job_after = await stored_order(orders, request.order_id)
    assert (order.status, order.version, job_after) == (Status.PRICE_CALCULATED, 2, None)
    assert order.quote is not None
    assert str(order.quote.amount) == "129.50"
    assert await versions_told(orders, request.order_id) == [1, 2]


async def test_a_standing_approval_tells_of_both_steps(orders: Orders) -> None:
    order = await a_priced_order(orders, approve_up_to=a_quote().amount)
    assert order.status is Status.MANUFACTURING_APPROVED
    assert [o.status for o in await history(orders, order.order_id)] == [
        Status.SUBMITTED,
        Status.PRICE_CALCULATED,
        Status.MANUFACTURING_APPROVED,
    ]
    assert await versions_told(orders, order.order_id) == [1, 2, 3]


async def test_a_command_has_one_outcome_however_often_it_comes(orders: Orders) -> None:
    shard, order = orders.shards.shards[0], await a_priced_order(orders)
    command = approval(order)
    await handlers.obey_commands(orders, shard, [command, command])
    await asyncio.gather(*(handlers.obey_commands(orders, shard, [command]) for _ in range(5)))
    (outcome,) = await told(shard, Outcome, order.order_id)
    assert (outcome.command_id, outcome.accepted, outcome.version) == (command.command_id, True, 3)
    assert [o.version for o in await history(orders, order.order_id)] == [1, 2, 3]
    assert (await history(orders, order.order_id))[-1].transition.command_id == command.command_id


async def test_a_refused_command_changes_nothing_and_is_answered(orders: Orders) -> None:
    shard, order = orders.shards.shards[0], await a_priced_order(orders)
    stale = approval(order, seen_version=1)
    await handlers.obey_commands(orders, shard, [stale])
    await handlers.obey_commands(orders, shard, [stale])
    assert (await stored_order(orders, order.order_id))[0] == order
    assert await versions_told(orders, order.order_id) == [1, 2]
    (outcome,) = await told(shard, Outcome, order.order_id)
    assert (outcome.accepted, outcome.code, outcome.version) == (False, "stale", 2)
    assert outcome.detail


async def test_commands_in_one_batch_follow_each_other(orders: Orders) -> None:
    shard, order = orders.shards.shards[0], await a_priced_order(orders)
    approved = domain.obey(order, approval(order), NOON)
    claim = StartManufacturing(new_id())
    await handlers.obey_commands(
        orders, shard, [approval(order), a_command(approved, claim), a_command(approved, claim, OTHER_OPERATOR)]
    )
    outcomes = await told(shard, Outcome, order.order_id)
    assert [(o.accepted, o.version, o.code) for o in outcomes] == [
        (True, 3, None),
        (True, 4, None),
        (False, 4, "wrong_status"),
    ]
    after = (await stored_order(orders, order.order_id))[0]
    assert (after.version, after.maker) == (4, OPERATOR)


async def test_a_command_that_overtook_its_order_is_decided_once_the_order_is_there(orders: Orders) -> None:
    shard, request = orders.shards.shards[0], request_for()
    coming = domain.submit(request, NOON)
    early = [approval(coming) for _ in range(3)]
    await handlers.obey_commands(orders, shard, early)
    await handlers.obey_commands(orders, shard, early)
    assert await told(shard, Outcome, request.order_id) == []
    await handlers.create_orders(orders, shard, [request])
    await handlers.obey_commands(orders, shard, early)
    outcomes = await told(shard, Outcome, request.order_id)
    assert [o.command_id for o in outcomes] == [c.command_id for c in early]
    assert {(o.accepted, o.code) for o in outcomes} == {(False, "wrong_status")}
    left = await shard.pool.fetchval("SELECT count(*) FROM early_commands WHERE order_id = $1", request.order_id)
    assert left == 0


async def test_a_command_that_comes_while_its_order_is_being_created_is_not_forgotten(orders: Orders) -> None:
    """The order's transaction is held up after it has looked for early commands; the command comes just then."""
    shard, request = orders.shards.shards[0], request_for()
    command = approval(domain.submit(request, NOON))
    blocker = await asyncpg.connect(shard.dsn)
    try:
        holding = blocker.transaction()
        await holding.start()
        await blocker.execute("LOCK TABLE order_history IN EXCLUSIVE MODE")
        creating = asyncio.create_task(handlers.create_orders(orders, shard, [request]))

        async def held_up() -> bool:
            return bool(
                await shard.pool.fetchval(
                    "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                    " AND query LIKE '%INSERT INTO order_history%' AND datname = current_database()"
                )
            )

        await wait_for(held_up, 10)
        obeying = asyncio.create_task(handlers.obey_commands(orders, shard, [command]))
        await asyncio.wait([obeying], timeout=0.5)
        await holding.rollback()
        await asyncio.gather(creating, obeying)
    finally:
        await blocker.close()
    outcomes = await told(shard, Outcome, request.order_id)
    assert [o.command_id for o in outcomes] == [command.command_id]


async def test_versions_have_no_gaps_under_concurrent_batches(orders: Orders) -> None:
    """Ten operators take and give back ten orders as fast as they can; each sees what it sees."""
    shard = orders.shards.shards[0]
    ids = [(await a_priced_order(orders, approve_up_to=a_quote().amount)).order_id for _ in range(10)]

    async def operator(number: int) -> None:
        random, actor = Random(number), msgspec.structs.replace(OPERATOR, id=str(number), name=f"Operator {number}")
        for _ in range(6):
            batch = []
            for order_id in random.sample(ids, 5):
                order = (await stored_order(orders, order_id))[0]
                mine = order.maker == actor
                wish: Action = ReleaseClaim(new_id(), "next, please") if mine else StartManufacturing(new_id())
                batch.append(a_command(order, wish, actor))
            await handlers.obey_commands(orders, shard, batch)

    await asyncio.gather(*(operator(n) for n in range(10)))
    accepted = refused = 0
    for order_id in ids:
        order, _ = await stored_order(orders, order_id)
        outcomes = await told(shard, Outcome, order_id)
        accepted += sum(o.accepted for o in outcomes)
        refused += sum(not o.accepted for o in outcomes)
        assert order.version == 3 + sum(o.accepted for o in outcomes)
        assert [o.version for o in outcomes if o.accepted] == list(range(4, order.version + 1))
        steps = await history(orders, order_id)
        assert [s.version for s in steps] == list(range(1, order.version + 1))
        assert all(b.transition.source is a.status for a, b in pairwise(steps))
        assert steps[-1] == order
        assert await versions_told(orders, order_id) == list(range(1, order.version + 1))
    assert accepted + refused == 10 * 6 * 5
    assert accepted >= 10
    assert refused >= 1, "no two operators ever met: this proves nothing"


async def test_what_cannot_be_told_is_not_done(orders: Orders) -> None:
    """Change and message are one transaction: with an outbox that takes nothing there is no order either."""
    shard, request = orders.shards.shards[0], request_for()
    order = await a_priced_order(orders)
    await shard.pool.execute("ALTER TABLE outbox ADD CONSTRAINT nothing CHECK (false) NOT VALID")
    try:
        before = await counts(shard, *EVERYTHING)
        with pytest.raises(asyncpg.CheckViolationError):
            await handlers.create_orders(orders, shard, [request])
        with pytest.raises(asyncpg.CheckViolationError):
            await handlers.obey_commands(orders, shard, [approval(order)])
        assert await counts(shard, *EVERYTHING) == before
        assert (await stored_order(orders, order.order_id))[0] == order
    finally:
        await shard.pool.execute("ALTER TABLE outbox DROP CONSTRAINT nothing")
    await handlers.obey_commands(orders, shard, [approval(order)])
    assert (await stored_order(orders, order.order_id))[0].version == 3


async def put_in_staging(stack: Stack, tmp_path: Path, content: bytes, account: UUID = ACCOUNT) -> ModelUploaded:
    """A file as the partner API's client would have uploaded it, and the message that tells of it."""
    staging = bucket(stack, "partner_api", stack.env("partner_api")["LOSTWAX_STAGING_BUCKET"])
    file = tmp_path / "upload"
    file.write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    key = f"{account}/{sha256}"
    await staging.upload(key, file)
    return ModelUploaded(sha256, len(content), account, staging.name, key)


def model_shard(orders: Orders, sha256: str) -> Shard:
    return orders.shards.of(bucket_of_digest(sha256))


async def test_a_model_that_is_needed_before_it_is_uploaded(orders: Orders, stack: Stack, tmp_path: Path) -> None:
    upload = await put_in_staging(stack, tmp_path, new_id().bytes * 10)
    shard = model_shard(orders, upload.sha256)
    waiting = sorted(an_id(n % 2) for n in range(4))
    for order_id in waiting:
        await model_handlers.answer_need(orders, shard, ModelNeeded(upload.sha256, order_id, ACCOUNT))
        await model_handlers.answer_need(orders, shard, ModelNeeded(upload.sha256, order_id, new_id()))
    assert await told(shard, ModelReady, waiting[0]) == []
    await model_handlers.transfer_model(orders, shard, upload)
    await model_handlers.transfer_model(orders, shard, upload)
    for order_id in waiting:
        assert await told(shard, ModelReady, order_id) == [ModelReady(order_id, upload.sha256)]
        partition = await shard.pool.fetchval("SELECT partition FROM outbox WHERE key = $1", str(order_id))
        assert partition == partition_of(bucket_of(order_id))
    stored = ModelStored(upload.sha256, ACCOUNT, upload.size_bytes)
    assert await told(shard, ModelStored, upload.sha256) == [stored, stored]
    await orders.models.download(upload.sha256, tmp_path / "stored", at_most=upload.size_bytes)
    assert (tmp_path / "stored").read_bytes() == (tmp_path / "upload").read_bytes()


async def test_a_model_that_is_needed_after_it_was_uploaded(orders: Orders, stack: Stack, tmp_path: Path) -> None:
    upload = await put_in_staging(stack, tmp_path, new_id().bytes * 10)
    shard, order_id = model_shard(orders, upload.sha256), an_id()
    await model_handlers.transfer_model(orders, shard, upload)
    await model_handlers.answer_need(orders, shard, ModelNeeded(upload.sha256, order_id, new_id()))
    assert await told(shard, ModelReady, order_id) == [ModelReady(order_id, upload.sha256)]
    assert await shard.pool.fetchval("SELECT count(*) FROM model_waiters WHERE sha256 = $1", upload.sha256) == 0


async def test_needs_and_uploads_at_the_same_time_leave_nobody_waiting(
    orders: Orders, stack: Stack, tmp_path: Path
) -> None:
    for _ in range(5):
        upload = await put_in_staging(stack, tmp_path, new_id().bytes * 10)
        shard, ids = model_shard(orders, upload.sha256), [an_id() for _ in range(8)]
        needs = [model_handlers.answer_need(orders, shard, ModelNeeded(upload.sha256, i, ACCOUNT)) for i in ids]
        await asyncio.gather(*needs[:4], model_handlers.transfer_model(orders, shard, upload), *needs[4:])
        for order_id in ids:
            assert await told(shard, ModelReady, order_id) == [ModelReady(order_id, upload.sha256)]


async def test_a_refused_upload_of_one_account_does_not_fail_anothers_order(
    orders: Orders, stack: Stack, tmp_path: Path
) -> None:
    """A stranger announces our digest and uploads rubbish; our orders wait for our own file."""
    ours = await put_in_staging(stack, tmp_path, new_id().bytes * 10)
    stranger = new_id()
    rubbish = await put_in_staging(stack, tmp_path, b"x" * ours.size_bytes, stranger)
    theirs = msgspec.structs.replace(rubbish, sha256=ours.sha256)
    shard, our_order, their_order = model_shard(orders, ours.sha256), an_id(), an_id()
    await model_handlers.answer_need(orders, shard, ModelNeeded(ours.sha256, our_order, ACCOUNT))
    await model_handlers.answer_need(orders, shard, ModelNeeded(ours.sha256, their_order, stranger))
    await model_handlers.transfer_model(orders, shard, theirs)
    (refusal,) = await told(shard, ModelReady, their_order)
    assert refusal.failure.code == "model_digest_differs"
    assert refusal.failure.mended_by == "customer"
    assert await told(shard, ModelReady, our_order) == []
    later_order, their_later_order = an_id(), an_id()
    await model_handlers.answer_need(orders, shard, ModelNeeded(ours.sha256, later_order, ACCOUNT))
    await model_handlers.answer_need(orders, shard, ModelNeeded(ours.sha256, their_later_order, stranger))
    assert await told(shard, ModelReady, later_order) == []
    (again,) = await told(shard, ModelReady, their_later_order)
    assert again.failure == refusal.failure
    await model_handlers.transfer_model(orders, shard, ours)
    for order_id in (our_order, later_order):
        assert await told(shard, ModelReady, order_id) == [ModelReady(order_id, ours.sha256)]
    assert len(await told(shard, ModelReady, their_order)) == 1


async def test_a_refusal_is_over_with_a_sound_upload(orders: Orders, stack: Stack, tmp_path: Path) -> None:
    upload = await put_in_staging(stack, tmp_path, new_id().bytes * 10)
    shard = model_shard(orders, upload.sha256)
    await model_handlers.transfer_model(orders, shard, msgspec.structs.replace(upload, key=f"{ACCOUNT}/not-there"))
    (missing,) = await told(shard, ModelStored, upload.sha256)
    assert missing.failure.code == "model_missing"
    await model_handlers.transfer_model(orders, shard, upload)
    order_id = an_id()
    await model_handlers.answer_need(orders, shard, ModelNeeded(upload.sha256, order_id, ACCOUNT))
    assert await told(shard, ModelReady, order_id) == [ModelReady(order_id, upload.sha256)]
    assert await shard.pool.fetchval("SELECT count(*) FROM model_refusals WHERE sha256 = $1", upload.sha256) == 0


@pytest.mark.parametrize(
    ("announced", "code"), [(-1, "model_digest_differs"), (2_000_000, "model_too_large")], ids=["longer", "too large"]
)
async def test_other_lengths_are_refused(
    orders: Orders, stack: Stack, tmp_path: Path, announced: int, code: str
) -> None:
    upload = await put_in_staging(stack, tmp_path, new_id().bytes * 10)
    size = announced if announced > 0 else upload.size_bytes + announced
    shard = model_shard(orders, upload.sha256)
    await model_handlers.transfer_model(orders, shard, msgspec.structs.replace(upload, size_bytes=size))
    (stored,) = await told(shard, ModelStored, upload.sha256)
    assert stored.failure.code == code
    assert await counts_of_model(shard, upload.sha256) == 0


async def counts_of_model(shard: Shard, sha256: str) -> int:
    count: int = await shard.pool.fetchval("SELECT count(*) FROM models WHERE sha256 = $1", sha256)
    return count


@pytest.mark.parametrize("failure", [None, NOT_CLOSED])
async def test_a_model_that_is_ready_moves_its_order_once(orders: Orders, failure: Any) -> None:
    shard, request = orders.shards.shards[0], request_for()
    await handlers.create_orders(orders, shard, [request])
    sha256 = request.specification.model.sha256
    ready = ModelReady(request.order_id, sha256, failure)
    other = ModelReady(request.order_id, a_digest(), None if failure else NOT_CLOSED)
    await handlers.take_models(orders, shard, [other, ready, ready, ModelReady(an_id(), sha256)])
    await handlers.take_models(orders, shard, [ready, other])
    order, job_id = await stored_order(orders, request.order_id)
    if failure is None:
        assert (order.status, order.version, job_id) == (Status.SUBMITTED, 1, domain.price_job(order))
        async with shard.pool.acquire() as connection:
            assert [j.job_id for j in await price_jobs.waiting_for(connection, [order.order_id])] == [job_id]
    else:
        assert (order.status, order.version, order.failure, job_id) == (Status.PRICE_FAILED, 2, failure, None)


async def test_nothing_is_written_to_buckets_of_another_shard(orders: Orders) -> None:
    """Every use case that writes, on the shard that does not own the order or the model."""
    wrong, foreign, foreign_model = orders.shards.shards[1], an_id(0), digest_on(0)
    request = request_for(order_id=foreign)
    order = an_order(order_id=foreign)
    before = await counts(wrong, *EVERYTHING)
    uploaded = ModelUploaded(foreign_model, 84, ACCOUNT, "staging-partner-api", "gone")
    mixed = [request_for(order_id=an_id(1)), request]
    for work in (
        handlers.create_orders(orders, wrong, [request]),
        handlers.create_orders(orders, wrong, mixed),
        handlers.obey_commands(orders, wrong, [approval(order)]),
        handlers.take_prices(orders, wrong, [a_price(new_id(), foreign)]),
        handlers.take_models(orders, wrong, [ModelReady(foreign, foreign_model)]),
        model_handlers.answer_need(orders, wrong, ModelNeeded(foreign_model, an_id(1), ACCOUNT)),
        model_handlers.transfer_model(orders, wrong, uploaded),
    ):
        with pytest.raises(NotOwner):
            await work
    assert await counts(wrong, *EVERYTHING) == before


def incoming(bodies: Sequence[Any]) -> list[Incoming]:
    return [
        Incoming("t", 0, offset, "k", catalogue.type_of(body).name, "partner_api", str(new_id()), None, body)
        for offset, body in enumerate(bodies)
    ]


async def test_the_worker_sends_each_message_to_its_shard_and_follows_a_bucket_that_moved(orders: Orders) -> None:
    handle = worker.routes(orders)[topics.ORDER_REQUESTS]
    here, there = request_for(order_id=an_id(0)), request_for(order_id=an_id(1))
    await handle(incoming([here, there]))
    assert (await stored_order(orders, here.order_id))[0].version == 1
    assert (await stored_order(orders, there.order_id))[0].version == 1

    moving = request_for(order_id=an_id(0))
    one, other = (shard.pool for shard in orders.shards.shards)
    move = "UPDATE bucket_owner SET state = $2, epoch = epoch + 1 WHERE bucket = $1"
    number = bucket_of(moving.order_id)
    await one.execute(move, number, "away")
    await other.execute(move, number, "owned")
    try:
        with pytest.raises(Later):
            await handle(incoming([moving]))
        await handle(incoming([moving]))
        assert await other.fetchval("SELECT version FROM orders WHERE order_id = $1", moving.order_id) == 1
        assert await one.fetchval("SELECT count(*) FROM orders WHERE order_id = $1", moving.order_id) == 0
    finally:
        await other.execute(move, number, "away")
        await one.execute(move, number, "owned")
        await orders.shards.reload()


async def test_a_transfer_out_of_anything_but_staging_is_poison(orders: Orders) -> None:
    handle = worker.routes(orders)[topics.MODEL_TRANSFERS]
    uploaded = ModelUploaded(a_digest(), 84, ACCOUNT, "models", "somebody-elses")
    with pytest.raises(Poison) as caught:
        await handle(incoming([uploaded]))
    assert caught.value.code == "not_staging"


async def test_two_shards_share_all_buckets_without_overlap(orders: Orders) -> None:
    owned: Counter[int] = Counter()
    for shard in orders.shards.shards:
        rows = await shard.pool.fetch("SELECT bucket FROM bucket_owner WHERE state = 'owned'")
        owned.update(r["bucket"] for r in rows)
        assert {first_owner(r["bucket"], 2) for r in rows} == {shard.number}
    assert owned == Counter(range(1024))


async def obeyed(orders: Orders, order: Order, action: Action, actor: Any) -> tuple[Order, UUID | None]:
    """The order, and its price job, after a command by somebody who saw it as it is."""
    shard = orders.shards.of(bucket_of(order.order_id))
    await handlers.obey_commands(orders, shard, [a_command(order, action, actor)])
    return await stored_order(orders, order.order_id)


async def test_a_price_that_comes_during_a_hold_is_applied_when_the_hold_ends(orders: Orders) -> None:
    sha256 = a_digest()
    await put_model_into_index(orders, sha256)
    request = request_for(sha256)
    shard = orders.shards.shards[0]
    await handlers.create_orders(orders, shard, [request])
    order, job = await stored_order(orders, request.order_id)
    assert job is not None
    held, still = await obeyed(orders, order, Hold("the customer travels"), SELLER)
    assert (held.status, still) == (Status.ON_HOLD, job)
    await handlers.take_prices(orders, shard, [a_price(new_id(), order.order_id), a_price(job, order.order_id)])
    assert (await stored_order(orders, order.order_id))[0] == held, "a hold shows nothing of the price"
    resumed, over = await obeyed(orders, held, Resume(), SELLER)
    assert (resumed.status, resumed.version, over) == (Status.PRICE_CALCULATED, 4, None)
    assert resumed.quote is not None
    assert resumed.quote.quote_id == job
    assert [o.status for o in await history(orders, order.order_id)] == [
        Status.SUBMITTED,
        Status.ON_HOLD,
        Status.SUBMITTED,
        Status.PRICE_CALCULATED,
    ]


async def test_a_model_that_fails_during_a_hold_fails_the_price_when_the_hold_ends(orders: Orders) -> None:
    request = request_for()
    shard = orders.shards.shards[0]
    await handlers.create_orders(orders, shard, [request])
    order, _ = await stored_order(orders, request.order_id)
    held, _ = await obeyed(orders, order, Hold("wait"), SELLER)
    sha256 = request.specification.model.sha256
    await handlers.take_models(orders, shard, [ModelReady(order.order_id, sha256, NOT_CLOSED)])
    resumed, _ = await obeyed(orders, held, Resume(), SELLER)
    assert (resumed.status, resumed.failure) == (Status.PRICE_FAILED, NOT_CLOSED)


async def test_a_resubmitted_order_asks_for_its_model_and_the_old_price_does_not_count(orders: Orders) -> None:
    priced = await a_priced_order(orders)
    assert priced.quote is not None
    wanted = a_specification(alloy="platinum-950")
    again, job = await obeyed(orders, priced, Resubmit(wanted), PARTNER)
    assert (again.status, again.quote, job) == (Status.SUBMITTED, None, None)
    shard = orders.shards.shards[0]
    (needed,) = await told(shard, ModelNeeded, wanted.model.sha256)
    assert needed.order_id == priced.order_id
    await handlers.take_prices(orders, shard, [a_price(priced.quote.quote_id, priced.order_id)])
    assert (await stored_order(orders, priced.order_id))[0] == again, "a price for the replaced order was taken"
    await handlers.take_models(orders, shard, [ModelReady(priced.order_id, wanted.model.sha256)])
    _, job = await stored_order(orders, priced.order_id)
    assert job is not None
    assert job != priced.quote.quote_id
    await handlers.take_prices(orders, shard, [a_price(job, priced.order_id, "140.00")])
    final, _ = await stored_order(orders, priced.order_id)
    assert final.quote is not None
    assert (final.status, final.quote.quote_id) == (Status.PRICE_CALCULATED, job)


async def test_a_command_in_somebody_elses_name_is_poison(orders: Orders) -> None:
    priced = await a_priced_order(orders)
    handle = worker.routes(orders)[topics.ORDER_COMMANDS]
    (forged,) = incoming([a_command(priced, Cancel("ha"), SELLER)])
    with pytest.raises(Poison, match="partner_api may not speak for a seller"):
        await handle([forged])
    assert (await stored_order(orders, priced.order_id))[0] == priced


async def test_a_command_whose_order_never_comes_is_a_dead_letter_in_the_end(orders: Orders, stack: Stack) -> None:
    shard = orders.shards.shards[0]
    order = an_order(Status.PRICE_CALCULATED, order_id=an_id())
    handle = worker.routes(orders)[topics.ORDER_COMMANDS]
    wish = approval(order)
    await handle(incoming([wish]))
    publisher = Publisher(stack.env("orders")["LOSTWAX_KAFKA_BOOTSTRAP"], client_id="test")
    assert await parking.give_up_on(orders, shard, publisher, older_than_s=3600) == 0
    await shard.pool.execute(
        "UPDATE early_commands SET received_at = received_at - interval '2 h' WHERE order_id = $1", order.order_id
    )
    assert await parking.give_up_on(orders, shard, publisher, older_than_s=3600) == 1
    assert await shard.pool.fetchval("SELECT count(*) FROM early_commands WHERE order_id = $1", order.order_id) == 0
    letters = await asyncio.to_thread(
        dead.read, stack.env("orders")["LOSTWAX_KAFKA_BOOTSTRAP"], [topics.ORDER_COMMANDS]
    )
    mine = [x for x in letters[topics.ORDER_COMMANDS].open.values() if x.subject == str(order.order_id)]
    assert [x.reason for x in mine] == ["order_never_came"]
    assert catalogue.decode("orders.command.v1", mine[0].value or b"") == wish
    await dead.discard(publisher, topics.ORDER_COMMANDS, mine, "of a test", tell=False, by="test", at=NOON)
