"""Lists in Redis and lists from the database are the same lists, whatever is changed, rebuilt or flushed meanwhile.
In-process, on a database and a Redis database of their own."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, date, timedelta
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

import msgspec
import pytest
import redis.asyncio
from tests.builders import NOON, OPERATOR, OTHER_OPERATOR, a_specification, an_order, wait_for
from tests.conftest import NewDatabase

import lostwax.mes
from lostwax.contracts.ids import new_id
from lostwax.contracts.orders import Order, Outcome, Status
from lostwax.contracts.staff import Role
from lostwax.kit.auth import Member
from lostwax.kit.postgres import Connection, open_pool
from lostwax.kit.problems import Problem
from lostwax.local.stack import Stack
from lostwax.mes import domain, handlers, store
from lostwax.mes.clients import Lists
from lostwax.mes.domain import Card, ListName, Placed
from lostwax.mes.handlers import Workshop

MIGRATIONS = Path(lostwax.mes.__file__).parent / "migrations"
LISTED = (Status.MANUFACTURING_APPROVED, Status.REWORK, Status.MANUFACTURING_COMPLETED, Status.PACKAGING)
UNLISTED = (Status.SUBMITTED, Status.PRICE_CALCULATED, Status.MANUFACTURING_STARTED, Status.SHIPPED, Status.CANCELLED)


@pytest.fixture(scope="module")
def redis_url(stack: Stack) -> str:
    """A Redis database that no service uses."""
    return stack.env("mes")["LOSTWAX_REDIS_URL"].rpartition("/")[0] + "/9"


class OwnWorkshop(Workshop):
    dsn: str


@pytest.fixture
async def workshop(new_database: NewDatabase, redis_url: str) -> AsyncIterator[OwnWorkshop]:
    dsn = await new_database(MIGRATIONS)
    pool = await open_pool(dsn, name="test", size=8)
    lists = Lists(redis_url, dsn, pool, handlers.STANDINGS)
    made = OwnWorkshop(pool, lists, now=lambda: NOON)
    made.dsn = dsn
    running = asyncio.create_task(lists.run())
    await wait_for(lambda: lists.trusted)
    yield made
    assert not running.done()
    running.cancel()
    await lists.close()
    await pool.close()
    client: Any = redis.asyncio.from_url(redis_url)
    await client.flushdb()
    await client.aclose()


async def pages(workshop: Workshop, list_name: ListName, limit: int, source: str) -> list[Card]:
    """A whole list, page by page, as the API walks through it."""
    cards: list[Card] = []
    while True:
        after = (cards[-1].due_at.astimezone(UTC), cards[-1].order_id) if cards else None
        if source == "redis":
            page, came_from = await handlers.list_page(workshop, list_name, after, limit)
            assert came_from == "redis"
        else:
            async with workshop.pool.acquire() as connection:
                page = [p.card for p in await store.page(connection, list_name.value, after, limit)]
        cards += page
        assert len({card.order_id for card in cards}) == len(cards)
        if len(page) < limit:
            return cards


async def both(workshop: Workshop, limit: int = 200) -> dict[ListName, list[Card]]:
    """Every list, the same from both sources, in order, each order once."""
    found = {}
    for name in ListName:
        from_redis = await pages(workshop, name, limit, "redis")
        from_database = await pages(workshop, name, limit, "database")
        assert from_redis == from_database
        keys = [(card.due_at, card.order_id) for card in from_redis]
        assert keys == sorted(set(keys))
        found[name] = from_redis
    return found


def orders_of_a_day(count: int, seed: int) -> list[Order]:
    """Orders whose due dates are equal, a millisecond apart, and far apart."""
    random = Random(seed)
    return [
        an_order(
            random.choice(LISTED + UNLISTED),
            approved_at=NOON + timedelta(milliseconds=random.choice((0, 1, 2, 3, random.randrange(10**9)))),
            submitted_at=NOON + timedelta(milliseconds=random.randrange(5)),
            specification=a_specification(deadline=random.choice((None, date(2026, 11, 9)))),
        )
        for _ in range(count)
    ]


@pytest.mark.parametrize("limit", [1, 7, 200])
async def test_pages_of_any_size_give_the_same_from_both_sources(workshop: Workshop, limit: int) -> None:
    orders = orders_of_a_day(120, seed=limit)
    await handlers.take_changes(workshop, orders)
    found = await both(workshop, limit)
    shown = {card.order_id for cards in found.values() for card in cards}
    assert shown == {o.order_id for o in orders if o.status in LISTED}
    assert {c.order_id for c in found[ListName.PACKING]} == {
        o.order_id for o in orders if o.status is Status.MANUFACTURING_COMPLETED
    }


async def test_due_dates_a_millisecond_apart_keep_their_order(workshop: Workshop) -> None:
    orders = [an_order(Status.MANUFACTURING_APPROVED, approved_at=NOON + timedelta(milliseconds=n)) for n in range(300)]
    Random(1).shuffle(orders)
    await handlers.take_changes(workshop, orders)
    queue = (await both(workshop))[ListName.QUEUE]
    assert [c.due_at for c in queue] == [NOON + domain.PROMISE + timedelta(milliseconds=n) for n in range(300)]


async def test_an_order_moves_from_list_to_list_and_never_back_to_an_older_one(workshop: Workshop) -> None:
    order = an_order(Status.MANUFACTURING_APPROVED)
    steps = [
        msgspec.structs.replace(order, version=3 + n, status=status)
        for n, status in enumerate(
            (
                Status.MANUFACTURING_APPROVED,
                Status.MANUFACTURING_STARTED,
                Status.MANUFACTURING_COMPLETED,
                Status.PACKAGING,
                Status.SHIPPED,
            )
        )
    ]
    expected = (ListName.QUEUE, None, ListName.PACKING, ListName.SHIPPING, None)
    for step, name in zip(steps, expected, strict=True):
        await handlers.take_changes(workshop, [step])
        await handlers.take_changes(workshop, steps[: steps.index(step)])  # told again, late
        found = await both(workshop)
        assert [n for n, cards in found.items() if cards] == ([name] if name else [])
        if name:
            assert [c.version for c in found[name]] == [step.version]


async def test_an_older_view_that_is_late_on_its_way_to_redis_changes_nothing(workshop: Workshop) -> None:
    """Two readers saw the order one after the other; the one that saw less gets there last."""
    order = an_order(Status.MANUFACTURING_APPROVED)
    await handlers.take_changes(workshop, [order])
    async with workshop.pool.acquire() as connection:
        (older,) = await store.placed(connection, [order.order_id])
    (ada,) = await operators(workshop, "Ada")
    await handlers.claim_order(workshop, ada, order.order_id)
    await workshop.lists.show([older])
    assert (await both(workshop))[ListName.QUEUE] == []
    made = msgspec.structs.replace(order, version=5, status=Status.MANUFACTURING_COMPLETED)
    await handlers.take_changes(workshop, [made])
    await workshop.lists.show([older])
    found = await both(workshop)
    assert (found[ListName.QUEUE], len(found[ListName.PACKING])) == ([], 1)


async def test_a_batch_in_any_order_leaves_the_newest_version(workshop: Workshop) -> None:
    orders = [an_order(Status.MANUFACTURING_APPROVED) for _ in range(10)]
    versions = [msgspec.structs.replace(o, version=v, reference=f"{v}") for o in orders for v in range(3, 20)]
    Random(2).shuffle(versions)
    await asyncio.gather(*(handlers.take_changes(workshop, versions[n::5]) for n in range(5)))
    queue = (await both(workshop))[ListName.QUEUE]
    assert [c.version for c in queue] == [19] * 10


async def test_a_change_in_the_middle_of_a_rebuild_goes_to_what_is_being_built(
    workshop: OwnWorkshop, redis_url: str
) -> None:
    """The snapshot has been taken and is half read when orders change; nothing tells of them again."""
    orders = [an_order(Status.MANUFACTURING_APPROVED) for _ in range(20)]
    await handlers.take_changes(workshop, orders)
    changed = [
        msgspec.structs.replace(o, version=5, status=Status.SHIPPED if n % 2 else Status.PACKAGING)
        for n, o in enumerate(orders)
    ]
    held_up = 0

    async def with_changes_in_the_middle(connection: Connection) -> AsyncIterator[Placed]:
        nonlocal held_up
        async for one in store.all_on_lists(connection):
            held_up += 1
            if held_up == 10:
                await handlers.take_changes(workshop, changed)
            yield one

    standings = msgspec.structs.replace(handlers.STANDINGS, everything=with_changes_in_the_middle)
    workshop.lists = Lists(redis_url, workshop.dsn, workshop.pool, standings)
    rebuilding = asyncio.create_task(workshop.lists.run())
    try:
        await wait_for(lambda: workshop.lists.rebuilds and workshop.lists.trusted)
        assert held_up == 20
        found = await both(workshop)
        assert {c.order_id for c in found[ListName.SHIPPING]} == {o.order_id for o in orders[::2]}
        assert found[ListName.QUEUE] == []
    finally:
        rebuilding.cancel()
        await workshop.lists.close()


async def test_changes_during_rebuilds_are_not_lost(workshop: Workshop, redis_url: str) -> None:
    orders = {o.order_id: o for o in orders_of_a_day(150, seed=5)}
    await handlers.take_changes(workshop, list(orders.values()))
    random, before, changing = Random(6), workshop.lists.rebuilds, True

    async def change(some: list[UUID]) -> None:
        while changing:
            for order_id in random.sample(some, 5):
                orders[order_id] = msgspec.structs.replace(
                    orders[order_id],
                    version=orders[order_id].version + 1,
                    status=random.choice(LISTED + UNLISTED),
                )
            await handlers.take_changes(workshop, [orders[i] for i in some])

    ids = list(orders)
    workers = [asyncio.create_task(change(ids[n::3])) for n in range(3)]
    client: Any = redis.asyncio.from_url(redis_url)
    try:
        for _ in range(6):
            rebuilds = workshop.lists.rebuilds
            await client.flushdb()
            await handlers.list_page(workshop, ListName.QUEUE, None, 1)
            await wait_for(lambda n=rebuilds: workshop.lists.rebuilds > n)
    finally:
        changing = False
        await asyncio.gather(*workers)
    assert workshop.lists.rebuilds >= before + 6
    await wait_for(lambda: workshop.lists.trusted)
    found = await both(workshop)
    shown = {card.order_id: card.version for cards in found.values() for card in cards}
    assert shown == {i: o.version for i, o in orders.items() if o.status in LISTED}

    async def one_generation() -> bool:
        keys = [key.decode() async for key in client.scan_iter(match="mes.lists:*")]
        return len({key.split(":")[1] for key in keys} - {"current"}) == 1

    await wait_for(one_generation, 5)
    await client.aclose()


async def test_a_change_that_finds_no_lists_has_them_built_though_nobody_looks(
    workshop: Workshop, redis_url: str
) -> None:
    rebuilds = workshop.lists.rebuilds
    client: Any = redis.asyncio.from_url(redis_url)
    await client.flushdb()
    await client.aclose()
    await handlers.take_changes(workshop, orders_of_a_day(5, seed=8))
    await wait_for(lambda: workshop.lists.rebuilds > rebuilds)


async def test_while_redis_is_not_to_be_trusted_the_database_answers_the_same(
    workshop: Workshop, redis_url: str
) -> None:
    await handlers.take_changes(workshop, orders_of_a_day(60, seed=7))
    before = await both(workshop)
    client: Any = redis.asyncio.from_url(redis_url)
    await client.flushdb()
    await client.aclose()
    cards, source = await handlers.list_page(workshop, ListName.QUEUE, None, 200)
    assert source == "database"
    assert cards == before[ListName.QUEUE]
    await wait_for(lambda: workshop.lists.trusted)
    assert await both(workshop) == before


# -- claims -----------------------------------------------------------------------------------------------------------


async def operators(workshop: Workshop, *names: str) -> list[Member]:
    members = [Member(new_id(), name, Role.OPERATOR, 1) for name in names]
    for member in members:
        await handlers.account(workshop, member)
    return members


def accepted(command_id: UUID, order: Order) -> Outcome:
    return Outcome(command_id, order.order_id, True, order.version, order.status, NOON)


async def states(workshop: Workshop, order_id: UUID) -> list[str]:
    rows = await workshop.pool.fetch("SELECT state FROM claims WHERE order_id = $1 ORDER BY claimed_at", order_id)
    return [r["state"] for r in rows]


@pytest.mark.parametrize("how", ["outcomes first", "changes first", "one by one"])
@pytest.mark.parametrize("step", ["release", "complete"])
async def test_claim_and_end_of_it_may_come_in_one_batch_and_on_two_topics_in_any_order(
    workshop: Workshop, step: str, how: str
) -> None:
    """Answers lag, the order has moved on already: nobody's order stays in nobody's hands."""
    (ada,) = await operators(workshop, "Ada")
    approved = an_order(Status.MANUFACTURING_APPROVED)
    await handlers.take_changes(workshop, [approved])
    claim = await handlers.claim_order(workshop, ada, approved.order_id)
    assert (await both(workshop))[ListName.QUEUE] == []
    maker = msgspec.structs.replace(OPERATOR, id=str(ada.staff_id))
    started = msgspec.structs.replace(approved, version=4, status=Status.MANUFACTURING_STARTED, maker=maker)
    await handlers.take_changes(workshop, [started])
    if step == "release":
        asked = await handlers.release_order(workshop, ada, approved.order_id, "out of wax")
        after = msgspec.structs.replace(started, version=5, status=Status.MANUFACTURING_APPROVED, maker=None)
        mine = msgspec.structs.replace(after.transition, actor=maker)
        after = msgspec.structs.replace(after, transition=mine)
    else:
        asked = await handlers.complete_order(workshop, ada, approved.order_id)
        after = msgspec.structs.replace(started, version=5, status=Status.MANUFACTURING_COMPLETED)
    outcomes = [accepted(claim.claim_id, started), accepted(asked.command_id, after)]
    if how == "outcomes first":
        await handlers.take_outcomes(workshop, outcomes)
        await handlers.take_changes(workshop, [after])
    elif how == "changes first":
        await handlers.take_changes(workshop, [after])
        await handlers.take_outcomes(workshop, outcomes)
    else:
        await handlers.take_outcomes(workshop, outcomes[:1])
        await handlers.take_changes(workshop, [after])
        await handlers.take_outcomes(workshop, outcomes[1:])
    await handlers.take_outcomes(workshop, outcomes)  # told again
    assert await states(workshop, approved.order_id) == ["released" if step == "release" else "done"]
    found = await both(workshop)
    (name,) = [name for name, cards in found.items() if cards]
    assert name == (ListName.QUEUE if step == "release" else ListName.PACKING)
    async with workshop.pool.acquire() as connection:
        assert await store.work_of(connection, ada.staff_id) == []
    if step == "release":
        (ben,) = await operators(workshop, "Ben")
        assert (await handlers.claim_order(workshop, ben, approved.order_id)).operator == "Ben"


@pytest.mark.parametrize("step", ["release", "complete"])
async def test_a_step_sees_a_change_whole_or_not_at_all(workshop: Workshop, step: str) -> None:
    """The order goes back into the queue while its maker asks for the next step: they are told where it stands, not
    that it is not theirs, and Orders is asked for nothing."""
    (ada,) = await operators(workshop, "Ada")
    approved = an_order(Status.MANUFACTURING_APPROVED)
    await handlers.take_changes(workshop, [approved])
    claim = await handlers.claim_order(workshop, ada, approved.order_id)
    started = msgspec.structs.replace(approved, version=4, status=Status.MANUFACTURING_STARTED, maker=OPERATOR)
    await handlers.take_changes(workshop, [started])
    await handlers.take_outcomes(workshop, [accepted(claim.claim_id, started)])
    rework = msgspec.structs.replace(started, version=5, status=Status.REWORK, maker=None)
    async with workshop.pool.acquire() as connection:
        async with connection.transaction():
            await store.lock_orders(connection, [approved.order_id])
            await store.take_changes(connection, [rework])
            assert await store.end_claims(connection, [approved.order_id]) == [approved.order_id]
            if step == "release":
                asking = asyncio.create_task(handlers.release_order(workshop, ada, approved.order_id, "out of wax"))
            else:
                asking = asyncio.create_task(handlers.complete_order(workshop, ada, approved.order_id))

            async def waits_or_is_through() -> bool:
                waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                waiting = await workshop.pool.fetchval(waits + " AND datname = current_database()")
                return asking.done() or bool(waiting)

            await wait_for(waits_or_is_through)
        with pytest.raises(Problem, match="wrong-status"):
            await asking
        assert await connection.fetchval("SELECT count(*) FROM steps WHERE action = $1", step) == 0


async def test_a_claim_that_orders_refuses_is_voided_and_the_order_is_free_again(workshop: Workshop) -> None:
    ada, ben = await operators(workshop, "Ada", "Ben")
    order = an_order(Status.MANUFACTURING_APPROVED)
    await handlers.take_changes(workshop, [order])
    claim = await handlers.claim_order(workshop, ada, order.order_id)
    with pytest.raises(Problem, match="already-taken"):
        await handlers.claim_order(workshop, ben, order.order_id)
    refused = Outcome(claim.claim_id, order.order_id, False, 3, order.status, NOON, "stale", "The order has changed.")
    await handlers.take_outcomes(workshop, [refused])
    assert await states(workshop, order.order_id) == ["voided"]
    assert [c.order_id for c in (await both(workshop))[ListName.QUEUE]] == [order.order_id]
    assert (await handlers.claim_order(workshop, ben, order.order_id)).operator == "Ben"
    assert OTHER_OPERATOR.name == "Ben"


async def test_outcomes_of_others_commands_touch_nothing(workshop: Workshop) -> None:
    (ada,) = await operators(workshop, "Ada")
    order = an_order(Status.MANUFACTURING_APPROVED)
    await handlers.take_changes(workshop, [order])
    await handlers.claim_order(workshop, ada, order.order_id)
    await handlers.take_outcomes(workshop, [accepted(new_id(), order), accepted(new_id(), an_order())])
    assert await states(workshop, order.order_id) == ["pending"]
