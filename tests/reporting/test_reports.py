"""Reports over a small business that is counted by hand, in every format, for every role; and SQL that tries to do
what it may not. The warehouse is DuckDB, the doors are the service's own."""

import asyncio
import io
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pyarrow.parquet as pq
import pytest
from joserfc.jwk import KeySet, OKPKey
from tests.reporting.rows import NOW, small_business
from tests.reporting.warehouses import KINDS, a_warehouse

from lostwax.contracts.ids import new_id
from lostwax.contracts.staff import Role
from lostwax.kit.auth import Member, ServiceSigner, ServiceVerifier, StaffSigner, StaffVerifier
from lostwax.kit.clock import utc_now
from lostwax.kit.http import build_app
from lostwax.kit.staff import Account, StaffDoor
from lostwax.reporting import api
from lostwax.reporting.reports import REPORTS
from lostwax.reporting.sql_allowed import Refused, check_sql
from lostwax.reporting.tables import TABLES
from lostwax.reporting.warehouse import Warehouse
from lostwax.reporting.warehouse_duckdb import DuckDbWarehouse

MARCH = {"from": "2026-03-01", "to": "2026-03-31"}
KEYS = {name: OKPKey.generate_key("Ed25519", {"kid": name}) for name in ("crm", "console", "mes")}
PUBLIC = json.dumps(KeySet(list(KEYS.values())).as_dict(private=False))


def private(name: str) -> str:
    return json.dumps(KEYS[name].as_dict(private=True))


def token(role: Role) -> dict[str, str]:
    member = Member(new_id(), "Eva", role, 1)
    signed, _ = StaffSigner("crm", private("crm")).token(member, utc_now(), timedelta(hours=1))
    return {"Authorization": f"Bearer {signed}"}


ADMINISTRATOR = token(Role.ADMINISTRATOR)


async def client_of(warehouse: Warehouse) -> httpx.AsyncClient:
    async def account(member: Member) -> Account:
        return Account(member.role, True, member.version)

    door = api.ReportsDoor(StaffDoor(StaffVerifier(PUBLIC), account), ServiceVerifier("reporting", PUBLIC))
    app = build_app("reporting", api.operations(warehouse, door, ZoneInfo("UTC"), lambda: NOW), checks={})
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://reports", headers=ADMINISTRATOR)


@pytest.fixture(scope="module", params=KINDS)
async def reports(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[httpx.AsyncClient]:
    """An administrator at the small business' reports."""
    async with a_warehouse(request.param, tmp_path_factory.mktemp("warehouse")) as warehouse:
        await warehouse.write(small_business())
        async with await client_of(warehouse) as client:
            yield client


async def rows(client: httpx.AsyncClient, report: str, **asked: str) -> list[list[Any]]:
    response = await client.get(f"/v1/reports/{report}", params=asked)
    assert response.status_code == 200, response.text
    found: list[list[Any]] = response.json()["rows"]
    return found


async def test_orders_by_day_and_by_alloy(reports: httpx.AsyncClient) -> None:
    # group, orders, pieces, approved, shipped, cancelled, approved %
    assert await rows(reports, "orders", **MARCH) == [
        ["2026-03-02", 2, 4, 2, 2, 0, 100.0],
        ["2026-03-03", 1, 1, 0, 0, 1, 0.0],
        ["2026-03-09", 1, 1, 0, 0, 0, 0.0],
        ["2026-03-10", 1, 1, 1, 0, 0, 100.0],
        ["2026-03-31", 1, 1, 0, 0, 0, 0.0],
    ]
    assert [(r[0], r[1]) for r in await rows(reports, "orders", group="alloy", **MARCH)] == [
        ("gold-14k", 5),
        ("silver-925", 1),
    ]
    assert [(r[0], r[1]) for r in await rows(reports, "orders", group="week", **MARCH)] == [
        ("2026-W10", 3),
        ("2026-W11", 2),
        ("2026-W14", 1),
    ]


async def test_revenue_keeps_currencies_apart_and_leaves_cancelled_orders_out(reports: httpx.AsyncClient) -> None:
    # 20050 + 30000; the order of February was approved in February, the cancelled and the deleted one do not count.
    assert await rows(reports, "revenue", group="month", **MARCH) == [
        ["2026-03", "EUR", 1, 1, 5_000],
        ["2026-03", "USD", 2, 4, 50_050],
    ]


async def test_partners_stand_and_are_filtered_by_name(reports: httpx.AsyncClient) -> None:
    found = await rows(reports, "revenue", group="partner", **MARCH)
    assert ["Aurum & Söhne", "USD", 1, 1, 20_050] in found
    assert await rows(reports, "revenue", group="month", partner="Aurum & Söhne", **MARCH) == [
        ["2026-03", "USD", 1, 1, 20_050]
    ]


async def test_on_time_share_and_lead_times(reports: httpx.AsyncClient) -> None:
    [month] = await rows(reports, "on-time", group="month", **MARCH)
    # Of 18, 22 and 10 days two were on time; the middle one is 18 days.
    assert month[:5] == ["2026-03", 3, 2, 66.7, 18 * 86400]
    spans = {row[0]: row[1:3] for row in await rows(reports, "lead-times", **MARCH)}
    # SUBMITTED was left after one hour and after three: half within two. PRICE_CALCULATED after a day.
    assert spans == {"SUBMITTED": [2, 7200], "PRICE_CALCULATED": [1, 86400]}


async def test_prices_by_outcome(reports: httpx.AsyncClient) -> None:
    found = await rows(reports, "prices", group="month", **MARCH)
    # group, outcome, count, p50, p90, p95, longest
    assert [(r[1], r[2], r[3], r[6]) for r in found] == [("not-watertight", 1, 9.0, 9.0), ("priced", 2, 2.0, 3.0)]


async def test_operators_pieces_hours_and_failed_checks(reports: httpx.AsyncClient) -> None:
    # group, done, pieces, failed, failed %, given back, seconds, judged; what never began and what lasts do not count
    assert sorted(await rows(reports, "operators", **MARCH)) == [
        ["Ada", 1, 3, 1, 50.0, 0, 10800, 2],
        ["Ben", 1, 1, 0, 0.0, 0, 1800, 1],
    ]


async def test_agreeing_by_who_was_waited_for_and_how_often(reports: httpx.AsyncClient) -> None:
    # group, orders, rounds, customer, seller, workshop, open waits; o7 waits still, o8 was deleted
    day = 86400
    assert await rows(reports, "agreeing", group="month", **MARCH) == [
        ["2026-03", 3, 1.3, 2 * day, day, 16 * day, 0, 1]
    ]
    by_door = {row[0]: row[1:3] for row in await rows(reports, "agreeing", group="channel", **MARCH)}
    assert by_door == {"crm": [1, 0], "partner_api": [2, 2]}


async def test_what_needs_somebody_now_the_longest_first(reports: httpx.AsyncClient) -> None:
    found = [(r[0], r[1], r[3]) for r in await rows(reports, "attention")]
    # The order of this noon waits 0 s and is well.
    assert found == [("CODE5", "no price", 22 * 86400), ("CODE6", "held", 21 * 86400)]


async def test_reconciliation_names_what_a_partner_was_acknowledged_and_orders_does_not_have(
    reports: httpx.AsyncClient,
) -> None:
    # group, acknowledged, missing, unpriced, waiting, workshop, shipped, held, cancelled
    assert sorted(await rows(reports, "partners", **MARCH)) == [
        ["=BIJOU()", 3, 1, 1, 0, 0, 1, 0, 0],
        ["Aurum & Söhne", 1, 0, 0, 0, 0, 1, 0, 0],
    ]
    one_by_one = await rows(reports, "partner-orders", **MARCH)
    assert {(r[8], r[4]) for r in one_by_one} == {
        ("o2", "SHIPPED"), ("o3", "CLOSED"), ("o5", "PRICE_FAILED"), ("o99", "MISSING"),
    }  # fmt: skip


async def test_the_period_before_stands_beside(reports: httpx.AsyncClient) -> None:
    asked = {"from": "2026-03-01", "to": "2026-03-28", "group": "channel", "compare": "previous"}
    told = (await reports.get("/v1/reports/orders", params=asked)).json()
    assert (told["previous"]["from"], told["previous"]["to"]) == ("2026-02-01", "2026-02-28")
    assert [(r[0], r[1]) for r in told["previous"]["rows"]] == [("partner_api", 1)]
    csv = (await reports.get("/v1/reports/orders", params={**asked, "format": "csv"})).text
    assert "previous,partner_api,1" in csv


async def test_pages_go_through_all_rows_once(reports: httpx.AsyncClient) -> None:
    seen: list[str] = []
    after: int | None = 0
    while after is not None:
        asked = {**MARCH, "limit": "3", "after": str(after)}
        page = (await reports.get("/v1/reports/partner-orders", params=asked)).json()
        seen += [row[8] for row in page["rows"]]
        after = page.get("next")
    assert sorted(seen) == ["o2", "o3", "o5", "o99"]


async def test_every_answer_says_how_fresh_it_is(reports: httpx.AsyncClient) -> None:
    told = (await reports.get("/v1/reports/orders", params=MARCH)).json()
    assert (told["as_of"], told["lag_s"], told["row_count"]) == ("2026-03-31T12:00:00Z", 0.0, 5)


async def test_csv_is_safe_in_a_spreadsheet(reports: httpx.AsyncClient) -> None:
    response = await reports.get("/v1/reports/partners", params=MARCH, headers={"Accept": "text/csv"})
    assert response.content.startswith(b"\xef\xbb\xbfgroup,acknowledged")
    assert "'=BIJOU(),3,1" in response.text
    assert "Söhne" in response.content.decode("utf-8-sig")
    assert 'filename="partners-partner-2026-03-01-2026-03-31.csv"' in response.headers["Content-Disposition"]


async def test_parquet_keeps_types(reports: httpx.AsyncClient) -> None:
    response = await reports.get("/v1/reports/revenue", params={**MARCH, "group": "month", "format": "parquet"})
    table = pq.read_table(io.BytesIO(response.content))
    assert str(table.schema.field("amount_minor").type) == "int64"
    assert table.column("amount_minor").to_pylist() == [5_000, 50_050]


@pytest.mark.parametrize("report", REPORTS)
async def test_each_report_in_each_group_and_format_also_over_nothing(reports: httpx.AsyncClient, report: str) -> None:
    period = {"from": "2001-01-01", "to": "2001-12-31"} if REPORTS[report].period else {"partner": "nobody"}
    for group in list(REPORTS[report].groups) or [None]:
        asked = period | ({} if group is None else {"group": group})
        told = (await reports.get(f"/v1/reports/{report}", params=asked)).json()
        assert (told["rows"], told["row_count"]) == ([], 0), told
        for format_ in ("csv", "parquet"):
            response = await reports.get(f"/v1/reports/{report}", params={**asked, "format": format_})
            assert response.status_code == 200, response.text


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        ("orders?from=2026-04-01&to=2026-03-01", 400, "after to"),
        ("orders?from=yesterday", 400, "2026-03-09"),
        ("orders?from=2010-01-01&to=2026-01-01", 422, "at most 1830"),
        ("orders?group=submitted_day", 400, "one of day, week"),
        ("orders?compare=later", 400, "previous"),
        ("orders?limit=0", 400, "limit"),
        ("orders?format=xlsx", 400, "parquet"),
        ("attention?from=2026-01-01", 400, "of now"),
        ("partners?alloy=gold", 400, "partner"),
        ("profits", 404, "orders"),
    ],
)
async def test_what_cannot_be_asked_is_told(reports: httpx.AsyncClient, path: str, status: int, says: str) -> None:
    response = await reports.get(f"/v1/reports/{path}")
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert says in response.json()["detail"]


async def test_a_year_is_answered(reports: httpx.AsyncClient) -> None:
    found = await rows(reports, "orders", **{"from": "2025-04-01", "to": "2026-03-31", "group": "month"})
    assert [(r[0], r[1]) for r in found] == [("2026-02", 1), ("2026-03", 6)]


@pytest.mark.parametrize("role", Role)
async def test_roles(reports: httpx.AsyncClient, role: Role) -> None:
    who = token(role)
    for report in REPORTS.values():
        response = await reports.get(f"/v1/reports/{report.name}", headers=who)
        assert response.status_code == (200 if role in report.roles else 403), report.name
    response = await reports.post("/v1/sql", json={"sql": "SELECT count(*) FROM orders"}, headers=who)
    assert response.status_code == (200 if role is Role.ADMINISTRATOR else 403)
    listed = await reports.get("/v1/reports", headers=who)
    if role is Role.OPERATOR:
        assert listed.status_code == 403
    else:
        names = {report["name"] for report in listed.json()["reports"]}
        assert names == {report.name for report in REPORTS.values() if role in report.roles}


async def test_the_console_may_and_other_services_may_not(reports: httpx.AsyncClient) -> None:
    for service, status in (("console", 200), ("mes", 403)):
        signed = ServiceSigner(service, private(service)).token("reporting")
        response = await reports.get("/v1/reports/orders", headers={"Authorization": f"Bearer {signed}"})
        assert response.status_code == status
    assert (await reports.get("/v1/reports/orders", headers={"Authorization": ""})).status_code == 401


async def test_sql_answers_in_every_format(reports: httpx.AsyncClient) -> None:
    sql = {"sql": "WITH s AS (SELECT * FROM orders) SELECT status, count(*) AS n, sum(amount_minor) FROM s GROUP BY 1"}
    told = (await reports.post("/v1/sql", json=sql)).json()
    assert ["SHIPPED", 3, 30_051] in told["rows"]
    assert (await reports.post("/v1/sql?format=csv", json=sql)).content.startswith(b"\xef\xbb\xbfstatus,n")
    parquet = (await reports.post("/v1/sql?format=parquet", json=sql)).content
    assert pq.read_table(io.BytesIO(parquet)).num_rows == told["row_count"]


ATTACKS = """
INSERT INTO orders (order_id) VALUES ('x')
UPDATE orders SET status = 'CLOSED'
DELETE FROM orders
DROP TABLE orders
CREATE TABLE mine AS SELECT 1
TRUNCATE orders
ATTACH '/tmp/other.duckdb'
COPY orders TO '/tmp/orders.csv'
COPY (SELECT 1) TO '/tmp/one.csv'
EXPORT DATABASE '/tmp/all'
PRAGMA database_list
SET memory_limit = '100GB'
RESET lock_configuration
INSTALL httpfs
LOAD httpfs
CALL pragma_version()
CHECKPOINT
VACUUM
EXPLAIN ANALYZE SELECT 1
SELECT 1; DROP TABLE orders
SELECT 1; SELECT 2
SELECT * FROM '/etc/passwd'
SELECT * FROM 'https://example.com/x.parquet'
SELECT * FROM read_csv('/etc/passwd')
SELECT * FROM read_text('/etc/passwd')
SELECT * FROM read_blob('/etc/*')
SELECT * FROM glob('/*')
SELECT * FROM duckdb_settings()
SELECT * FROM duckdb_secrets()
SELECT * FROM pragma_table_info('orders')
SELECT * FROM information_schema.tables
SELECT * FROM main.orders
SELECT * FROM sqlite_master
SELECT * FROM query('SELECT 1')
SELECT * FROM query_table('orders')
SELECT * FROM range(1000000000000)
SELECT * FROM checkpoint()
SELECT (SELECT content FROM read_text('/etc/passwd'))
SELECT getenv('HOME')
SELECT current_setting('memory_limit')
SELECT repeat('x', 1000000000)
SELECT lpad('x', 1000000000, 'y')
SELECT list(order_id) FROM orders
SELECT generate_series(1, 1000000000)
SELECT unnest(range(1000000000))
SELECT getvariable('x')
SELECT nextval('s')
SELECT $name
SELECT ?
SELECT [x for x in [1, 2]]
WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r) SELECT * FROM r
WITH x AS (DELETE FROM orders RETURNING *) SELECT * FROM x
WITH x AS (SELECT * FROM read_text('/etc/passwd')) SELECT * FROM x
SELECT * FROM orders ORDER BY (SELECT content FROM read_text('/etc/passwd'))
SELECT count(*) FILTER (WHERE getenv('HOME') = '') FROM orders
SELECT sum(1) OVER (ORDER BY getenv('HOME')) FROM orders
SELECT * FROM (PIVOT orders ON status USING count(*))
SHOW TABLES
DESCRIBE orders
FROM (SHOW TABLES)
SELECT
""".strip().splitlines()


@pytest.mark.parametrize("sql", ATTACKS)
async def test_sql_that_may_not_be(reports: httpx.AsyncClient, sql: str) -> None:
    with pytest.raises(Refused):
        check_sql(sql, [table.name for table in TABLES])
    response = await reports.post("/v1/sql", json={"sql": sql})
    assert (response.status_code, response.json()["type"]) == (422, "/problems/sql-refused")


async def test_nothing_of_it_was_done(reports: httpx.AsyncClient) -> None:
    told = (await reports.post("/v1/sql", json={"sql": "SELECT count(*) FROM orders"})).json()
    assert told["rows"] == [[8]]


@pytest.mark.parametrize("sql", ["SELECT 1", "SELECT 1 -- it; DROP TABLE orders", "SELECT ';' AS x", "FROM staff"])
def test_sql_that_may_be(sql: str) -> None:
    check_sql(sql, [table.name for table in TABLES])


_MANY = "abcdefghijkl"
HEAVY = (
    f"SELECT count(*) FROM {', '.join(f'orders {x}' for x in _MANY)}"
    f" WHERE concat({', '.join(f'{x}.code' for x in _MANY)}) = 'x'"
)


async def test_sql_that_takes_too_long_or_answers_too_much(reports: httpx.AsyncClient) -> None:
    response = await reports.post("/v1/sql", json={"sql": HEAVY, "seconds": 0.5})
    assert (response.status_code, response.json()["type"]) == (422, "/problems/too-much")
    response = await reports.post("/v1/sql", json={"sql": "SELECT * FROM orders", "rows": 3})
    assert (response.status_code, response.json()["type"]) == (422, "/problems/too-much")


async def test_sql_is_called_off(reports: httpx.AsyncClient) -> None:
    work = asyncio.create_task(reports.post("/v1/sql", json={"sql": HEAVY}))
    running: list[str] = []
    async with asyncio.timeout(10):
        while not running:
            await asyncio.sleep(0.02)
            running = (await reports.get("/v1/sql")).json()["running"]
        assert (await reports.delete(f"/v1/sql/{running[0]}")).status_code == 204
        response = await work
    assert (response.status_code, response.json()["type"]) == (409, "/problems/called-off")
    assert (await reports.delete(f"/v1/sql/{running[0]}")).status_code == 404


async def test_an_empty_and_a_broken_warehouse(tmp_path: Path) -> None:
    empty = DuckDbWarehouse(tmp_path / "empty.duckdb")
    async with await client_of(empty) as client:
        told = (await client.get("/v1/reports/orders")).json()
        assert (told["rows"], told["as_of"], told["lag_s"]) == ([], None, None)
    await empty.close()
    (tmp_path / "broken.duckdb").write_bytes(b"this is no warehouse" * 1000)
    broken = DuckDbWarehouse(tmp_path / "broken.duckdb")
    async with await client_of(broken) as client:
        response = await client.get("/v1/reports/orders")
        assert (response.status_code, response.json()["type"]) == (503, "/problems/unavailable")
        assert "Retry-After" in response.headers
    await broken.close()
