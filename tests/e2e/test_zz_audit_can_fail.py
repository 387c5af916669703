"""The audit names what is wrong: each test spoils one order behind the services' backs, and mends it afterwards.

Runs last of the package (by its name), on the orders that the others shipped.
"""

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import asyncpg
import msgspec
import pytest

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
    """A shipped order: a connection to its shard, the other shard's address, its row."""
    first, second = shard_dsns(stack)
    connection = await asyncpg.connect(first)
    try:
        row = await connection.fetchrow("SELECT * FROM orders WHERE status = 'SHIPPED' ORDER BY order_id LIMIT 1")
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
