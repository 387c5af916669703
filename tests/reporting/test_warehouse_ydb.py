"""What is YDB's own: one writer at a time, blocks, retries, servers that go and come. Over the stand-in."""

import asyncio
import random
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import ydb
import ydb.aio
from tests.reporting.rows import NOW, a_row
from tests.reporting.warehouses import a_warehouse, in_ydb
from tests.reporting.ydb_stand_in import STATUS, StandIn, serving

from lostwax.reporting.tables import HISTORY, ORDERS, PARTNERS, TABLES, Gone, Row
from lostwax.reporting.warehouse import Limits, Warehouse, WarehouseAway
from lostwax.reporting.warehouse_ydb import Address, YdbWarehouse, address_of


@pytest_asyncio.fixture
async def at() -> AsyncIterator[StandIn]:
    async with serving(StandIn()) as started:
        yield started


@pytest_asyncio.fixture
async def warehouse(at: StandIn) -> AsyncIterator[YdbWarehouse]:
    async with in_ydb(at) as opened:
        yield opened


async def ask(warehouse: Warehouse, sql: str) -> list[Row]:
    return (await warehouse.query(sql, {}, Limits())).rows


def a_partner(position: int = 1, **more: Any) -> Row:
    return a_row(PARTNERS, **{"partner": "p", "name": f"name {position}", "position": position, **more})


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("ydb://h:2136/local", Address("grpc://h:2136", "/local", "lostwax")),
        ("ydbs://h:2135/Root/db?folder=a/b", Address("grpcs://h:2135", "/Root/db", "a/b")),
        ("ydb://ann:p%40ss@h:2136/local", Address("grpc://h:2136", "/local", "lostwax", "ann", "p@ss")),
    ],
)
def test_addresses(url: str, address: Address) -> None:
    assert address_of(url) == address


@pytest.mark.parametrize(
    "url",
    [
        "ydb://",
        "ydb://h/local",
        "ydb://h:1",
        "ydb://h:1/",
        "duckdb:///x",
        "ydb://h:1/a?folder=x%22);DROP",
        "ydb://h:x/a",
    ],
)
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        address_of(url)


async def test_two_writers_leave_the_newest_of_every_row(at: StandIn, warehouse: YdbWarehouse) -> None:
    async with in_ydb(at) as other:
        for version in range(1, 7, 2):
            older = a_row(ORDERS, order_id="o", position=version, version=version, reworked=1 if version == 3 else None)
            newer = a_row(ORDERS, order_id="o", position=version + 1, version=version + 1)
            await asyncio.gather(other.write({ORDERS: [newer]}), warehouse.write({ORDERS: [older]}))
            assert await ask(warehouse, "SELECT version FROM orders") == [(version + 1,)]
        assert await ask(warehouse, "SELECT version, reworked FROM orders") == [(6, 1)]


async def test_both_warehouses_come_to_the_same(warehouse: YdbWarehouse, tmp_path: Path) -> None:
    dice = random.Random(22)

    def any_row() -> Row:
        at = NOW + timedelta(seconds=dice.randrange(3))
        known: dict[str, Any] = {"order_id": f"o{dice.randrange(3)}", "position": dice.randrange(4), "source_at": at}
        for name, values in (("status", ("A", "B", None)), ("origin", ("orders-0", "orders-1")), ("on_time", (0, 1))):
            known[name] = dice.choice(values)
        for name in ("shipped_at", "completed_at"):
            known[name] = dice.choice((None, at))
        return a_row(ORDERS, **known)

    def any_step() -> Row:
        version, statuses = dice.randrange(1, 7), ("A", "B")
        return a_row(
            HISTORY, order_id=f"o{dice.randrange(2)}", version=version, position=version, status=dice.choice(statuses),
            from_status=None if version == 1 else dice.choice(statuses), happened_s=dice.choice((1.5, 10.0, 20.0)),
            source_at=NOW + timedelta(seconds=dice.randrange(3)),
        )  # fmt: skip

    async with a_warehouse("duckdb", tmp_path) as other:
        for _ in range(12):
            rows = {ORDERS: [any_row() for _ in range(dice.randrange(1, 5))], HISTORY: [any_step(), any_step()]}
            gone = [Gone(ORDERS, (f"o{dice.randrange(4)}",), "orders-0", NOW)] if dice.random() < 0.3 else []
            for each in (warehouse, other):
                await each.write(rows, gone)
        everything = f"SELECT {', '.join(ORDERS.names)} FROM orders ORDER BY order_id"
        assert len(await ask(other, everything)) == 3
        assert await ask(warehouse, everything) == await ask(other, everything)
        steps = f"SELECT {', '.join(HISTORY.names)} FROM history ORDER BY order_id, version"
        assert await ask(warehouse, steps) == await ask(other, steps)
        told = [row[0] for row in await ask(other, "SELECT former_s FROM history")]
        assert None in told
        assert [span for span in told if span is not None]


async def test_a_writer_waits_for_another_and_outlives_one_that_died(at: StandIn) -> None:
    async with in_ydb(at, patience_s=0.3) as warehouse:
        await warehouse.write({PARTNERS: [a_partner(1)]})
        held = (
            'INSERT OR REPLACE INTO "/local/lostwax".writer'
            " VALUES ('writer', 'somebody', (now() AT TIME ZONE 'UTC') + INTERVAL {} SECOND)"
        )
        with at.cursor() as connection:
            connection.execute(held.format(2))
        with pytest.raises(WarehouseAway, match="another instance of Reporting writes: somebody"):
            await warehouse.write({PARTNERS: [a_partner(2)]})
        assert await ask(warehouse, "SELECT position FROM partners") == [(1,)]
        async with asyncio.timeout(10):
            while True:
                try:
                    await warehouse.write({PARTNERS: [a_partner(2)]})
                    break
                except WarehouseAway:
                    pass
        assert await ask(warehouse, "SELECT position FROM partners") == [(2,)]


async def test_much_goes_in_blocks_of_a_megabyte(at: StandIn, warehouse: YdbWarehouse) -> None:
    many = [a_row(HISTORY, order_id=f"o{n // 3}", version=n % 3, reason="ü" * 1000) for n in range(1500)]
    await warehouse.write({HISTORY: many})
    assert len(at.blocks) >= 3
    assert max(at.blocks) < 1_300_000
    found = await ask(warehouse, "SELECT COUNT(*) AS n, MIN(reason) AS least FROM history")
    assert found == [(1500, "ü" * 1000)]
    # Told again, with older ones among them: as it was.
    await warehouse.write({HISTORY: [*many[:10], a_row(HISTORY, order_id="o0", version=1, position=0, reason="old")]})
    assert await ask(warehouse, "SELECT COUNT(*) AS n, MIN(reason) AS least FROM history") == found


async def test_what_is_over_soon_is_tried_again_and_what_is_not_is_said(at: StandIn, warehouse: YdbWarehouse) -> None:
    at.failures = [STATUS.UNAVAILABLE, STATUS.OVERLOADED]
    await warehouse.write({PARTNERS: [a_partner(1)]})
    assert at.failures == []
    at.failures = [STATUS.OVERLOADED] * 50
    with pytest.raises(WarehouseAway, match="as the test wished"):
        await warehouse.write({PARTNERS: [a_partner(2)]})
    at.failures = []
    await warehouse.write({PARTNERS: [a_partner(2)]})
    assert await ask(warehouse, "SELECT name FROM partners") == [("name 2",)]


async def write_once_found(warehouse: YdbWarehouse, position: int) -> None:
    while True:
        try:
            return await warehouse.write({PARTNERS: [a_partner(position)]})
        except WarehouseAway:
            await asyncio.sleep(0.1)


async def test_a_server_that_is_away_is_said_so_and_found_again() -> None:
    at = StandIn()
    async with serving(at), in_ydb(at) as warehouse:
        pass
    async with in_ydb(at, patience_s=1.0) as warehouse:
        with pytest.raises(WarehouseAway, match=f"grpc://127.0.0.1:{at.port}/local/lostwax cannot be opened: .+"):
            await warehouse.write({PARTNERS: [a_partner(1)]})
        # gRPC waits a second or more before it looks again for a server that was not there.
        async with serving(at), asyncio.timeout(20):
            await write_once_found(warehouse, 1)
        for call in (warehouse.write({PARTNERS: [a_partner(2)]}), ask(warehouse, "SELECT name FROM partners")):
            with pytest.raises(WarehouseAway, match=r"\w"):
                await call
        async with serving(at), asyncio.timeout(20):
            await write_once_found(warehouse, 2)
            assert await ask(warehouse, "SELECT name FROM partners") == [("name 2",)]


async def test_who_goes_away_ends_the_query_in_the_server(at: StandIn, warehouse: YdbWarehouse) -> None:
    await warehouse.write({PARTNERS: [a_partner(1, partner=str(n)) for n in range(100)]})
    joined = "".join(f" CROSS JOIN partners AS {name}" for name in "bcdefg")
    asked = asyncio.create_task(ask(warehouse, f"SELECT MAX(a.position + g.position) AS x FROM partners AS a{joined}"))
    await asyncio.sleep(0.5)
    assert not asked.done()
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    async with asyncio.timeout(5):
        await at.stopped.wait()
    assert await ask(warehouse, "SELECT COUNT(*) AS n FROM partners") == [(100,)]


async def test_the_server_itself_refuses_to_write_for_a_query(at: StandIn, warehouse: YdbWarehouse) -> None:
    await warehouse.write({PARTNERS: [a_partner(1)]})
    driver = ydb.aio.Driver(endpoint=f"grpc://127.0.0.1:{at.port}", database="/local")
    async with driver, ydb.aio.QuerySessionPool(driver) as pool:
        for sql in ("DELETE FROM partners", "DROP TABLE partners", "SELECT 1; DELETE FROM partners"):

            async def run(tx: Any, sql: str = sql) -> None:
                async with await tx.execute(f'PRAGMA TablePathPrefix("/local/lostwax");\n{sql}') as stream:
                    async for _ in stream:
                        pass

            with pytest.raises((ydb.GenericError, ydb.PreconditionFailed)):
                await pool.retry_tx_async(run, ydb.QuerySnapshotReadOnly())
    assert await ask(warehouse, "SELECT COUNT(*) AS n FROM partners") == [(1,)]


async def test_a_later_release_adds_its_columns(at: StandIn) -> None:
    async with in_ydb(at) as before:
        await before.write({PARTNERS: [a_partner(1)]})
    with at.cursor() as connection:
        connection.execute('ALTER TABLE "/local/lostwax".partners DROP COLUMN suspended_at')
    async with in_ydb(at) as after:
        assert await ask(after, "SELECT name, suspended_at FROM partners") == [("name 1", None)]
        await after.write({PARTNERS: [a_partner(2, suspended_at=NOW)]})
        assert await ask(after, "SELECT suspended_at FROM partners") == [(NOW,)]


async def test_all_tables_are_made_in_the_folder(at: StandIn, warehouse: YdbWarehouse) -> None:
    await warehouse.freshness()
    async with ydb.aio.Driver(endpoint=f"grpc://127.0.0.1:{at.port}", database="/local") as driver:
        listed = await driver.scheme_client.list_directory("/local/lostwax")
    assert {child.name for child in listed.children} == {"writer", *(table.name for table in TABLES)}
