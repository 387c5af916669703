"""A stand-in for YDB on its wire: the gRPC services that the SDK calls, over DuckDB. It knows the subset of YQL that
both have in common, and holds YDB's rules where they differ from DuckDB's: DECLAREd parameters, key columns NOT NULL,
DDL in no transaction, whole rows of the right types in BulkUpsert, whose size it notes. What it cannot show is in
docs/how-to/ydb.md."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any
from uuid import uuid4 as any_id  # noqa: TID251  ids of sessions are YDB's

import duckdb
import grpc
import grpc.aio
import pyarrow as pa
import ydb
from ydb import convert
from ydb._grpc.v6 import ydb_discovery_v1_pb2_grpc as discovery_grpc
from ydb._grpc.v6 import ydb_query_v1_pb2_grpc as query_grpc
from ydb._grpc.v6 import ydb_scheme_v1_pb2_grpc as scheme_grpc
from ydb._grpc.v6 import ydb_table_v1_pb2_grpc as table_grpc
from ydb._grpc.v6.protos import ydb_discovery_pb2 as discovery
from ydb._grpc.v6.protos import ydb_operation_pb2 as operation
from ydb._grpc.v6.protos import ydb_query_pb2 as query
from ydb._grpc.v6.protos import ydb_scheme_pb2 as scheme
from ydb._grpc.v6.protos import ydb_table_pb2 as table
from ydb._grpc.v6.protos import ydb_value_pb2 as value

STATUS = ydb.StatusCode
_PART = 1000
_OVERTAKEN = (duckdb.TransactionException, duckdb.ConstraintException)
"""DuckDB's two ways to say that another transaction was quicker; an upsert breaks no constraint by itself."""
_SQL_TYPE = {"Utf8": "VARCHAR", "Int64": "BIGINT", "Double": "DOUBLE", "Timestamp": "TIMESTAMP"}
_YDB_TYPE = {
    "VARCHAR": "Utf8", "BIGINT": "Int64", "INTEGER": "Int64", "HUGEINT": "Int64", "DOUBLE": "Double",
    "TIMESTAMP": "Timestamp", "BOOLEAN": "Bool",
}  # fmt: skip
_ARROW_TYPE = {
    "Utf8": pa.string(), "Int64": pa.int64(), "Double": pa.float64(), "Timestamp": pa.timestamp("us"),
}  # fmt: skip
_PREFIX = re.compile(r'\s*PRAGMA TablePathPrefix\("([^"]+)"\);')
_DECLARE = re.compile(r"\s*DECLARE \$(\w+) AS ([\w<>?]+);")
_CREATE = re.compile(
    r"(CREATE TABLE IF NOT EXISTS \w+ \(.*PRIMARY KEY \(([^)]*)\)\))"
    r"(?: PARTITION BY HASH\([^)]*\) WITH \(STORE = COLUMN\))?",
    re.S,
)


class _Refused(Exception):
    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class _Transaction:
    def __init__(self, connection: duckdb.DuckDBPyConnection, *, only_reads: bool) -> None:
        self.connection, self.only_reads = connection, only_reads


class StandIn:
    """`failures`: statuses that the next BulkUpserts are answered with instead. `blocks`: sizes of those that came, in
    bytes. `stopped`: a query was given up by who asked."""

    def __init__(self) -> None:
        self.database = duckdb.connect(":memory:", config={"threads": 2, "memory_limit": "256MB"})
        self.database.execute("CREATE OR REPLACE MACRO percentile(x, p) AS quantile_cont(x, p)")
        self.database.execute("CREATE OR REPLACE MACRO CurrentUtcTimestamp() AS (now() AT TIME ZONE 'UTC')")
        self.database.execute("SET enable_external_access = false")
        self.failures: list[int] = []
        self.blocks: list[int] = []
        self.stopped = asyncio.Event()
        self.port = 0
        self.sessions: dict[str, asyncio.Event] = {}
        self.transactions: dict[str, _Transaction] = {}

    def cursor(self) -> duckdb.DuckDBPyConnection:
        return self.database.cursor()

    def begin(self, settings: query.TransactionSettings) -> str:
        connection = self.cursor()
        connection.begin()
        only_reads = settings.WhichOneof("tx_mode") in ("snapshot_read_only", "online_read_only", "stale_read_only")
        self.transactions[name := str(any_id())] = _Transaction(connection, only_reads=only_reads)
        return name

    def end(self, name: str, how: str) -> None:
        if (transaction := self.transactions.pop(name, None)) is None:
            raise _Refused(STATUS.NOT_FOUND, f"no transaction {name}")
        try:
            transaction.connection.execute(how)
        except _OVERTAKEN as error:
            raise _Refused(STATUS.ABORTED, str(error)) from error
        finally:
            transaction.connection.close()

    async def run(
        self, connection: duckdb.DuckDBPyConnection, only_reads: bool | None, request: query.ExecuteQueryRequest
    ) -> value.ResultSet:
        """`only_reads`: None outside transactions."""
        sql, given = _read(connection, request.query_content.text, request.parameters)
        if only_reads is not None and re.match(r"\s*(CREATE|ALTER|DROP)\b", sql):
            raise _Refused(STATUS.PRECONDITION_FAILED, "Scheme operations cannot be executed inside transaction")
        try:
            statements = connection.extract_statements(sql)
            reads = {duckdb.StatementType.SELECT}
            if only_reads and any(statement.type not in reads for statement in statements):
                raise _Refused(STATUS.GENERIC_ERROR, "data modifications in a read-only transaction")
            working = asyncio.get_running_loop().run_in_executor(None, _executed, connection, statements, given)
            try:
                return await asyncio.shield(working)
            except asyncio.CancelledError:
                self.stopped.set()
                connection.interrupt()
                await asyncio.wait([working])
                working.exception()
                raise
        except _OVERTAKEN as error:
            raise _Refused(STATUS.ABORTED, str(error)) from error
        except duckdb.CatalogException as error:
            raise _Refused(STATUS.SCHEME_ERROR, str(error)) from error
        except duckdb.Error as error:
            raise _Refused(STATUS.GENERIC_ERROR, str(error)) from error

    def upsert(self, path: str, rows: value.TypedValue) -> None:
        folder, _, name = path.rpartition("/")
        members = rows.type.list_type.item.struct_type.members
        told = {member.name: _SQL_TYPE[str(convert.type_to_native(_inner(member.type)).name)] for member in members}
        connection = self.cursor()
        _enter(connection, folder)
        has = {row[0]: row[1] for row in connection.execute(f"DESCRIBE {name}").fetchall()}
        if told != has:
            raise _Refused(STATUS.SCHEME_ERROR, f"{name} has {has}, not {told}")
        structs = _natives(rows)
        columns = {
            member.name: pa.array(
                [row[member.name] for row in structs],
                _ARROW_TYPE[str(convert.type_to_native(_inner(member.type)).name)],
            )
            for member in members
        }
        connection.register("incoming", pa.table(columns))
        names = ", ".join(columns)
        connection.execute(f"INSERT OR REPLACE INTO {name} ({names}) SELECT {names} FROM incoming")
        connection.close()


def _inner(type_: value.Type) -> value.Type:
    return type_.optional_type.item if type_.WhichOneof("type") == "optional_type" else type_


class _Native:
    _native_date_in_result_sets = _native_datetime_in_result_sets = _native_timestamp_in_result_sets = True
    _native_interval_in_result_sets = _native_json_in_result_sets = True


def _natives(typed: value.TypedValue) -> Any:
    return convert._to_native_value(typed.type, typed.value, _Native())


def _enter(connection: duckdb.DuckDBPyConnection, folder: str) -> None:
    try:
        connection.execute(f"SET search_path = '\"{folder}\",main'")
    except duckdb.CatalogException as error:
        raise _Refused(STATUS.SCHEME_ERROR, f"there is no {folder}") from error


def _read(
    connection: duckdb.DuckDBPyConnection, text: str, parameters: Mapping[str, value.TypedValue]
) -> tuple[str, dict[str, Any]]:
    """YQL as DuckDB's SQL."""
    if (prefix := _PREFIX.match(text)) is not None:
        _enter(connection, prefix.group(1))
        text = text[prefix.end() :]
    declared: dict[str, str] = {}
    while (declare := _DECLARE.match(text)) is not None:
        declared[declare.group(1)] = declare.group(2)
        text = text[declare.end() :]
    if declared.keys() != {name.removeprefix("$") for name in parameters}:
        raise _Refused(STATUS.BAD_REQUEST, f"declared {sorted(declared)}, given {sorted(parameters)}")
    if (create := _CREATE.fullmatch(text.strip())) is not None:
        text = create.group(1)
        for key in create.group(2).split(", "):
            if not re.search(rf"\b{key} \w+ NOT NULL", text):
                raise _Refused(STATUS.BAD_REQUEST, f"key column {key} must be NOT NULL")
    if re.match(r"\s*(CREATE|ALTER) TABLE", text):
        for theirs, ours in _SQL_TYPE.items():
            text = re.sub(rf"\b{theirs}\b", ours, text)
    text = re.sub(r"^\s*UPSERT INTO", "INSERT OR REPLACE INTO", text)
    return text, {name.removeprefix("$"): _natives(typed) for name, typed in parameters.items()}


def _executed(
    connection: duckdb.DuckDBPyConnection, statements: list[Any], given: Mapping[str, Any]
) -> value.ResultSet:
    found = value.ResultSet()
    for statement in statements:
        connection.execute(statement, given)
    if not statements or statements[-1].type != duckdb.StatementType.SELECT:
        return found
    types = []
    for name, type_, *_ in connection.description or ():
        types.append(ydb.OptionalType(getattr(ydb.PrimitiveType, _YDB_TYPE.get(str(type_), "Utf8"))).proto)
        found.columns.add(name=name, type=types[-1])
    for row in connection.fetchall():
        items = found.rows.add().items
        for type_pb, item in zip(types, row, strict=True):
            known = item is None or isinstance(item, str | int | float | datetime)
            items.append(convert.from_native_value(type_pb, item if known else str(item)))
    return found


def _operation(status: int = STATUS.SUCCESS, text: str = "", result: Any = None) -> operation.Operation:
    made = operation.Operation(id="", ready=True, status=int(status))
    if text:
        made.issues.add(message=text)
    if result is not None:
        made.result.Pack(result)
    return made


class _Discovery(discovery_grpc.DiscoveryServiceServicer):
    def __init__(self, stand_in: StandIn) -> None:
        self.at = stand_in

    async def ListEndpoints(self, request: Any, context: Any) -> Any:
        here = discovery.EndpointInfo(address="127.0.0.1", port=self.at.port, node_id=1)
        return discovery.ListEndpointsResponse(
            operation=_operation(result=discovery.ListEndpointsResult(endpoints=[here]))
        )


class _Scheme(scheme_grpc.SchemeServiceServicer):
    def __init__(self, stand_in: StandIn) -> None:
        self.at = stand_in

    async def MakeDirectory(self, request: Any, context: Any) -> Any:
        with self.at.cursor() as connection:
            connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{request.path}"')
        return scheme.MakeDirectoryResponse(operation=_operation())

    async def ListDirectory(self, request: Any, context: Any) -> Any:
        with self.at.cursor() as connection:
            names = connection.execute(
                "SELECT table_name FROM information_schema.tables WHERE table_schema = ?", [request.path]
            ).fetchall()
        children = [scheme.Entry(name=name, type=scheme.Entry.COLUMN_TABLE) for (name,) in names]
        listed = scheme.ListDirectoryResult(children=children)
        return scheme.ListDirectoryResponse(operation=_operation(result=listed))


class _Table(table_grpc.TableServiceServicer):
    def __init__(self, stand_in: StandIn) -> None:
        self.at = stand_in

    async def CreateSession(self, request: Any, context: Any) -> Any:
        made = table.CreateSessionResult(session_id=str(any_id()))
        return table.CreateSessionResponse(operation=_operation(result=made))

    async def DeleteSession(self, request: Any, context: Any) -> Any:
        return table.DeleteSessionResponse(operation=_operation())

    async def BulkUpsert(self, request: Any, context: Any) -> Any:
        if self.at.failures:
            return table.BulkUpsertResponse(operation=_operation(self.at.failures.pop(0), "as the test wished"))
        self.at.blocks.append(request.ByteSize())
        try:
            await asyncio.to_thread(self.at.upsert, request.table, request.rows)
        except _Refused as refused:
            return table.BulkUpsertResponse(operation=_operation(refused.status, str(refused)))
        except duckdb.Error as error:
            return table.BulkUpsertResponse(operation=_operation(STATUS.BAD_REQUEST, str(error)))
        return table.BulkUpsertResponse(operation=_operation(result=table.BulkUpsertResult()))


class _Query(query_grpc.QueryServiceServicer):
    def __init__(self, stand_in: StandIn) -> None:
        self.at = stand_in

    async def CreateSession(self, request: Any, context: Any) -> Any:
        self.at.sessions[name := str(any_id())] = asyncio.Event()
        return query.CreateSessionResponse(status=STATUS.SUCCESS, session_id=name, node_id=1)

    async def DeleteSession(self, request: Any, context: Any) -> Any:
        if (ended := self.at.sessions.pop(request.session_id, None)) is not None:
            ended.set()
        return query.DeleteSessionResponse(status=STATUS.SUCCESS)

    async def AttachSession(self, request: Any, context: Any) -> AsyncIterator[Any]:
        if (ended := self.at.sessions.get(request.session_id)) is None:
            yield query.SessionState(status=STATUS.BAD_SESSION)
            return
        yield query.SessionState(status=STATUS.SUCCESS)
        await ended.wait()

    async def BeginTransaction(self, request: Any, context: Any) -> Any:
        name = self.at.begin(request.tx_settings)
        return query.BeginTransactionResponse(status=STATUS.SUCCESS, tx_meta=query.TransactionMeta(id=name))

    async def CommitTransaction(self, request: Any, context: Any) -> Any:
        return query.CommitTransactionResponse(**self._ended(request.tx_id, "COMMIT"))

    async def RollbackTransaction(self, request: Any, context: Any) -> Any:
        return query.RollbackTransactionResponse(**self._ended(request.tx_id, "ROLLBACK"))

    def _ended(self, name: str, how: str) -> dict[str, Any]:
        try:
            self.at.end(name, how)
        except _Refused as refused:
            return {"status": refused.status}
        return {"status": STATUS.SUCCESS}

    async def ExecuteQuery(self, request: Any, context: Any) -> AsyncIterator[Any]:
        control = request.tx_control
        own = self.at.begin(control.begin_tx) if control.WhichOneof("tx_selector") == "begin_tx" else ""
        name = own or control.tx_id
        try:
            if request.session_id not in self.at.sessions:
                raise _Refused(STATUS.BAD_SESSION, "no such session")
            if name:
                if (transaction := self.at.transactions.get(name)) is None:
                    raise _Refused(STATUS.NOT_FOUND, f"no transaction {name}")
                found = await self.at.run(transaction.connection, transaction.only_reads, request)
            else:
                with self.at.cursor() as connection:
                    found = await self.at.run(connection, None, request)
            if name and control.commit_tx:
                self.at.end(name, "COMMIT")
        except _Refused as refused:
            # A transaction that met an error is over, in YDB too.
            if name in self.at.transactions:
                self.at.end(name, "ROLLBACK")
            part = query.ExecuteQueryResponsePart(status=refused.status)
            part.issues.add(message=str(refused))
            yield part
            return
        except asyncio.CancelledError:
            if name in self.at.transactions:
                self.at.end(name, "ROLLBACK")
            raise
        meta = query.TransactionMeta(id="" if control.commit_tx else name)
        for start in range(0, max(1, len(found.rows)), _PART):
            rows = value.ResultSet(columns=found.columns, rows=found.rows[start : start + _PART])
            if not found.columns:
                yield query.ExecuteQueryResponsePart(status=STATUS.SUCCESS, tx_meta=meta)
            else:
                yield query.ExecuteQueryResponsePart(status=STATUS.SUCCESS, tx_meta=meta, result_set=rows)


@asynccontextmanager
async def serving(at: StandIn) -> AsyncIterator[StandIn]:
    """Listens on 127.0.0.1 until the end; on the same port when it did before, with what is in."""
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", 64_000_000)])
    added: list[tuple[Callable[[Any, Any], None], Any]] = [
        (discovery_grpc.add_DiscoveryServiceServicer_to_server, _Discovery(at)),
        (scheme_grpc.add_SchemeServiceServicer_to_server, _Scheme(at)),
        (table_grpc.add_TableServiceServicer_to_server, _Table(at)),
        (query_grpc.add_QueryServiceServicer_to_server, _Query(at)),
    ]
    for add, servicer in added:
        add(servicer, server)
    at.port = server.add_insecure_port(f"127.0.0.1:{at.port}")
    await server.start()
    try:
        yield at
    finally:
        await server.stop(grace=0)
        at.sessions.clear()
