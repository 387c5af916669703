"""Captured records become rows; the newest wins in whatever order they come, and nothing but a SELECT is answered."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import pytest_asyncio
from tests.reporting.rows import a_row
from tests.reporting.warehouses import KINDS, a_warehouse

from lostwax.contracts import capture
from lostwax.contracts.ids import new_id, short_code
from lostwax.reporting import captured_rows, tables
from lostwax.reporting.captured_rows import Calendar, Changes
from lostwax.reporting.warehouse import Freshness, Limits, QueryFailed, QueryTooBig, Warehouse, WarehouseAway, Written
from lostwax.reporting.warehouse_duckdb import DuckDbWarehouse

CALENDAR = Calendar(ZoneInfo("Europe/Berlin"))
NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
ORDER = new_id()


def record(
    op: str, row: dict[str, Any], *, origin: str = "orders-0", lsn: int = 1, at_ms: int = 1_780_000_000_000
) -> bytes:
    where = {"db": "orders", "name": origin, "lsn": lsn, "ts_ms": at_ms}
    told = {"before": row} if op == "d" else {"after": row}
    return json.dumps({"op": op, "source": where, "ts_ms": at_ms, **told}).encode()


def body(version: int, status: str, at: str) -> str:
    order = {
        "order_id": str(ORDER),
        "version": version,
        "status": status,
        "account": str(ORDER),
        "channel": "partner_api",
        "reference": "R1",
        "specification": {
            "model": {"sha256": "a" * 64, "size_bytes": 7, "name": "n"},
            "alloy": "au750",
            "finish": "mat",
            "quantity": 2,
        },
        "submitted_at": "2026-10-31T23:30:00Z",
        "updated_at": at,
        "transition": {
            "source": None,
            "target": status,
            "actor": {"kind": "operator", "id": "o", "name": "Ann"},
            "at": at,
        },
        "approved_at": "2026-11-02T10:00:00Z",
        "quote": {"amount": "1234.50", "currency": "EUR", "priced_at": "2026-10-31T23:30:04Z"},
    }
    return json.dumps(order)


def of_order(version: int, status: str, at: str, **more: Any) -> Changes:
    row = {
        "order_id": str(ORDER),
        "version": version,
        "status_since": at,
        "body": body(version, status, at),
        "unknown": 1,
    }
    return captured_rows.changes("orders.orders", record("u", row, **more), CALENDAR, NOW)


def of_history(version: int, status: str, at: str) -> Changes:
    row = {"order_id": str(ORDER), "version": version, "body": body(version, status, at)}
    return captured_rows.changes("orders.order_history", record("r", row), CALENDAR, NOW)


def rows(*changes: Changes) -> Written:
    made: dict[tables.Table, list[tables.Row]] = {}
    for change in changes:
        for table, row in change.rows:
            made.setdefault(table, []).append(row)
    return made


@pytest_asyncio.fixture(params=KINDS)
async def warehouse(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Warehouse]:
    async with a_warehouse(request.param, tmp_path) as opened:
        yield opened


async def ask(warehouse: Warehouse, sql: str, **parameters: Any) -> list[tables.Row]:
    return (await warehouse.query(sql, parameters, Limits(rows=100, seconds=5))).rows


def test_every_captured_table_is_known_and_has_its_key_and_marks() -> None:
    assert set(captured_rows.READ) == {f"{t.database}.{t.table}" for t in capture.TABLES}
    for captured in capture.TABLES:
        assert captured_rows.READ[f"{captured.database}.{captured.table}"].key == captured.key
    for table in tables.TABLES:
        assert table.names[: len(table.key)] == table.key
        assert len(set(table.names)) == len(table.names)


@pytest.mark.parametrize("captured", [f"{t.database}.{t.table}" for t in capture.TABLES])
def test_a_row_is_as_wide_as_its_table_whatever_columns_are_missing(captured: str) -> None:
    whole = {"body": body(3, "PRICE_CALCULATED", "2026-11-01T00:00:00Z")}
    for table, row in captured_rows.changes(captured, record("c", whole), CALENDAR, NOW).rows:
        assert len(row) == len(table.columns)


@pytest.mark.parametrize(
    "rubbish",
    [b"", b"{}", b"[1]", record("c", {}), record("d", {}), record("c", {"body": "{"}), b'{"op":"c","source":{}}'],
)
def test_rubbish_is_said_to_be_malformed(rubbish: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        captured_rows.changes("orders.orders", rubbish, CALENDAR, NOW)


def test_a_body_that_lacks_everything_is_made_up_for_by_the_columns() -> None:
    row = {"order_id": str(ORDER), "version": 1, "status": "SUBMITTED", "at": "2026-11-01T00:00:00Z", "body": "{}"}
    ((table, made),) = captured_rows.changes("orders.order_history", record("c", row), CALENDAR, NOW).rows
    told = dict(zip(table.names, made, strict=True))
    assert (told["status"], told["version"], told["day"], told["alloy"]) == ("SUBMITTED", 1, "2026-11-01", None)


@pytest.mark.parametrize("door", ["partner_api", "shop", "crm"])
def test_what_customers_order_is_counted_by_their_door_and_what_partners_do_by_partner(door: str) -> None:
    partner = str(ORDER) if door == "partner_api" else door
    requested = {"order_id": "o", "client_id": str(ORDER), "accepted_at": "2026-11-01T00:00:00Z"}
    told = json.dumps({**json.loads(body(1, "SUBMITTED", "2026-11-01T00:00:00Z")), "channel": door})
    of_requests = captured_rows.changes(f"{door}.requests", record("c", requested), CALENDAR, NOW)
    of_orders = captured_rows.changes("orders.orders", record("c", {"body": told}), CALENDAR, NOW)
    for table, row in (*of_requests.rows, *of_orders.rows):
        made = dict(zip(table.names, row, strict=True))
        assert made["partner"] == partner
        assert made.get("account", str(ORDER)) == str(ORDER)


async def test_an_order_keeps_when_it_was_shipped_in_whatever_order_its_versions_come(
    warehouse: Warehouse,
) -> None:
    shipped = of_history(8, "SHIPPED", "2026-11-10T10:00:00.5Z")
    closed = of_order(9, "CLOSED", "2026-11-12T10:00:00Z")
    asked = (
        "SELECT status, version, shipped_at, shipped_day, on_time, closed_at, amount_minor, code, submitted_day,"
        " submitted_month, submitted_to_priced_s FROM orders"
    )
    at = datetime(2026, 11, 10, 10, 0, 0, 500_000, tzinfo=UTC)
    expected = [
        ("CLOSED", 9, at, "2026-11-10", 1, datetime(2026, 11, 12, 10, tzinfo=UTC), 123450, short_code(ORDER),
         "2026-11-01", "2026-11", 4.0)
    ]  # fmt: skip
    await warehouse.write(rows(closed))
    await warehouse.write(rows(shipped))
    assert await ask(warehouse, asked) == expected
    await warehouse.write(rows(shipped, closed, shipped))
    assert await ask(warehouse, asked) == expected
    assert await ask(warehouse, "SELECT count(*), max(status) FROM history") == [(1, "SHIPPED")]


async def test_the_time_in_the_former_status_is_right_in_whatever_order_versions_come_and_when_one_is_rewritten(
    warehouse: Warehouse,
) -> None:
    def step(version: int, former: str | None, status: str, happened_s: float, at: datetime = NOW) -> tables.Row:
        return a_row(
            tables.HISTORY, order_id="o", version=version, position=version, from_status=former, status=status,
            happened_s=happened_s, source_at=at,
        )  # fmt: skip

    async def spans() -> list[Any]:
        return [row[0] for row in await ask(warehouse, "SELECT former_s FROM history ORDER BY version, order_id")]

    one, two = step(1, None, "SUBMITTED", 100), step(2, "SUBMITTED", "ON_HOLD", 130)
    # A price that comes during a hold: the order stays on hold, and has been for as long as before.
    three, four = step(3, "ON_HOLD", "ON_HOLD", 150), step(4, "ON_HOLD", "PRICE_CALCULATED", 190)
    await warehouse.write({tables.HISTORY: [four, one]})
    assert await spans() == [None, None]
    await warehouse.write({tables.HISTORY: [three]})
    assert await spans() == [None, None, None], "since when it has been on hold is not known yet"
    other = a_row(tables.HISTORY, order_id="p", version=2, from_status="SUBMITTED", status="CANCELLED", happened_s=7)
    await warehouse.write({tables.HISTORY: [two, other]})
    assert await spans() == [None, 30, None, None, 60]
    await warehouse.write({tables.HISTORY: [step(2, "SUBMITTED", "ON_HOLD", 110, NOW.replace(hour=13))]})
    assert await ask(warehouse, "SELECT version, former_s FROM history WHERE order_id = 'o' ORDER BY version") == [
        (1, None), (2, 10), (3, None), (4, 80)
    ]  # fmt: skip
    await warehouse.write({tables.HISTORY: [one, two, three, four]})
    assert await ask(warehouse, "SELECT sum(former_s) AS s FROM history") == [(90,)], "what is older changes nothing"


async def test_a_shard_that_no_longer_has_an_order_cannot_delete_it(warehouse: Warehouse) -> None:
    await warehouse.write(rows(of_order(3, "PRICE_CALCULATED", "2026-11-03T10:00:00Z")))
    moved = of_order(3, "PRICE_CALCULATED", "2026-11-03T10:00:00Z", origin="orders-1", at_ms=1_780_000_001_000)
    await warehouse.write(rows(moved))
    await warehouse.write(rows(of_order(3, "PRICE_CALCULATED", "2026-11-03T10:00:00Z")))
    for origin, deleted in (("orders-0", 0), ("orders-1", 1)):
        gone = captured_rows.changes(
            "orders.orders", record("d", {"order_id": str(ORDER)}, origin=origin), CALENDAR, NOW
        ).gone
        assert gone is not None
        await warehouse.write({}, [gone])
        assert await ask(warehouse, "SELECT deleted FROM orders") == [(deleted,)]


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM orders",
        "SELECT 1; DROP TABLE orders",
        "COPY orders TO '/tmp/orders.csv'",
        "ATTACH '/tmp/other.duckdb' AS other",
        "SET enable_external_access = true",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT nothing FROM orders",
        "",
    ],
)
async def test_only_a_select_of_what_is_there_is_answered(warehouse: Warehouse, sql: str) -> None:
    with pytest.raises(QueryFailed):
        await ask(warehouse, sql)
    assert await ask(warehouse, "SELECT count(*) FROM orders") == [(0,)]


async def test_a_query_has_limits_and_parameters(warehouse: Warehouse) -> None:
    assert await ask(warehouse, "SELECT $a + 1 AS x, $b AS y", a=1, b="ü", unused=2) == [(2, "ü")]
    await warehouse.write({tables.STAFF: [a_row(tables.STAFF, staff_id=f"{n:03}") for n in range(101)]})
    await warehouse.write({tables.MODELS: [a_row(tables.MODELS, sha256=str(n), size_bytes=n) for n in range(5)]})
    assert await ask(warehouse, "SELECT PERCENTILE(size_bytes, 0.5) AS half FROM models") == [(2.0,)]
    with pytest.raises(QueryTooBig, match="100 rows"):
        await ask(warehouse, "SELECT staff_id FROM staff")
    long = "SELECT MAX(a.position + b.position * c.position + d.position - e.position) AS x FROM staff AS a" + "".join(
        f" CROSS JOIN staff AS {name}" for name in "bcdefg"
    )
    with pytest.raises(QueryTooBig, match="longer"):
        await warehouse.query(long, {}, Limits(seconds=0.5))
    assert await ask(warehouse, "SELECT COUNT(*) AS n FROM staff") == [(101,)]


async def test_it_says_how_fresh_it_is(warehouse: Warehouse) -> None:
    assert await warehouse.freshness() == Freshness(None, None)
    await warehouse.write(rows(of_history(1, "SUBMITTED", "2026-11-03T10:00:00Z")))
    assert await warehouse.freshness() == Freshness(datetime.fromtimestamp(1_780_000_000, UTC), NOW)


async def test_it_forgets_everything_when_told_and_takes_rows_again(warehouse: Warehouse) -> None:
    await warehouse.write(rows(of_order(3, "PRICE_CALCULATED", "2026-11-03T10:00:00Z")))
    await warehouse.forget()
    assert await ask(warehouse, "SELECT count(*) FROM orders") == [(0,)]
    assert await warehouse.freshness() == Freshness(None, None)
    await warehouse.write(rows(of_order(2, "SUBMITTED", "2026-11-02T10:00:00Z")))
    assert await ask(warehouse, "SELECT version FROM orders") == [(2,)]


async def test_a_file_that_is_no_warehouse_says_so_and_heals_once_it_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "reports.duckdb"
    path.write_bytes(b"no database at all" * 1000)
    warehouse = DuckDbWarehouse(path)
    with pytest.raises(WarehouseAway, match="cannot be opened"):
        await warehouse.write(rows(of_order(1, "SUBMITTED", "2026-11-03T10:00:00Z")))
    path.unlink()
    await warehouse.write(rows(of_order(1, "SUBMITTED", "2026-11-03T10:00:00Z")))
    await warehouse.close()
    again = DuckDbWarehouse(path)
    assert await ask(again, "SELECT count(*) FROM orders") == [(1,)]
    await again.close()


async def test_a_query_that_gathers_more_than_its_share_is_ended_and_the_others_go_on(tmp_path: Path) -> None:
    warehouse = DuckDbWarehouse(tmp_path / "reports.duckdb", memory="100MB")
    await warehouse.write({tables.STAFF: [a_row(tables.STAFF, staff_id=f"{n:03}") for n in range(200)]})
    much = (
        "SELECT COUNT(DISTINCT concat(a.staff_id, b.staff_id, c.staff_id, d.staff_id)) AS n FROM staff AS a"
        " CROSS JOIN staff AS b CROSS JOIN staff AS c CROSS JOIN staff AS d"
    )
    asked = asyncio.create_task(warehouse.query(much, {}, Limits(seconds=20, share=0.5)))
    while not asked.done():
        assert await ask(warehouse, "SELECT COUNT(*) AS n FROM staff") == [(200,)]
        await asyncio.sleep(0.01)
    with pytest.raises(QueryTooBig, match="more memory"):
        await asked
    await warehouse.close()


async def test_a_query_that_is_called_off_before_it_begins_does_not_begin(tmp_path: Path) -> None:
    warehouse = DuckDbWarehouse(tmp_path / "reports.duckdb")
    await warehouse.write({tables.STAFF: [a_row(tables.STAFF, staff_id=f"{n:03}") for n in range(200)]})
    long = "SELECT SUM(a.position + b.position * c.position) AS n FROM staff AS a" + "".join(
        f" CROSS JOIN staff AS {name}" for name in "bcdef"
    )
    asked = [asyncio.create_task(warehouse.query(long, {}, Limits(seconds=100))) for _ in range(12)]
    await asyncio.sleep(0.3)
    for task in asked:
        task.cancel()
    async with asyncio.timeout(5):
        assert all(
            isinstance(done, asyncio.CancelledError) for done in await asyncio.gather(*asked, return_exceptions=True)
        )
        assert await ask(warehouse, "SELECT COUNT(*) AS n FROM staff") == [(200,)]
    await warehouse.close()
