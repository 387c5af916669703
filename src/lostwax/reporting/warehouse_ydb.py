"""The warehouse in YDB: column tables in a folder of a database, for installations that have outgrown one file.

`bulk_upsert` overwrites and joins no transaction, so newest-wins is made here: rows of the keys to be written are read,
merged with what came, and written back, by one writer at a time. Who that is stands in the row table `writer`, changed
in serializable transactions: a lease by the server's clock, taken for each write and let go after it. A process that
lost sight of time gives up well before its lease ends, so nothing of it lands among the next one's rows.
"""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

import duckdb
import msgspec
import ydb
import ydb.aio

from lostwax.contracts.ids import new_id
from lostwax.reporting.merging import merged
from lostwax.reporting.spans import with_former
from lostwax.reporting.tables import HISTORY, TABLES, Gone, Row, Table
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

log = logging.getLogger(__name__)

_T = TypeVar("_T")

_TYPE = {"text": "Utf8", "integer": "Int64", "number": "Double", "time": "Timestamp"}
_GIVEN_TYPE = {str: "Utf8", int: "Int64", float: "Double", datetime: "Timestamp"}
_PARAMETER = re.compile(r"\$([A-Za-z_][A-Za-z0-9_]*)")
_NAME = re.compile(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*")

_BLOCK_BYTES = 1_000_000
"""Of one bulk_upsert, as YDB advises."""

_KEYS_AT_ONCE = 1000
"""Keys whose rows are read by one query."""

_AT_ONCE = 8
"""Sessions, and so queries, at once."""

_REQUEST_S = 10.0
_LEASE_S = 60.0
# A request that the server still works on when its writer gave up is over by then.
_WRITE_S = _LEASE_S - 2 * _REQUEST_S

_LEASE = "CREATE TABLE IF NOT EXISTS writer (name Utf8 NOT NULL, owner Utf8, until Timestamp, PRIMARY KEY (name))"
_LEASE_READ = "SELECT owner, until, CurrentUtcTimestamp() AS now FROM writer WHERE name = 'writer'"
_LEASE_CLOCK = "SELECT CurrentUtcTimestamp() AS now"
_LEASE_WRITE = "UPSERT INTO writer (name, owner, until) VALUES ('writer', $owner, $until)"


class Address(msgspec.Struct, frozen=True):
    """`endpoint`: grpc://host:port, or grpcs://; `folder`: inside the database, where the tables are."""

    endpoint: str
    database: str
    folder: str = "lostwax"
    user: str = ""
    password: str = ""

    @property
    def path(self) -> str:
        return f"{self.database}/{self.folder}"


def address_of(url: str) -> Address:
    """Of ydb://[user:password@]host:port/database[?folder=lostwax], or ydbs:// with TLS. Raises ValueError."""
    parts = urlsplit(url)
    database, folder = parts.path.strip("/"), parse_qs(parts.query).get("folder", ["lostwax"])[0]
    if parts.scheme not in ("ydb", "ydbs") or not parts.hostname or not parts.port:
        raise ValueError("it must be like ydb://host:2136/database?folder=lostwax, or ydbs:// with TLS")
    if not _NAME.fullmatch(database) or not _NAME.fullmatch(folder):
        raise ValueError("the database and the folder must be names, like /Root/reports and lostwax")
    return Address(
        f"{'grpcs' if parts.scheme == 'ydbs' else 'grpc'}://{parts.hostname}:{parts.port}",
        f"/{database}",
        folder,
        unquote(parts.username or ""),
        unquote(parts.password or ""),
    )


class _Opened(msgspec.Struct, frozen=True):
    driver: Any
    pool: Any
    patience_s: float


class YdbWarehouse:
    """Connects at the first need. Tables that are missing are made, columns that are missing added. `patience_s`: how
    long the server, and another instance's write, are waited for."""

    def __init__(self, address: Address, *, patience_s: float = 5.0) -> None:
        self._address, self._patience_s = address, patience_s
        self._owner = str(new_id())
        self._opened: _Opened | None = None
        self._leaving: set[asyncio.Task[None]] = set()
        self._opening, self._writing = asyncio.Lock(), asyncio.Lock()

    async def write(self, rows: Written, gone: Sequence[Gone] = ()) -> None:
        """All or nothing of it cannot be had here; what was half written is written again by its repetition."""
        async with self._writing:
            ydb_ = await self._open()
            try:
                async with self._lease(ydb_):
                    for table in TABLES:
                        lost = [one for one in gone if one.table is table]
                        if table in rows or lost:
                            await self._put(ydb_, table, rows.get(table, ()), lost)
            except ydb.BadRequest:
                raise  # the rows' own fault; whoever reads them finds out which
            except (ydb.Error, TimeoutError) as error:
                raise WarehouseAway(_said(error)) from error

    async def query(self, sql: str, parameters: Mapping[str, Value], limits: Limits) -> Answer:
        _check_one_select(sql)
        used = set(_PARAMETER.findall(sql))
        given = {name: value for name, value in parameters.items() if name in used}
        ydb_ = await self._open()
        begun = False

        async def work(session: Any) -> Answer:
            nonlocal begun
            begun = True
            return await self._asked(session, sql, given, limits)

        try:
            async with asyncio.timeout(limits.seconds):
                return await _with_session(ydb_, work)
        except TimeoutError:
            if not begun:
                raise WarehouseAway("no session could be had") from None
            raise QueryTooBig(f"it took longer than {limits.seconds:g} s") from None
        except (ydb.BadRequest, ydb.GenericError, ydb.SchemeError, ydb.PreconditionFailed, ydb.Unsupported) as error:
            raise QueryFailed(_said(error)) from error
        except ydb.Error as error:
            raise WarehouseAway(_said(error)) from error

    async def freshness(self) -> Freshness:
        answer = await self.query(NEWEST_SQL, {}, Limits())
        told = dict(zip(answer.columns, answer.rows[0], strict=True))
        return Freshness(told["source_at"], told["captured_at"])

    async def forget(self) -> None:
        """A table at a time: what is read meanwhile may have lost some of them."""
        async with self._writing:
            ydb_ = await self._open()
            try:
                async with self._lease(ydb_):
                    for table in TABLES:
                        await self._execute(ydb_, f"DELETE FROM {table.name}")
            except (ydb.Error, TimeoutError) as error:
                raise WarehouseAway(_said(error)) from error

    async def close(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            try:
                async with asyncio.timeout(self._patience_s):
                    await opened.pool.stop()
                    await opened.driver.stop()
            except (ydb.Error, TimeoutError) as error:
                log.info("ydb was not left in order", extra={"error": _said(error)})

    # -- opening --------------------------------------------------------------------------------------------------

    async def _open(self) -> _Opened:
        async with self._opening:
            if self._opened is not None:
                return self._opened
            address = self._address
            config = ydb.DriverConfig(
                address.endpoint,
                address.database,
                credentials=ydb.StaticCredentials.from_user_password(address.user, address.password)
                if address.user
                else ydb.AnonymousCredentials(),
                discovery_request_timeout=max(1, round(self._patience_s)),
            )
            driver = ydb.aio.Driver(config)
            try:
                await driver.wait(timeout=self._patience_s, fail_fast=True)
                opened = _Opened(driver, ydb.aio.QuerySessionPool(driver, size=_AT_ONCE), self._patience_s)
                async with asyncio.timeout(_LEASE_S):
                    await self._make_all(opened)
            except (ydb.Error, TimeoutError) as error:
                self._leave(driver)
                raise WarehouseAway(f"{address.endpoint}{address.path} cannot be opened: {_said(error)}") from error
            except BaseException:
                self._leave(driver)
                raise
            self._opened = opened
            return opened

    def _leave(self, driver: Any) -> None:
        # It takes the ten seconds that its look for servers may last; nobody needs to wait for that.
        leaving = asyncio.create_task(driver.stop())
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)

    async def _make_all(self, ydb_: _Opened) -> None:
        path = self._address.database
        for part in self._address.folder.split("/"):
            path = f"{path}/{part}"
            await ydb_.driver.scheme_client.make_directory(path)
        await self._execute(ydb_, _LEASE)
        for table in TABLES:
            await self._execute(ydb_, create_sql(table))
            parts = await self._execute(ydb_, f"SELECT * FROM {table.name} LIMIT 0")
            has = {column.name for part in parts for column in part.columns}
            # A later release may tell more: what is there gets null until it is copied anew.
            for column in table.columns:
                if has and column.name not in has:
                    await self._execute(ydb_, f"ALTER TABLE {table.name} ADD COLUMN {column.name} {_TYPE[column.type]}")

    async def _execute(self, ydb_: _Opened, sql: str) -> list[Any]:
        async def work(session: Any) -> list[Any]:
            return [part async for part in await session.execute(self._text(sql, {}))]

        return await _with_session(ydb_, work)

    def _text(self, sql: str, types: Mapping[str, str]) -> str:
        declared = "".join(f"DECLARE ${name} AS {type_};\n" for name, type_ in sorted(types.items()))
        return f'PRAGMA TablePathPrefix("{self._address.path}");\n{declared}{sql}'

    # -- one writer at a time ---------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _lease(self, ydb_: _Opened) -> AsyncIterator[None]:
        """Raises WarehouseAway when another writes for long."""
        clock = asyncio.get_running_loop().time
        give_up = clock() + self._patience_s
        while True:
            asked = clock()
            async with asyncio.timeout(_REQUEST_S):
                holder = await self._take_lease(ydb_, _LEASE_S)
            if holder == self._owner:
                break
            if clock() > give_up:
                raise WarehouseAway(f"another instance of Reporting writes: {holder}")
            await asyncio.sleep(0.1)
        try:
            async with asyncio.timeout_at(asked + _WRITE_S):
                yield
        finally:
            try:
                async with asyncio.timeout(_REQUEST_S):
                    await self._take_lease(ydb_, 0.0)
            except (ydb.Error, TimeoutError, WarehouseAway) as error:
                log.info("the warehouse's lease ends by itself", extra={"error": _said(error)})

    async def _take_lease(self, ydb_: _Opened, seconds: float) -> str:
        """The owner after it; safe to repeat when its outcome is not known."""

        async def work(session: Any) -> str:
            async with session.transaction(ydb.QuerySerializableReadWrite()) as tx:
                await tx.begin()
                holder = await take(tx)
                await tx.commit()
            return holder

        async def take(tx: Any) -> str:
            held = await _rows(await tx.execute(self._text(_LEASE_READ, {})))
            if held and held[0]["owner"] != self._owner and held[0]["until"] > held[0]["now"]:
                return str(held[0]["owner"])
            [clock] = held or await _rows(await tx.execute(self._text(_LEASE_CLOCK, {})))
            until = clock["now"] + timedelta(seconds=seconds)
            types = {"owner": "Utf8", "until": "Timestamp"}
            given = _typed({"owner": self._owner, "until": until}, types)
            await _rows(await tx.execute(self._text(_LEASE_WRITE, types), given))
            return self._owner

        return await _with_session(ydb_, work)

    # -- rows -------------------------------------------------------------------------------------------------------

    async def _put(self, ydb_: _Opened, table: Table, rows: Sequence[Row], gone: Sequence[Gone]) -> None:
        width, names = len(table.key), table.names
        keys = sorted({row[:width] for row in rows} | {one.key for one in gone})
        known = await self._known(ydb_, table, keys)
        made = dict(known)
        for row in rows:
            key = row[:width]
            before = made.get(key)
            made[key] = row if before is None else merged(table, before, row)
        origin = names.index("origin")
        for one in gone:
            found = made.get(one.key)
            if found is not None and found[origin] == one.origin:
                told = dict(zip(names, found, strict=True)) | {"deleted": 1, "captured_at": one.captured_at}
                made[one.key] = tuple(told.values())
        if table is HISTORY:
            made = _with_former(made)
        types = ydb.BulkUpsertColumns()
        for column in table.columns:
            type_ = getattr(ydb.PrimitiveType, _TYPE[column.type])
            types.add_column(column.name, type_ if column.name in table.key else ydb.OptionalType(type_))
        settings = ydb.BaseRequestSettings().with_timeout(_REQUEST_S).with_cancel_after(_REQUEST_S)
        for block in _blocks([row for key, row in sorted(made.items()) if row is not known.get(key)]):
            told_rows = [dict(zip(names, row, strict=True)) for row in block]
            await ydb.aio.retry_operation(
                ydb_.driver.table_client.bulk_upsert,
                _retrying(),
                f"{self._address.path}/{table.name}",
                told_rows,
                types,
                settings,
            )

    async def _known(self, ydb_: _Opened, table: Table, keys: Sequence[Row]) -> dict[Row, Row]:
        """What is in of `keys`, by key; of history all versions of their orders."""
        found: dict[Row, Row] = {}
        asked = table.key[:1] if table is HISTORY else table.key
        types = {f"k{n}": f"List<{_TYPE[table.columns[n].type]}>" for n in range(len(asked))}
        where = " AND ".join(f"{name} IN $k{n}" for n, name in enumerate(asked))
        sql = self._text(f"SELECT {', '.join(table.names)} FROM {table.name} WHERE {where}", types)
        for start in range(0, len(keys), _KEYS_AT_ONCE):
            some = keys[start : start + _KEYS_AT_ONCE]
            # With a key of two columns these are more rows than were asked for, of the same orders.
            parts = {f"k{n}": sorted({key[n] for key in some}) for n in range(len(asked))}
            given, wanted = _typed(parts, types), {key[: len(asked)] for key in some}

            async def read(
                session: Any, given: Mapping[str, Any] = given, wanted: Collection[Row] = wanted
            ) -> list[Row]:
                async with session.transaction(ydb.QuerySnapshotReadOnly()) as tx:
                    rows = await _rows(await tx.execute(sql, given, commit_tx=True))
                told = (tuple(_told(row[name]) for name in table.names) for row in rows)
                return [row for row in told if row[: len(asked)] in wanted]

            for row in await _with_session(ydb_, read):
                found[row[: len(table.key)]] = row
        return found

    async def _asked(self, session: Any, sql: str, given: Mapping[str, Value], limits: Limits) -> Answer:
        types = {name: _GIVEN_TYPE.get(type(value), "Utf8?") for name, value in given.items()}
        settings = ydb.BaseRequestSettings().with_timeout(limits.seconds)
        # What is read-only here is so in the server, whatever the SQL says.
        async with session.transaction(ydb.QuerySnapshotReadOnly()) as tx:
            stream = await tx.execute(self._text(sql, types), _typed(given, types), commit_tx=True, settings=settings)
            columns: tuple[str, ...] = ()
            rows: list[Row] = []
            try:
                async for part in stream:
                    columns = tuple(column.name for column in part.columns)
                    rows += [tuple(_told(row[name]) for name in columns) for row in part.rows]
                    if len(rows) > limits.rows:
                        raise QueryTooBig(f"it came to more than {limits.rows} rows")
            except BaseException:
                stream.cancel()
                raise
        return Answer(columns, rows)


def create_sql(table: Table) -> str:
    """YQL that makes a table where there is none: by columns, spread by its key."""
    columns = ", ".join(
        f"{column.name} {_TYPE[column.type]}{' NOT NULL' if column.name in table.key else ''}"
        for column in table.columns
    )
    key = ", ".join(table.key)
    return (
        f"CREATE TABLE IF NOT EXISTS {table.name} ({columns}, PRIMARY KEY ({key}))"
        f" PARTITION BY HASH({key}) WITH (STORE = COLUMN)"
    )


def _with_former(history: Mapping[Row, Row]) -> dict[Row, Row]:
    orders: dict[Any, list[Row]] = {}
    for row in history.values():
        orders.setdefault(row[0], []).append(row)
    width = len(HISTORY.key)
    return {row[:width]: row for rows in orders.values() for row in with_former(rows)}


def _blocks(rows: Sequence[Row]) -> Iterator[list[Row]]:
    block: list[Row] = []
    size = 0
    for row in rows:
        size += sum(len(value.encode()) + 4 if isinstance(value, str) else 12 for value in row)
        block.append(row)
        if size >= _BLOCK_BYTES:
            yield block
            block, size = [], 0
    if block:
        yield block


def _check_one_select(sql: str) -> None:
    """A second lock beside the server's. Reports and analysts' SQL are what both warehouses read."""
    try:
        statements = duckdb.extract_statements(sql)
    except duckdb.Error as error:
        raise QueryFailed(str(error)) from error
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise QueryFailed("it must be one SELECT")


async def _with_session(ydb_: _Opened, work: Callable[[Any], Awaitable[_T]]) -> _T:
    """Done again where YDB's errors advise it, so it must be what may be done twice. Raises WarehouseAway when there is
    no session to be had: the SDK itself would wait for a server without end."""

    async def try_it() -> _T:
        try:
            async with asyncio.timeout(ydb_.patience_s):
                session = await ydb_.pool.acquire()
        except TimeoutError:
            raise WarehouseAway("no session could be had") from None
        try:
            return await work(session)
        finally:
            await ydb_.pool.release(session)

    done: _T = await ydb.aio.retry_operation(try_it, _retrying())
    return done


def _retrying() -> Any:
    """Patience is the consumer's, so this gives up within seconds."""
    return ydb.RetrySettings(max_retries=4, idempotent=True, backoff_slot_duration=0.05)


def _typed(values: Mapping[str, Any], types: Mapping[str, str]) -> dict[str, Any]:
    return {f"${name}": ydb.TypedValue(value, _type(types[name])) for name, value in values.items()}


def _type(name: str) -> Any:
    if name.startswith("List<"):
        return ydb.ListType(_type(name[5:-1]))
    return ydb.OptionalType(_type(name[:-1])) if name.endswith("?") else getattr(ydb.PrimitiveType, name)


async def _rows(stream: Any) -> list[Any]:
    found: list[Any] = []
    async for part in stream:
        found += part.rows
    return found


def _told(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC)
    # A text that a query itself writes is String in YQL, which is bytes.
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _said(error: BaseException) -> str:
    told = "; ".join(_messages(getattr(error, "issues", None) or ()))
    return told or str(error) or type(error).__name__


def _messages(issues: Iterable[Any]) -> Iterator[str]:
    for issue in issues:
        # What is told by another's issues says no more than that there are some.
        if issue.issues:
            yield from _messages(issue.issues)
        else:
            yield issue.message
