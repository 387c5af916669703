"""Operators claim all the time while Redis is flushed, killed, restored from an old snapshot and stopped: no list shows
an order as free for longer than a second after its claim was answered, and no reader sees an older version after a
newer one. Two workshops on one database and one Redis are as two processes of the MES."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from uuid import UUID

import msgspec
import pytest
from tests.builders import NOON, an_order, wait_for
from tests.conftest import NewDatabase
from tests.own_valkey import OwnValkey

import lostwax.mes
from lostwax.contracts.ids import new_id
from lostwax.contracts.orders import Order, Status
from lostwax.contracts.staff import Role
from lostwax.kit.auth import Member
from lostwax.kit.postgres import open_pool
from lostwax.kit.problems import Problem
from lostwax.mes import handlers
from lostwax.mes.clients import Lists
from lostwax.mes.domain import ListName
from lostwax.mes.handlers import Workshop

MIGRATIONS = Path(lostwax.mes.__file__).parent / "migrations"


@pytest.fixture
async def workshops(new_database: NewDatabase, valkey: OwnValkey) -> AsyncIterator[list[Workshop]]:
    dsn = await new_database(MIGRATIONS)
    made, running = [], []
    async with AsyncExitStack() as resources:
        for number in range(2):
            pool = await resources.enter_async_context(await open_pool(dsn, name=f"test {number}", size=8))
            lists = Lists(valkey.url, dsn, pool, handlers.STANDINGS)
            resources.push_async_callback(lists.close)
            running.append(asyncio.create_task(lists.run()))
            made.append(Workshop(pool, lists, now=lambda: NOON))
        yield made
        assert not any(task.done() for task in running)
        for task in running:
            task.cancel()


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[OwnValkey]:
    server = OwnValkey(tmp_path)
    server.start()
    yield server
    server.end()


class Day:
    """What happened and what was seen."""

    def __init__(self, orders: list[Order]) -> None:
        self.free = {o.order_id: o for o in orders}
        self.claimed_at: dict[UUID, float] = {}
        self.sources: set[str] = set()
        self.samples = 0
        self.over = False


async def claim_all_the_time(day: Day, workshop: Workshop, operator: Member, random: Random) -> None:
    while not day.over and day.free:
        order_id = random.choice(list(day.free))
        try:
            await handlers.claim_order(workshop, operator, order_id)
        except Problem as problem:
            assert problem.code in ("already-taken", "already-yours"), problem.code  # noqa: PT017
        else:
            day.claimed_at[order_id] = time.monotonic()
        day.free.pop(order_id, None)
        await asyncio.sleep(0.03)


async def change_all_the_time(day: Day, workshop: Workshop, orders: dict[UUID, Order], random: Random) -> None:
    """Orders that nobody claims are changed, so that versions have somewhere to go back to."""
    while not day.over:
        for order_id in random.sample(list(orders), 3):
            orders[order_id] = msgspec.structs.replace(orders[order_id], version=orders[order_id].version + 1)
        await handlers.take_changes(workshop, list(orders.values()))
        await asyncio.sleep(0.02)


async def read_all_the_time(day: Day, workshop: Workshop) -> None:
    newest: dict[UUID, int] = {}
    while not day.over:
        asked_at = time.monotonic()
        cards, source = await handlers.list_page(workshop, ListName.QUEUE, None, 200)
        day.samples += 1
        day.sources.add(source)
        for card in cards:
            assert card.version >= newest.get(card.order_id, 0), f"older, from {source}"
            newest[card.order_id] = card.version
            taken_at = day.claimed_at.get(card.order_id)
            assert taken_at is None or asked_at < taken_at + 1, f"free {asked_at - taken_at:.2f} s after its claim"
        await asyncio.sleep(0.005)


async def test_claims_go_on_while_redis_fails_in_every_way(workshops: list[Workshop], valkey: OwnValkey) -> None:
    random = Random(7)
    claimable = [an_order(Status.MANUFACTURING_APPROVED) for _ in range(110)]
    changing = {o.order_id: o for o in (an_order(Status.MANUFACTURING_APPROVED) for _ in range(15))}
    await handlers.take_changes(workshops[0], [*claimable, *changing.values()])
    operators = [Member(new_id(), name, Role.OPERATOR, 1) for name in ("Ada", "Ben")]
    for operator in operators:
        await handlers.account(workshops[0], operator)
    for workshop in workshops:
        await wait_for(lambda w=workshop: w.lists.trusted)
    day = Day(claimable)

    async def trusted_again() -> None:
        await wait_for(lambda: all(w.lists.trusted for w in workshops))
        await asyncio.sleep(0.2)

    async with asyncio.TaskGroup() as tasks:
        for workshop, operator in zip(workshops, operators, strict=True):
            tasks.create_task(claim_all_the_time(day, workshop, operator, random))
            tasks.create_task(read_all_the_time(day, workshop))
        tasks.create_task(change_all_the_time(day, workshops[0], changing, random))
        try:
            await asyncio.sleep(0.3)
            valkey.flush()
            await trusted_again()
            await asyncio.to_thread(valkey.save)
            await asyncio.sleep(0.3)
            await asyncio.to_thread(valkey.kill)
            await asyncio.to_thread(valkey.start)  # from that snapshot, in which claimed orders are free
            await trusted_again()
            valkey.signal(signal.SIGSTOP)
            await asyncio.sleep(2)
            valkey.signal(signal.SIGCONT)
            await trusted_again()
            await asyncio.to_thread(valkey.kill)
            await asyncio.sleep(0.5)
            await asyncio.to_thread(valkey.start)
            await trusted_again()
        finally:
            day.over = True
    assert len(day.claimed_at) >= 40
    assert day.samples >= 200
    assert day.sources == {"redis", "database"}
    free = {o.order_id for o in claimable} - set(day.claimed_at) | set(changing)
    for workshop in workshops:
        cards, source = await handlers.list_page(workshop, ListName.QUEUE, None, 200)
        assert source == "redis"
        assert {card.order_id for card in cards} == free
        assert {c.order_id: c.version for c in cards if c.order_id in changing} == {
            i: o.version for i, o in changing.items()
        }
    assert await workshops[0].pool.fetchval("SELECT count(*) FROM unshown") == 0
