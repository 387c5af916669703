"""Models that nothing needs: marked, kept through their grace, removed; who needs one again in time keeps it."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from uuid import UUID

import httpx
import pytest
from tests.builders import (
    ACCOUNT,
    NOON,
    a_model_file,
    a_quote_request,
    a_request,
    a_specification,
    service_token,
    wait_for,
)
from tests.conftest import NewDatabase

import lostwax.orders
from lostwax.contracts import catalogue
from lostwax.contracts.ids import bucket_of, bucket_of_digest, new_id
from lostwax.contracts.models import MODEL_REMOVED, ModelNeeded, ModelReferenced, ModelStored, ModelUploaded
from lostwax.contracts.orders import ModelReady, ModelRef
from lostwax.contracts.quotes import KEPT
from lostwax.kit.clock import utc_now
from lostwax.kit.objects import Bucket, S3Settings, StorageAway
from lostwax.kit.postgres import open_pool, session_lock
from lostwax.kit.shards import Shard, ShardMap, assign_first_buckets
from lostwax.local.stack import Stack
from lostwax.orders import changes, grace, handlers, model_handlers, models_store, quote_handlers
from lostwax.orders.changes import Orders

GRACE = timedelta(days=30)


class Clock:
    now = NOON


@pytest.fixture(scope="module")
async def orders(stack: Stack, new_database: NewDatabase) -> AsyncIterator[Orders]:
    """The use cases on two fresh shards; `Clock.now` is what their clock says."""
    shards = []
    for number in range(2):
        dsn = await new_database(Path(lostwax.orders.__file__).parent / "migrations")
        pool = await open_pool(dsn, name="test", size=6)
        async with pool.acquire() as connection:
            await assign_first_buckets(connection, number, 2)
        shards.append(Shard(number, dsn, pool))
    env = stack.env("orders")
    settings = S3Settings(*(env[f"LOSTWAX_S3_{n}"] for n in ("ENDPOINT", "ACCESS_KEY", "SECRET_KEY")))
    yield Orders(
        ShardMap(shards),
        models=Bucket(settings, env["LOSTWAX_MODELS_BUCKET"]),
        staging=lambda name: Bucket(settings, name),
        tariff=changes.load_tariff("2026-11"),
        now=lambda: Clock.now,
        largest_model_bytes=1_000_000,
    )
    for shard in shards:
        await shard.pool.close()


@pytest.fixture(autouse=True)
def at_noon(orders: Orders) -> None:
    Clock.now = NOON
    orders.known_models.clear()


def home(orders: Orders, sha256: str) -> Shard:
    return orders.shards.of(bucket_of_digest(sha256))


async def a_stored_model(orders: Orders, tmp_path: Path) -> str:
    """Stored a day before NOON, as if by an upload of ACCOUNT's; needed by nobody."""
    content = a_model_file()
    digest = hashlib.sha256(content).hexdigest()
    path = tmp_path / digest
    path.write_bytes(content)
    shard = home(orders, digest)
    assert await model_handlers.put_model(orders, shard, digest, len(content), path)
    await shard.pool.execute("UPDATE models SET stored_at = $2 WHERE sha256 = $1", digest, NOON - timedelta(days=1))
    await shard.pool.execute("INSERT INTO model_uploads VALUES ($1, $2, 1)", digest, ACCOUNT)
    return digest


async def sweep_at(orders: Orders, now: datetime) -> None:
    Clock.now = now
    for shard in orders.shards.shards:
        assert await grace.sweep(orders, shard, GRACE)


async def remove_after(orders: Orders, sha256: str) -> datetime | None:
    async with home(orders, sha256).pool.acquire() as connection:
        found = await models_store.stored_model(connection, sha256)
    assert found is not None
    return found.remove_after


async def is_there(orders: Orders, sha256: str) -> tuple[bool, bool]:
    """In the index, and in the file storage."""
    async with home(orders, sha256).pool.acquire() as connection:
        indexed = bool(await models_store.stored_models(connection, [sha256]))
    return indexed, await orders.models.size(sha256) is not None


async def iter_of_megabytes(count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield bytes(1_000_000)


async def told_of(orders: Orders, sha256: str) -> list[ModelStored]:
    rows = await home(orders, sha256).pool.fetch(
        "SELECT type, payload FROM outbox WHERE topic = 'models.stored' AND key = $1 ORDER BY id", sha256
    )
    return [catalogue.decode(r["type"], r["payload"]) for r in rows]


async def test_a_model_goes_after_its_grace_and_its_channel_is_told(orders: Orders, tmp_path: Path) -> None:
    digest = await a_stored_model(orders, tmp_path)
    await sweep_at(orders, NOON)
    assert await remove_after(orders, digest) == NOON + GRACE
    await sweep_at(orders, NOON + GRACE - timedelta(seconds=1))
    assert await is_there(orders, digest) == (True, True)
    await sweep_at(orders, NOON + GRACE + timedelta(seconds=1))
    assert await is_there(orders, digest) == (False, False)
    (told,) = await told_of(orders, digest)
    assert told.failure is not None
    assert (told.account, told.failure.code, told.upload) == (ACCOUNT, MODEL_REMOVED, 1)
    await sweep_at(orders, NOON + 3 * GRACE)
    assert len(await told_of(orders, digest)) == 1


async def test_whoever_needs_it_in_time_keeps_it(orders: Orders, tmp_path: Path) -> None:
    ordered, needed, quoted, uploaded = [await a_stored_model(orders, tmp_path) for _ in range(4)]
    await sweep_at(orders, NOON)
    late = NOON + GRACE - timedelta(hours=1)
    Clock.now = late
    await model_handlers.keep_referenced(
        orders, home(orders, ordered), ModelReferenced(sha256=ordered, account=ACCOUNT, kind="order")
    )
    await model_handlers.answer_need(orders, home(orders, needed), ModelNeeded(needed, new_id(), ACCOUNT))
    until = late + timedelta(days=14)
    await model_handlers.keep_referenced(
        orders, home(orders, quoted), ModelReferenced(sha256=quoted, account=ACCOUNT, kind="quote", until=until)
    )
    # Told again with an earlier end, it is not shortened.
    await model_handlers.keep_referenced(
        orders, home(orders, quoted), ModelReferenced(sha256=quoted, account=ACCOUNT, kind="quote", until=late)
    )
    path = tmp_path / uploaded
    assert not await model_handlers.put_model(orders, home(orders, uploaded), uploaded, path.stat().st_size, path)
    assert [await remove_after(orders, d) for d in (ordered, needed, quoted, uploaded)] == [None] * 4
    await sweep_at(orders, NOON + GRACE + timedelta(hours=1))
    assert [await is_there(orders, d) for d in (ordered, needed, quoted)] == [(True, True)] * 3
    # The quote runs out, and its model's grace begins; an order's is for ever.
    await sweep_at(orders, until + timedelta(hours=1))
    assert await remove_after(orders, quoted) == until + timedelta(hours=1) + GRACE
    await sweep_at(orders, until + 40 * GRACE)
    assert [await is_there(orders, d) for d in (ordered, needed, quoted)] == [(True, True)] * 2 + [(False, False)]


async def test_an_order_of_which_the_store_was_not_told_keeps_its_model(orders: Orders, tmp_path: Path) -> None:
    """Its reference still waits in another shard's outbox, or it is from before there were references."""
    digest = await a_stored_model(orders, tmp_path)
    await sweep_at(orders, NOON)
    other = next(s for s in orders.shards.shards if s is not home(orders, digest))
    order_id = next(i for i in iter(new_id, None) if orders.shards.of(i.int & 1023) is other)
    specification = a_specification(model=ModelRef(sha256=digest, size_bytes=84, name="ring.stl"))
    orders.known_models.add(digest)
    await handlers.create_orders(orders, other, [a_request(order_id=order_id, specification=specification)])
    await sweep_at(orders, NOON + 2 * GRACE)
    assert await is_there(orders, digest) == (True, True)
    assert await remove_after(orders, digest) is None


async def test_a_marked_model_is_not_taken_for_surely_stored(orders: Orders, tmp_path: Path) -> None:
    """An order of it asks, and so keeps it; the memory of an order's process must not pass that by."""
    digest = await a_stored_model(orders, tmp_path)
    assert await changes.stored_models(orders, {digest}) == {digest}
    orders.known_models.clear()
    await sweep_at(orders, NOON)
    assert await changes.stored_models(orders, {digest}) == set()


async def test_a_crash_between_index_and_file_is_made_good(
    orders: Orders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await sweep_at(orders, NOON + 2 * GRACE)  # what other tests have left
    digest = await a_stored_model(orders, tmp_path)
    await sweep_at(orders, NOON)

    delete = orders.models.delete

    async def away(sha256: str) -> None:
        if sha256 == digest:  # other tests' models may be due too
            raise StorageAway("away")
        await delete(sha256)

    Clock.now = NOON + 2 * GRACE
    with monkeypatch.context() as storage:
        storage.setattr(orders.models, "delete", away)
        with pytest.raises(StorageAway):
            await grace.sweep(orders, home(orders, digest), GRACE)
    assert await is_there(orders, digest) == (False, True)
    # Nobody stores a file of this digest while the old one may still be deleted under it.
    with pytest.raises(StorageAway):
        await model_handlers.put_model(orders, home(orders, digest), digest, 84, tmp_path / digest)
    await sweep_at(orders, NOON + 2 * GRACE)
    assert await is_there(orders, digest) == (False, False)
    assert await model_handlers.put_model(orders, home(orders, digest), digest, 84, tmp_path / digest)
    assert await is_there(orders, digest) == (True, True)


async def test_a_model_that_is_removed_while_it_is_stored_again_is_stored_whole(orders: Orders, tmp_path: Path) -> None:
    digest = await a_stored_model(orders, tmp_path)
    shard, size = home(orders, digest), (tmp_path / digest).stat().st_size
    await sweep_at(orders, NOON)
    async with shard.pool.acquire() as removing:
        transaction = removing.transaction()
        await transaction.start()
        await models_store.lock_model(removing, digest)
        storing = asyncio.create_task(model_handlers.put_model(orders, shard, digest, size, tmp_path / digest))
        waits = "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)"
        await wait_for(lambda: shard.pool.fetchval(waits))
        # It has seen the model stored, and so has copied nothing; now the model goes, file and all.
        gone = await models_store.begin_removal(removing, digest, grace.REMOVED, NOON + 2 * GRACE)
        assert gone == [(ACCOUNT, 1, size)]
        await orders.models.delete(digest)
        await models_store.end_removal(removing, digest)
        await transaction.commit()
    assert await storing
    assert await is_there(orders, digest) == (True, True)


async def test_orders_of_a_removed_model_are_told_so_and_those_of_a_later_upload_wait(
    orders: Orders, tmp_path: Path
) -> None:
    digest = await a_stored_model(orders, tmp_path)
    shard = home(orders, digest)
    await sweep_at(orders, NOON)
    await sweep_at(orders, NOON + 2 * GRACE)
    earlier, later = new_id(), new_id()
    await model_handlers.answer_need(orders, shard, ModelNeeded(digest, later, ACCOUNT, 2))
    await model_handlers.answer_need(orders, shard, ModelNeeded(digest, earlier, ACCOUNT, 1))
    (ready,) = await answers_to(shard, earlier)
    assert ready.failure is not None
    assert (ready.failure.code, ready.upload) == (MODEL_REMOVED, 1)
    refused = ModelUploaded(digest, 84, ACCOUNT, "staging-partner-api", "not/there", 1)
    await model_handlers.transfer_model(orders, shard, refused)
    assert await answers_to(shard, later) == []
    assert await model_handlers.put_model(orders, shard, digest, 84, tmp_path / digest)
    assert await answers_to(shard, later) == [ModelReady(later, digest)]


async def answers_to(shard: Shard, order_id: UUID) -> list[ModelReady]:
    rows = await shard.pool.fetch("SELECT type, payload FROM outbox WHERE key = $1 ORDER BY id", str(order_id))
    return [catalogue.decode(r["type"], r["payload"]) for r in rows]


async def test_orders_of_one_model_refer_to_it_by_one_message(orders: Orders, tmp_path: Path) -> None:
    digest = await a_stored_model(orders, tmp_path)
    specification = a_specification(model=ModelRef(sha256=digest, size_bytes=84, name="ring.stl"))
    for _ in range(4):
        request = a_request(specification=specification)
        await handlers.create_orders(orders, orders.shards.of(bucket_of(request.order_id)), [request])
    counts = [
        await s.pool.fetchval("SELECT count(*) FROM outbox WHERE topic = 'models.transfers' AND key = $1", digest)
        for s in orders.shards.shards
    ]
    assert sum(counts) == 1


async def test_one_process_sweeps_at_a_time(orders: Orders) -> None:
    shard = orders.shards.shards[0]
    async with shard.pool.acquire() as other, session_lock(other, models_store.SWEEPING_LOCK) as got:
        assert got
        assert not await grace.sweep(orders, shard, GRACE)
    assert await grace.sweep(orders, shard, GRACE)


async def test_services_read_and_write_models_as_they_are_entitled(stack: Stack) -> None:
    content = a_model_file()
    digest = hashlib.sha256(content).hexdigest()

    def of(service: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {service_token(stack, service, 'orders')}"}

    path = f"/v1/models/{digest}"
    async with httpx.AsyncClient(base_url=stack.url("orders"), timeout=20) as http:
        assert (await http.put(path, content=content, headers=of("mes"))).status_code == 403
        assert (await http.put(path, content=content, headers=of("pricing"))).status_code == 403
        other = await http.put(path, content=content + b" ", headers=of("partner_api"))
        assert (other.status_code, other.json()["type"]) == (422, "/problems/digest-differs")
        assert (await http.get(path, headers=of("mes"))).status_code == 404
        assert (await http.put(path, content=content, headers=of("partner_api"))).status_code == 201
        assert (await http.put(path, content=content, headers=of("crm"))).status_code == 200
        seen = (await http.get(path, headers=of("mes"))).json()
        assert (seen["size_bytes"], seen["references"], seen["remove_after"]) == (len(content), [], None)
        link = (await http.get(f"{path}/link", headers=of("mes"))).json()["url"]
        assert (await http.get(link)).content == content
        too_large = await http.put(path, content=iter_of_megabytes(65), headers=of("partner_api"))
        assert too_large.status_code == 413


async def test_quotes_are_forgotten_when_they_are_long_over_and_not_taken_up_again(orders: Orders) -> None:
    asked = [a_quote_request(a_specification(), requested_at=utc_now()) for _ in range(8)]

    async def take_up() -> None:
        for shard in orders.shards.shards:
            own = [request for request in asked if orders.shards.of(bucket_of(request.quote_id)) is shard]
            await quote_handlers.create_quotes(orders, shard, own)

    async def there() -> int:
        return sum([await shard.pool.fetchval("SELECT count(*) FROM quotes") for shard in orders.shards.shards])

    Clock.now = utc_now()
    await take_up()
    await sweep_at(orders, utc_now() + KEPT - timedelta(minutes=1))
    assert await there() == 8
    await sweep_at(orders, utc_now() + KEPT + timedelta(minutes=1))
    await take_up()
    assert await there() == 0
