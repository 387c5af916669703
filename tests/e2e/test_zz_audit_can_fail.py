"""The audit names what is wrong: each test spoils one order behind the services' backs, and mends it afterwards.

Runs last of the package (by its name), on the orders that the others shipped.
"""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import asyncpg
import duckdb
import msgspec
import pytest
from tests.builders import a_partner, an_uploaded_model, wait_for

from lostwax.audit.run import Report
from lostwax.audit.verdict import Kind
from lostwax.contracts.ids import new_id
from lostwax.local.stack import Stack


def audited(stack: Stack, journal: Path | None = None, *options: str) -> tuple[int, Report]:
    """What `lostwax audit` says, and its exit code."""
    command = [sys.executable, "-m", "lostwax", "audit", "--stack", stack.folder.name, "--settle", "2", "--json"]
    command += ["--journal", str(journal)] if journal else []
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout, done.stderr
    return done.returncode, msgspec.json.decode(done.stdout, type=Report)


def shard_dsns(stack: Stack) -> list[str]:
    return stack.env("orders")["LOSTWAX_SHARD_URLS"].split(",")


@asynccontextmanager
async def an_order_row(stack: Stack) -> AsyncIterator[tuple[asyncpg.Connection, str, asyncpg.Record]]:
    """A partner's shipped order: a connection to its shard, the other shard's address, its row."""
    first, second = shard_dsns(stack)
    connection = await asyncpg.connect(first)
    try:
        row = await connection.fetchrow(
            "SELECT * FROM orders WHERE status = 'SHIPPED' AND channel = 'partner_api' ORDER BY order_id LIMIT 1"
        )
        assert row is not None
        yield connection, second, row
    finally:
        await connection.close()


async def put(connection: asyncpg.Connection, row: asyncpg.Record) -> None:
    columns = ", ".join(row.keys())
    places = ", ".join(f"${n + 1}" for n in range(len(row)))
    await connection.execute(f"INSERT INTO orders ({columns}) VALUES ({places})", *row.values())


def named(report: Report, kind: Kind) -> set[UUID | None]:
    return {f.order_id for f in report.findings if f.kind is kind}


@pytest.fixture
def journal(rough_stack: Stack) -> Path:
    return rough_stack.folder / "kills" / "journal.jsonl"


def test_it_is_clean_before(rough_stack: Stack, journal: Path) -> None:
    code, report = audited(rough_stack, journal)
    assert report.findings == []
    assert code == 0


@asynccontextmanager
async def spoilt(stack: Stack, sql: str, mend: str, order_id: UUID) -> AsyncIterator[None]:
    """The warehouse with something wrong about an order, which nobody else did; and mended."""
    path = stack.env("reporting")["LOSTWAX_WAREHOUSE"].removeprefix("duckdb://")
    for statement in (sql, mend):
        await asyncio.to_thread(stack.stop, "reporting")
        try:
            with duckdb.connect(path) as warehouse:
                warehouse.execute(statement, [str(order_id)])
        finally:
            await asyncio.to_thread(stack.start_one, "reporting")
        if statement is sql:
            yield


@pytest.mark.parametrize(
    ("sql", "mend", "says"),
    [
        ("UPDATE orders SET deleted = 1 WHERE order_id = ?", "UPDATE orders SET deleted = 0 WHERE order_id = ?",
         "reports do not know of it"),
        ("UPDATE orders SET amount_minor = amount_minor + 1 WHERE order_id = ?",
         "UPDATE orders SET amount_minor = amount_minor - 1 WHERE order_id = ?", "reports have amount_minor"),
    ],
)  # fmt: skip
async def test_an_order_that_reports_lack_or_tell_differently_is_named(
    rough_stack: Stack, sql: str, mend: str, says: str
) -> None:
    async with an_order_row(rough_stack) as (_, _, row), spoilt(rough_stack, sql, mend, row["order_id"]):
        code, report = audited(rough_stack, None, "--reports-settle", "2")
    assert (code, named(report, Kind.UNREPORTED)) == (1, {row["order_id"]})
    assert [says in f.detail for f in report.findings] == [True]


async def test_a_deleted_order_is_missing(rough_stack: Stack) -> None:
    async with an_order_row(rough_stack) as (connection, _, row):
        await connection.execute("DELETE FROM orders WHERE order_id = $1", row["order_id"])
        try:
            code, report = audited(rough_stack)
        finally:
            await put(connection, row)
    assert (code, named(report, Kind.MISSING)) == (1, {row["order_id"]})


async def test_an_order_on_two_shards_is_doubled(rough_stack: Stack) -> None:
    async with an_order_row(rough_stack) as (_, second, row):
        other = await asyncpg.connect(second)
        try:
            await put(other, row)
            code, report = audited(rough_stack)
        finally:
            await other.execute("DELETE FROM orders WHERE order_id = $1", row["order_id"])
            await other.close()
    assert (code, named(report, Kind.DOUBLED)) == (1, {row["order_id"]})


async def test_one_submission_acknowledged_as_two_orders_is_doubled(
    rough_stack: Stack, journal: Path, tmp_path: Path
) -> None:
    lines = journal.read_bytes().splitlines(keepends=True)
    again = msgspec.json.decode(lines[0])
    again["order_id"] = str(new_id())
    twice = tmp_path / "journal.jsonl"
    twice.write_bytes(b"".join(lines) + msgspec.json.encode(again) + b"\n")
    code, report = audited(rough_stack, twice)
    assert (code, named(report, Kind.DOUBLED)) == (1, {UUID(again["order_id"])})


async def test_an_order_nobody_requested_is_named(rough_stack: Stack) -> None:
    async with an_order_row(rough_stack) as (connection, _, row):
        ghost = UUID(int=row["order_id"].int ^ (1 << 40))
        await connection.execute(
            "INSERT INTO orders SELECT $2, version, status, account, channel, model_sha256, price_job_id, submitted_at,"
            " status_since, body FROM orders WHERE order_id = $1",
            row["order_id"],
            ghost,
        )
        try:
            code, report = audited(rough_stack)
        finally:
            await connection.execute("DELETE FROM orders WHERE order_id = $1", ghost)
    assert code == 1
    assert named(report, Kind.UNREQUESTED) == {ghost}
    assert named(report, Kind.GAP) == {ghost}, "it has no history either"


async def test_an_order_that_stays_too_long_is_stuck(rough_stack: Stack) -> None:
    async with an_order_row(rough_stack) as (connection, _, row):
        await connection.execute(
            "UPDATE orders SET status = 'PACKAGING', status_since = now() - interval '3 days' WHERE order_id = $1",
            row["order_id"],
        )
        try:
            code, report = audited(rough_stack)
        finally:
            await connection.execute(
                "UPDATE orders SET status = $2, status_since = $3 WHERE order_id = $1",
                row["order_id"],
                row["status"],
                row["status_since"],
            )
    assert (code, named(report, Kind.STUCK)) == (1, {row["order_id"]})


@pytest.mark.parametrize(("reader", "called"), [("mes", "the MES"), ("crm", "the CRM")])
async def test_an_order_that_a_reader_sees_differently_is_named(rough_stack: Stack, reader: str, called: str) -> None:
    own = await asyncpg.connect(rough_stack.env(reader)["LOSTWAX_DATABASE_URL"])
    try:
        row = await own.fetchrow("SELECT order_id, body FROM orders ORDER BY order_id LIMIT 1")
        assert row is not None
        await own.execute(
            "UPDATE orders SET body = jsonb_set(body, '{specification,alloy}', '\"lead\"') WHERE order_id = $1",
            row["order_id"],
        )
        code, report = audited(rough_stack)
        assert (code, named(report, Kind.DIFFERS)) == (1, {row["order_id"]})
        assert [f.detail.partition(" sees ")[0] for f in report.findings] == [called]
        # The audit's remedy: Orders tells again. The same version changes nothing, so the row must be behind first.
        await own.execute("UPDATE orders SET version = 0 WHERE order_id = $1", row["order_id"])
        code, report = audited(rough_stack, None, "--redrive")
        assert (code, report.findings) == (0, [])
        assert await own.fetchval("SELECT body FROM orders WHERE order_id = $1", row["order_id"]) == row["body"]
    finally:
        await own.close()


@pytest.fixture
async def quote_id(rough_stack: Stack) -> AsyncIterator[UUID]:
    """A quote that was asked for and priced; gone everywhere afterwards."""
    places = [*shard_dsns(rough_stack), rough_stack.env("partner_api")["LOSTWAX_DATABASE_URL"]]
    async with await a_partner(rough_stack) as partner:
        wish = {"model": await an_uploaded_model(partner), "options": [{"alloy": "brass", "finish": "polished"}]}
        asked = await partner.post("/v1/quotes", json=wish, headers={"Idempotency-Key": new_id().hex})
        quote = asked.raise_for_status().json()

        async def priced() -> bool:
            seen = (await partner.get(f"/v1/quotes/{quote['quote_id']}")).raise_for_status().json()
            return bool(seen["state"] == "priced")

        await wait_for(priced)
    yield UUID(quote["quote_id"])
    for dsn in places:
        connection = await asyncpg.connect(dsn)
        await connection.execute("DELETE FROM quotes WHERE quote_id = $1", UUID(quote["quote_id"]))
        await connection.close()


@pytest.mark.parametrize(
    ("place", "sql", "kind"),
    [
        ("orders", "DELETE FROM quotes WHERE quote_id = $1", Kind.MISSING),
        ("orders", "UPDATE quotes SET state = 'requested', requested_at = now() - interval '1 hour'"
                   " WHERE quote_id = $1", Kind.STUCK),
        ("orders", "UPDATE quotes SET body = body || '{\"reference\": \"other\"}' WHERE quote_id = $1", Kind.DIFFERS),
        ("partner_api", "UPDATE quotes SET version = 1 WHERE quote_id = $1", Kind.DIFFERS),
        ("partner_api", "DELETE FROM quotes WHERE quote_id = $1", Kind.UNREQUESTED),
    ],
)  # fmt: skip
async def test_a_quote_that_is_lost_unanswered_or_seen_differently_is_named(
    rough_stack: Stack, quote_id: UUID, place: str, sql: str, kind: Kind
) -> None:
    code, report = audited(rough_stack)
    assert (code, report.findings, report.quotes >= 1) == (0, [], True)
    dsns = shard_dsns(rough_stack) if place == "orders" else [rough_stack.env(place)["LOSTWAX_DATABASE_URL"]]
    for dsn in dsns:
        connection = await asyncpg.connect(dsn)
        await connection.execute(sql, quote_id)
        await connection.close()
    code, report = audited(rough_stack)
    assert (code, [(f.kind, f.order_id, f.quote_id) for f in report.findings]) == (1, [(kind, None, quote_id)])


async def test_a_quote_on_two_shards_is_doubled(rough_stack: Stack, quote_id: UUID) -> None:
    first, second = [await asyncpg.connect(dsn) for dsn in shard_dsns(rough_stack)]
    try:
        for here, there in ((first, second), (second, first)):
            row = await here.fetchrow("SELECT * FROM quotes WHERE quote_id = $1", quote_id)
            if row is not None:
                places = ", ".join(f"${n + 1}" for n in range(len(row)))
                await there.execute(f"INSERT INTO quotes ({', '.join(row.keys())}) VALUES ({places})", *row.values())
                break
        code, report = audited(rough_stack)
    finally:
        await first.close()
        await second.close()
    assert (code, [(f.kind, f.quote_id) for f in report.findings]) == (1, [(Kind.DOUBLED, quote_id)])


@pytest.mark.parametrize("lost", [True, False], ids=["that Orders never got", "whose prices the door never got"])
async def test_a_quote_is_sent_again(rough_stack: Stack, quote_id: UUID, lost: bool) -> None:
    door = await asyncpg.connect(rough_stack.env("partner_api")["LOSTWAX_DATABASE_URL"])
    await door.execute("UPDATE quotes SET version = 0, quote_body = NULL WHERE quote_id = $1", quote_id)
    try:
        for dsn in shard_dsns(rough_stack) if lost else ():
            shard = await asyncpg.connect(dsn)
            await shard.execute("DELETE FROM quotes WHERE quote_id = $1", quote_id)
            await shard.close()
        _, report = audited(rough_stack)
        assert named(report, Kind.MISSING if lost else Kind.DIFFERS) == {None}
        code, report = audited(rough_stack, None, "--redrive")
        assert (code, report.findings) == (0, [])
        assert await door.fetchval("SELECT quote_body->>'state' FROM quotes WHERE quote_id = $1", quote_id) == "priced"
    finally:
        await door.close()


async def test_a_request_that_orders_never_got_is_sent_again(rough_stack: Stack) -> None:
    async with an_order_row(rough_stack) as (connection, _, row):
        await connection.execute("DELETE FROM orders WHERE order_id = $1", row["order_id"])
        await connection.execute("DELETE FROM order_history WHERE order_id = $1", row["order_id"])
        try:
            _, report = audited(rough_stack, None, "--redrive")
            # It is there again, from its beginning; who saw its former life still differs, and is named.
            assert named(report, Kind.MISSING) == set()
            assert await connection.fetchval("SELECT count(*) FROM orders WHERE order_id = $1", row["order_id"]) == 1
        finally:
            await connection.execute("DELETE FROM orders WHERE order_id = $1", row["order_id"])
            await connection.execute("DELETE FROM order_history WHERE order_id = $1", row["order_id"])
            await put(connection, row)
