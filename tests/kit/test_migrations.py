"""Migrations: each file once, in order, all or nothing, never edited afterwards; two services may start at once."""

import asyncio
from pathlib import Path

import asyncpg
import pytest
from tests.conftest import NewDatabase

from lostwax.kit.postgres import MigrationMismatch, migrate


def numbered(folder: Path, **files: str) -> Path:
    for name, sql in files.items():
        (folder / f"{name.removeprefix('n')}.sql").write_text(sql)
    return folder


async def names(dsn: str) -> list[str]:
    connection = await asyncpg.connect(dsn)
    try:
        return [r["name"] for r in await connection.fetch("SELECT name FROM schema_migrations ORDER BY applied_at")]
    finally:
        await connection.close()


async def query(dsn: str, sql: str) -> object:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


async def test_each_file_is_applied_once_and_new_ones_later(new_database: NewDatabase, tmp_path: Path) -> None:
    dsn = await new_database(migrated=False)
    folder = numbered(tmp_path, n0001_one="CREATE TABLE one (a int)", n0002_two="ALTER TABLE one ADD b int")
    kit = await migrate(dsn, None)
    assert kit >= 1
    assert await migrate(dsn, folder) == 2
    assert await migrate(dsn, folder) == 0
    numbered(tmp_path, n0003_three="INSERT INTO one VALUES (1, 2)")
    assert await migrate(dsn, folder) == 1
    assert await migrate(dsn, folder) == 0
    assert (await names(dsn))[kit:] == ["service/0001_one.sql", "service/0002_two.sql", "service/0003_three.sql"]
    assert await query(dsn, "SELECT a + b FROM one") == 3


async def test_an_edited_file_is_refused(new_database: NewDatabase, tmp_path: Path) -> None:
    dsn = await new_database(migrated=False)
    folder = numbered(tmp_path, n0001_one="CREATE TABLE one (a int)")
    await migrate(dsn, folder)
    numbered(tmp_path, n0001_one="CREATE TABLE one (a bigint)", n0002_two="CREATE TABLE two (a int)")
    with pytest.raises(MigrationMismatch, match="0001_one"):
        await migrate(dsn, folder)
    assert await query(dsn, "SELECT to_regclass('two')") is None


async def test_a_file_that_fails_leaves_nothing_behind(new_database: NewDatabase, tmp_path: Path) -> None:
    dsn = await new_database(migrated=False)
    folder = numbered(
        tmp_path, n0001_one="CREATE TABLE one (a int)", n0002_two="CREATE TABLE two (a int); SELECT 1 / 0"
    )
    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate(dsn, folder)
    assert await query(dsn, "SELECT to_regclass('two')") is None
    assert "service/0002_two.sql" not in await names(dsn)
    numbered(tmp_path, n0002_two="CREATE TABLE two (a int)")
    assert await migrate(dsn, folder) == 1


async def test_many_at_once_apply_each_file_once(new_database: NewDatabase, tmp_path: Path) -> None:
    dsn = await new_database(migrated=False)
    folder = numbered(
        tmp_path,
        n0001_one="CREATE TABLE one (a int); SELECT pg_sleep(0.2)",
        n0002_two="INSERT INTO one VALUES (1)",
    )
    counts = await asyncio.gather(*(migrate(dsn, folder) for _ in range(6)))
    assert sorted(counts)[:5] == [0] * 5
    assert max(counts) == len(await names(dsn))
    assert await query(dsn, "SELECT count(*) FROM one") == 1


async def test_it_waits_for_a_database_only_so_long() -> None:
    with pytest.raises(ConnectionRefusedError):
        await migrate("postgresql://postgres@127.0.0.1:1/none", None, wait_s=0.5)
