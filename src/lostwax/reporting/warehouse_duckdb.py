"""The warehouse in DuckDB: a file beside the service. One connection writes, in a thread of its own; each query has a
cursor of its own on one snapshot and waits for no writer. The process is the only one that may have the file open."""

import asyncio
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from lostwax.reporting.merging import one_of_each
from lostwax.reporting.spans import FORMER_SQL
from lostwax.reporting.tables import HISTORY, TABLES, Column, Gone, Row, Table
from lostwax.reporting.warehouse import (
    NEWEST_SQL,
    Answer,
    Freshness,
    Limits,
    QueryFailed,
    QueryTooBig,
    Value,
    WarehouseAway,
    Written,
)

_SQL_TYPE = {"text": "VARCHAR", "integer": "BIGINT", "number": "DOUBLE", "time": "TIMESTAMP"}
_ARROW_TYPE = {
    "text": pa.string(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "time": pa.timestamp("us", tz="UTC"),
}
_PARAMETER = re.compile(r"\$([A-Za-z_][A-Za-z0-9_]*)")
_AT_ONCE = 4
_SPILLED = "4GB"
"""What all queries together may put on the disk that they cannot hold in memory."""

_TOO_MUCH_MEMORY = "it needs more memory than a query may have"
_ALLOWED = "SELECT value FROM duckdb_settings() WHERE name = 'memory_limit'"
_GATHERED = "SELECT coalesce(sum(memory_usage_bytes), 0) FROM duckdb_memory() WHERE tag <> 'BASE_TABLE'"
_LOOK_S = 0.03


class DuckDbWarehouse:
    """Opened by `open_duckdb`. `memory` as DuckDB says it, such as 256MB."""

    def __init__(self, path: Path, *, memory: str = "256MB", threads: int = 2) -> None:
        self._path, self._memory, self._threads = path, memory, threads
        self._writing = ThreadPoolExecutor(1, "warehouse-write")
        self._reading = ThreadPoolExecutor(_AT_ONCE, "warehouse-read")
        self._database: duckdb.DuckDBPyConnection | None = None
        self._opening = threading.Lock()
        self._ending: set[asyncio.Task[None]] = set()

    async def write(self, rows: Written, gone: Sequence[Gone] = ()) -> None:
        await asyncio.get_running_loop().run_in_executor(self._writing, self._write, rows, gone)

    async def query(self, sql: str, parameters: Mapping[str, Value], limits: Limits) -> Answer:
        loop = asyncio.get_running_loop()
        cursor = await loop.run_in_executor(self._reading, self._cursor)
        asked = loop.run_in_executor(self._reading, self._query, cursor, sql, parameters, limits)
        try:
            async with asyncio.timeout(limits.seconds):
                return await asyncio.shield(asked)
        except TimeoutError:
            raise QueryTooBig(f"it took longer than {limits.seconds:g} s") from None
        finally:
            ending = asyncio.create_task(_end(asked, cursor))
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)
            await asyncio.shield(ending)

    async def freshness(self) -> Freshness:
        answer = await self.query(NEWEST_SQL, {}, Limits())
        source_at, captured_at = answer.rows[0]
        return Freshness(source_at, captured_at)

    async def forget(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._writing, self._forget)

    async def close(self) -> None:
        def close() -> None:
            if self._database is not None:
                self._database.close()
                self._database = None

        await asyncio.get_running_loop().run_in_executor(self._writing, close)
        self._writing.shutdown()
        self._reading.shutdown()

    # -- in threads -----------------------------------------------------------------------------------------------

    def _open(self) -> duckdb.DuckDBPyConnection:
        with self._opening:
            if self._database is not None:
                return self._database
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                database = duckdb.connect(
                    str(self._path),
                    config={
                        "memory_limit": self._memory,
                        "max_temp_directory_size": _SPILLED,
                        "threads": self._threads,
                        "autoinstall_known_extensions": False,
                        "autoload_known_extensions": False,
                    },
                )
                for table in TABLES:
                    _make(database, table)
                database.execute("CREATE MACRO IF NOT EXISTS percentile(x, p) AS quantile_cont(x, p)")
                # From here on no SQL, whoever wrote it, reads or writes a file or the network, nor lifts this.
                database.execute("SET enable_external_access = false")
                database.execute("SET lock_configuration = true")
            except (duckdb.Error, OSError) as error:
                raise WarehouseAway(f"{self._path} cannot be opened: {error}") from error
            self._database = database
            return database

    def _cursor(self) -> duckdb.DuckDBPyConnection:
        return self._open().cursor()

    def _write(self, rows: Written, gone: Sequence[Gone]) -> None:
        with self._transaction() as connection:
            for table, made in rows.items():
                _put(connection, table, made)
            for one in gone:
                where = " AND ".join(f"{name} = ?" for name in one.table.key)
                connection.execute(
                    f"UPDATE {one.table.name} SET deleted = 1, captured_at = ? WHERE {where} AND origin = ?",
                    [one.captured_at.astimezone(UTC).replace(tzinfo=None), *one.key, one.origin],
                )

    def _forget(self) -> None:
        with self._transaction() as connection:
            for table in TABLES:
                connection.execute(f"DELETE FROM {table.name}")

    @contextmanager
    def _transaction(self) -> Iterator[duckdb.DuckDBPyConnection]:
        database = self._open()
        try:
            with database.cursor() as connection:
                connection.begin()
                try:
                    yield connection
                    connection.commit()
                except BaseException:
                    connection.rollback()
                    raise
        except (duckdb.IOException, duckdb.OutOfMemoryException, duckdb.ConnectionException) as error:
            raise WarehouseAway(str(error)) from error
        except duckdb.FatalException as error:
            # DuckDB refuses all further work with a database that met one; opened anew it recovers from its log.
            with self._opening:
                database.close()
                self._database = None
            raise WarehouseAway(str(error)) from error

    @contextmanager
    def _watched(self, cursor: duckdb.DuckDBPyConnection, share: float) -> Iterator[threading.Event]:
        """Interrupt the cursor's query, and set the event, once queries have gathered more than its share of memory:
        DuckDB has one bound for all of them, and who comes first would leave nothing to the others, nor to the writer.
        """
        too_big, over = threading.Event(), threading.Event()

        def watch() -> None:
            with self._cursor() as looking:
                allowed = share * _bytes(looking.execute(_ALLOWED).fetchall()[0][0])
                while not over.wait(_LOOK_S):
                    if looking.execute(_GATHERED).fetchall()[0][0] > allowed:
                        too_big.set()
                        cursor.interrupt()

        watching = threading.Thread(target=watch, name="warehouse-watch", daemon=True)
        if share < 1:
            watching.start()
        try:
            yield too_big
        finally:
            over.set()
            if share < 1:
                watching.join()

    def _query(
        self, cursor: duckdb.DuckDBPyConnection, sql: str, parameters: Mapping[str, Value], limits: Limits
    ) -> Answer:
        used = set(_PARAMETER.findall(sql))
        given = {name: _given(value) for name, value in parameters.items() if name in used}
        too_big = threading.Event()
        try:
            statements = cursor.extract_statements(sql)
            if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
                raise QueryFailed("it must be one SELECT")
            with self._watched(cursor, limits.share) as too_big:
                cursor.execute(statements[0], given)
                columns = tuple(column[0] for column in cursor.description or ())
                rows = cursor.fetchmany(limits.rows + 1)
        except duckdb.OutOfMemoryException as error:
            raise QueryTooBig(_TOO_MUCH_MEMORY) from error
        except duckdb.InterruptException as error:
            raise QueryTooBig(_TOO_MUCH_MEMORY if too_big.is_set() else "it was cancelled") from error
        except (duckdb.IOException, duckdb.FatalException, duckdb.ConnectionException) as error:
            raise WarehouseAway(str(error)) from error
        except duckdb.Error as error:
            raise QueryFailed(str(error)) from error
        if len(rows) > limits.rows:
            raise QueryTooBig(f"it came to more than {limits.rows} rows")
        return Answer(columns, [tuple(map(_told, row)) for row in rows])


def _bytes(readable: str) -> float:
    """Of DuckDB's `244.1 MiB`."""
    number, unit = readable.split()
    return float(number) * float(1024 ** ("bytes", "KiB", "MiB", "GiB", "TiB").index(unit))


async def _end(asked: "asyncio.Future[Answer]", cursor: duckdb.DuckDBPyConnection) -> None:
    """End what nobody waits for any more, if anything. An interrupt that comes while the query has not begun yet is
    lost, so it is repeated; the cursor is this query's alone, and is left open until its thread has done with it."""
    while not asked.done():
        cursor.interrupt()
        await asyncio.wait([asked], timeout=_LOOK_S)
    if not asked.cancelled():
        asked.exception()
    cursor.close()


def _make(database: duckdb.DuckDBPyConnection, table: Table) -> None:
    columns = ", ".join(f"{column.name} {_SQL_TYPE[column.type]}" for column in table.columns)
    database.execute(f"CREATE TABLE IF NOT EXISTS {table.name} ({columns}, PRIMARY KEY ({', '.join(table.key)}))")
    # A later release may tell more: what is there gets null until it is copied anew.
    has = {row[0] for row in database.execute(f"DESCRIBE {table.name}").fetchall()}
    for column in table.columns:
        if column.name not in has:
            database.execute(f"ALTER TABLE {table.name} ADD COLUMN {column.name} {_SQL_TYPE[column.type]}")


def _put(connection: duckdb.DuckDBPyConnection, table: Table, rows: Sequence[Row]) -> None:
    newest = one_of_each(table, rows)
    columns = list(zip(*newest, strict=True))
    arrow = pa.table(
        {
            column.name: pa.array(values, _ARROW_TYPE[column.type])
            for column, values in zip(table.columns, columns, strict=True)
        }
    )
    connection.register("incoming", arrow)
    names = ", ".join(table.names)
    told = ", ".join(
        f"(incoming.{c.name} AT TIME ZONE 'UTC') AS {c.name}" if c.type == "time" else c.name for c in table.columns
    )
    sets = ", ".join(f"{c.name} = {_kept(table, c)}" for c in table.columns if c.name not in table.key)
    connection.execute(
        f"INSERT INTO {table.name} ({names}) SELECT {told} FROM incoming"
        f" ON CONFLICT ({', '.join(table.key)}) DO UPDATE SET {sets}"
    )
    if table is HISTORY:
        connection.execute(FORMER_SQL)
    connection.unregister("incoming")


def _kept(table: Table, column: Column) -> str:
    old, new = f"{table.name}.{column.name}", f"excluded.{column.name}"
    if column.keep == "first":
        return f"least({old}, {new})"
    if column.keep == "last":
        return f"greatest({old}, {new})"
    # A row that is told of the same version again may know less: what it does not know stands.
    old_at, new_at = f"{table.name}.source_at", "excluded.source_at"
    return (
        f"CASE WHEN excluded.position > {table.name}.position THEN {new}"
        f" WHEN excluded.position < {table.name}.position THEN {old}"
        f" WHEN {new_at} >= {old_at} THEN coalesce({new}, {old}) ELSE coalesce({old}, {new}) END"
    )


def _given(value: Value) -> Value:
    return value.astimezone(UTC).replace(tzinfo=None) if isinstance(value, datetime) else value


def _told(value: Any) -> Any:
    return value.replace(tzinfo=UTC) if isinstance(value, datetime) and value.tzinfo is None else value
