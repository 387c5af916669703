"""HTTP of Reporting: the standard reports, and SQL of analysts."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import date, datetime, timedelta
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import msgspec
import pyarrow as pa
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from lostwax.contracts.ids import new_id
from lostwax.contracts.staff import Role
from lostwax.kit.auth import BadCredentials, Member, ServiceVerifier
from lostwax.kit.http import Operation, Parameter, answer, query
from lostwax.kit.problems import Problem, try_later
from lostwax.kit.service_calls import CONSOLE
from lostwax.kit.staff import STAFF_AUTH, StaffDoor, admitted, staff_token
from lostwax.reporting.formats import MEDIA, Format, csv_text, format_wanted, parquet_bytes, plain, table_of
from lostwax.reporting.reports import (
    LONGEST_DAYS,
    REPORTS,
    USUAL_DAYS,
    Report,
    Span,
    filled,
    parameters,
    statement,
)
from lostwax.reporting.sql_allowed import Refused, check_sql
from lostwax.reporting.tables import TABLES
from lostwax.reporting.warehouse import Answer, Limits, QueryFailed, QueryTooBig, Value, Warehouse, WarehouseAway

log = logging.getLogger(__name__)

MOST_ROWS, USUAL_ROWS = 10_000, 1000
MOST_OFFSET = 1_000_000
REPORT_SECONDS = 20.0
SQL_ROWS, SQL_SECONDS, SQL_SHARE = 10_000, 30.0, 0.6
AT_ONCE = 2
"""Statements of analysts that run at the same time; more are told to come again."""

_PERIOD = "one day, as 2026-03-09"
_ARROW = {"text": pa.string(), "integer": pa.int64(), "number": pa.float64()}


class ColumnView(msgspec.Struct, frozen=True):
    """`kind`: text, integer or number. `unit` `minor`: hundredths of the row's currency."""

    name: str
    title: str
    kind: str
    unit: str = ""


class ReportView(msgspec.Struct, frozen=True):
    """`groups`: what `group` may be, the first when it is not given. `period`: what happened between `from` and `to`;
    empty: the report is of now. `bars`: columns for a chart."""

    name: str
    title: str
    meaning: str
    groups: list[str]
    period: str
    filters: list[str]
    columns: list[ColumnView]
    bars: list[str]


class Catalogue(msgspec.Struct, frozen=True):
    """The reports that you may read. Days are those of `time_zone`."""

    reports: list[ReportView]
    time_zone: str
    sql: bool


class Earlier(msgspec.Struct, frozen=True):
    """The same for as many days just before."""

    from_: str = msgspec.field(name="from")
    to: str = msgspec.field(name="to")
    rows: list[list[Any]] = msgspec.field(default_factory=list)


class ReportAnswer(msgspec.Struct, frozen=True):
    """`as_of`: when the newest change was made that is counted in; `lag_s`: how long ago that is. `next`: `after` of
    the next page; absent: that was all."""

    report: str
    title: str
    group: str
    time_zone: str
    columns: list[ColumnView]
    rows: list[list[Any]]
    row_count: int
    as_of: datetime | None
    lag_s: float | None
    from_: str | None = msgspec.field(name="from", default=None)
    to: str | None = None
    next: int | None = None
    previous: Earlier | None = None


class Sql(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One SELECT. `rows`: at most so many are answered."""

    sql: Annotated[str, Meta(min_length=1, max_length=20_000)]
    rows: Annotated[int, Meta(ge=1, le=SQL_ROWS)] = 1000
    seconds: Annotated[float, Meta(gt=0, le=SQL_SECONDS)] = 10.0


class SqlAnswer(msgspec.Struct, frozen=True):
    """All the rows there are: more than were asked for is a problem, not a shorter answer."""

    query_id: str
    columns: list[str]
    rows: list[list[Any]]
    row_count: int
    ms: float
    as_of: datetime | None
    lag_s: float | None


class ReportsDoor:
    """Who asks: staff by a bearer token or the page's cookie, or the console."""

    def __init__(self, staff: StaffDoor, services: ServiceVerifier) -> None:
        self.staff, self._services = staff, services

    async def enter(self, request: Request, *roles: Role) -> str:
        """Who it is, for the log. Raises the 401 or 403 Problem."""
        return (await self.caller(request, *roles))[0]

    async def caller(self, request: Request, *roles: Role) -> tuple[str, Role]:
        token = staff_token(request)
        service = self._service(token)
        if service == CONSOLE:
            return CONSOLE, Role.ADMINISTRATOR
        if service is not None:
            raise Problem(403, "service-may-not", "This service may not do this", f"You are {service}; for: {CONSOLE}.")
        member: Member = admitted(await self.staff.member(token), *roles)
        return str(member.staff_id), member.role

    def _service(self, token: str) -> str | None:
        try:
            return self._services.caller(token)
        except BadCredentials:
            return None


def operations(warehouse: Warehouse, door: ReportsDoor, zone: ZoneInfo, now: Callable[[], datetime]) -> list[Operation]:
    under_way: dict[str, asyncio.Task[Answer]] = {}

    async def get_reports(request: Request) -> Response:
        _, role = await door.caller(request, *_ALL_ROLES)
        views = [_view(report) for report in REPORTS.values() if role in report.roles]
        return answer(Catalogue(views, str(zone), role is Role.ADMINISTRATOR))

    async def get_report(request: Request) -> Response:
        _, role = await door.caller(request, *_ALL_ROLES)
        report = REPORTS.get(request.path_params["name"])
        if report is None:
            raise Problem(404, "not-found", "No such report", f"Reports: {', '.join(REPORTS)}.")
        if role not in report.roles:
            raise Problem(
                403,
                "role-may-not",
                "Your role may not do this",
                f"You are signed in as {role}; this is for: {', '.join(report.roles)}.",
            )
        format_ = format_wanted(request.query_params.get("format"), request.headers.get("accept", ""))
        moment = now()
        group = _group(request, report)
        span = _span(request, report, moment.astimezone(zone).date())
        limit: int = query(request, "limit", Annotated[int, Meta(ge=1, le=MOST_ROWS)], USUAL_ROWS)
        offset: int = query(request, "after", Annotated[int, Meta(ge=0, le=MOST_OFFSET)], 0)
        compare = _compare(request, report)
        filters = _filters(request, report)

        names = await _names(warehouse, report, group)
        if filters["partner"]:
            # By name as people know it, else by the account itself.
            filters["partner"] = next(
                (k for k, name in names.items() if name == filters["partner"]), filters["partner"]
            )

        async def rows_of(days: Span | None) -> list[list[Any]]:
            asked = statement(report, group, limit + 1, offset)
            limits = Limits(limit + 1, REPORT_SECONDS)
            found = await _answered(warehouse, asked, parameters(days, filters, moment), limits)
            return filled(report, group, found.columns, found.rows, names, moment)

        rows = await rows_of(span)
        after = offset + limit if len(rows) > limit else None
        earlier = None
        if compare and span is not None:
            before = span.before()
            earlier = Earlier(before.first.isoformat(), before.last.isoformat(), (await rows_of(before))[:limit])
        as_of, lag_s = await _fresh(warehouse, now())
        told = ReportAnswer(
            report.name,
            report.title,
            group,
            str(zone),
            _columns(report, group),
            rows[:limit],
            len(rows[:limit]),
            as_of,
            lag_s,
            None if span is None else span.first.isoformat(),
            None if span is None else span.last.isoformat(),
            after,
            earlier,
        )
        return _report_in(format_, told)

    async def run_sql(request: Request, body: Sql) -> Response:
        who = await door.enter(request, Role.ADMINISTRATOR)
        format_ = format_wanted(request.query_params.get("format"), request.headers.get("accept", ""))
        query_id = new_id().hex
        told: dict[str, Any] = {"query_id": query_id, "by": who, "sql": body.sql}
        try:
            await asyncio.to_thread(check_sql, body.sql, [table.name for table in TABLES])
        except Refused as error:
            log.warning("sql refused", extra=told | {"why": str(error)})
            raise Problem(422, "sql-refused", "This SQL is not allowed", str(error)) from None
        if len(under_way) >= AT_ONCE:
            raise try_later("Other statements are running; send it again when they are done.", after_s=5)
        began = time.monotonic()
        limits = Limits(body.rows, body.seconds, SQL_SHARE)
        work = asyncio.create_task(_answered(warehouse, body.sql, {}, limits))
        gone = asyncio.create_task(_gone(request))
        under_way[query_id] = work
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                work.cancel()
            found = await work
        except asyncio.CancelledError:
            if not work.cancelled():
                raise
            log.info("sql called off", extra=told)
            raise Problem(409, "called-off", "The statement was called off") from None
        except Problem as problem:
            log.info("sql failed", extra=told | {"why": problem.detail})
            raise
        finally:
            gone.cancel()
            work.cancel()
            await asyncio.gather(gone, work, return_exceptions=True)
            del under_way[query_id]
        ms = round((time.monotonic() - began) * 1000, 1)
        log.info("sql answered", extra=told | {"rows": len(found.rows), "ms": ms})
        as_of, lag_s = await _fresh(warehouse, now())
        headers = _stamp(as_of, lag_s, len(found.rows))
        if format_ is Format.PARQUET:
            return _file("sql", format_, parquet_bytes(table_of(found.columns, found.rows)), headers)
        rows = [[plain(value) for value in row] for row in found.rows]
        if format_ is Format.CSV:
            return _file("sql", format_, csv_text(found.columns, rows), headers)
        return answer(SqlAnswer(query_id, list(found.columns), rows, len(rows), ms, as_of, lag_s), headers=headers)

    async def get_sql(request: Request) -> Response:
        await door.enter(request, Role.ADMINISTRATOR)
        return answer(
            Running(sorted(under_way), {t.name: {c.name: f"{c.type}: {c.meaning}" for c in t.columns} for t in TABLES})
        )

    async def cancel_sql(request: Request) -> Response:
        await door.enter(request, Role.ADMINISTRATOR)
        work = under_way.get(request.path_params["query_id"])
        if work is None:
            raise Problem(404, "not-found", "No such statement is running", "See GET /v1/sql.")
        work.cancel()
        return Response(status_code=204)

    days = {"type": "string", "format": "date"}
    text = {"type": "string", "maxLength": 200}
    format_parameter = Parameter(
        "format", "query", {"type": "string", "enum": list(Format)}, "instead of the Accept header"
    )
    asked_by = (
        Parameter("from", "query", days, f"first day; {USUAL_DAYS} days before `to` when left out"),
        Parameter("to", "query", days, "last day, included; today when left out"),
        Parameter("group", "query", text, "one of the report's `groups`"),
        *(Parameter(name, "query", text, f"only this {name}") for name in ("channel", "alloy", "partner")),
        Parameter("compare", "query", {"type": "string", "enum": ["previous"]}, "with as many days just before"),
        Parameter("limit", "query", {"type": "integer", "minimum": 1, "maximum": MOST_ROWS}, "rows a page"),
        Parameter("after", "query", {"type": "integer", "minimum": 0, "maximum": MOST_OFFSET}, "`next` of a page"),
        format_parameter,
    )
    wrong = {400: "a parameter is wrong", 406: "no such format", 422: "it asks for too much"}
    roles = ", ".join(_ALL_ROLES)
    return [
        Operation("GET", "/v1/reports", get_reports, "The reports there are", answers={200: Catalogue},
                  auth=STAFF_AUTH, problems={403: f"for: {roles}"}),
        Operation("GET", "/v1/reports/{name}", get_report, "One report, as JSON, CSV or Parquet",
                  answers={200: ReportAnswer}, auth=STAFF_AUTH, parameters=asked_by,
                  problems=wrong | {403: f"for: {roles}; see each report", 404: "no such report"}),
        Operation("GET", "/v1/sql", get_sql, "What SQL may be asked of, and what is running", answers={200: Running},
                  auth=STAFF_AUTH, problems={403: "for administrators"}),
        Operation("POST", "/v1/sql", run_sql, "Answer one SELECT over the warehouse", body=Sql,
                  answers={200: SqlAnswer}, auth=STAFF_AUTH, parameters=(format_parameter,),
                  problems={403: "for administrators", 406: "no such format", 409: "called off",
                            422: "not allowed, not understood, or it asks for too much"}),
        Operation("DELETE", "/v1/sql/{query_id}", cancel_sql, "Call a running statement off", answers={204: None},
                  auth=STAFF_AUTH, problems={403: "for administrators", 404: "not running"}),
    ]  # fmt: skip


class Running(msgspec.Struct, frozen=True):
    """`running`: ids of statements. `tables`: table -> column -> its type and meaning."""

    running: list[str]
    tables: dict[str, dict[str, str]]


_ALL_ROLES = tuple({role: None for report in REPORTS.values() for role in report.roles})


async def _answered(warehouse: Warehouse, sql: str, given: Mapping[str, Value], limits: Limits) -> Answer:
    """The warehouse's answer; what is wrong with the question as a Problem."""
    try:
        return await warehouse.query(sql, given, limits)
    except QueryTooBig as error:
        detail = f"Because {error}. Ask for fewer days or rows, filter, or add up."
        raise Problem(422, "too-much", "This is too much at once", detail) from None
    except QueryFailed as error:
        raise Problem(422, "sql-wrong", "The warehouse does not take this", str(error)) from None
    except WarehouseAway as error:
        raise _away(error) from None


def _away(error: WarehouseAway) -> Problem:
    log.warning("warehouse away", extra={"error": str(error)})
    return try_later("The warehouse of reports does not answer. Ask again later.", after_s=10, code="unavailable")


async def _names(warehouse: Warehouse, report: Report, group: str) -> dict[str, str]:
    """Account -> name, as far as this report tells any. Of two with one name, each gets the end of its account too."""
    if group == "operator":
        sql = "SELECT operator_id, name FROM operators"
    elif "partner" in report.filters:
        sql = "SELECT partner, name FROM partners"
    else:
        return {}
    rows = (await _answered(warehouse, sql, {}, Limits())).rows
    often = Counter(name for _, name in rows)
    return {account: name if often[name] == 1 else f"{name} ({account[-6:]})" for account, name in rows if name}


async def _gone(request: Request) -> None:
    """Returns when the client has hung up."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _fresh(warehouse: Warehouse, moment: datetime) -> tuple[datetime | None, float | None]:
    try:
        as_of = (await warehouse.freshness()).as_of
    except WarehouseAway as error:
        raise _away(error) from None
    return as_of, None if as_of is None else round(max(0.0, (moment - as_of).total_seconds()), 1)


def _wrong(name: str, detail: str) -> Problem:
    return Problem(400, "bad-parameter", "A query parameter is wrong", f"{name}: {detail}")


def _group(request: Request, report: Report) -> str:
    group = request.query_params.get("group")
    if not report.groups:
        if group is not None:
            raise _wrong("group", "this report is not grouped.")
        return ""
    if group is None:
        return next(iter(report.groups))
    if group not in report.groups:
        raise _wrong("group", f"one of {', '.join(report.groups)}.")
    return group


def _compare(request: Request, report: Report) -> bool:
    compare = request.query_params.get("compare")
    if compare not in (None, "previous"):
        raise _wrong("compare", "it may be `previous`.")
    if compare and not report.groups:
        raise _wrong("compare", "this report has no period to compare, or is a list.")
    return compare is not None


def _span(request: Request, report: Report, today: date) -> Span | None:
    if not report.period:
        for name in ("from", "to"):
            if name in request.query_params:
                raise _wrong(name, "this report is of now, without a period.")
        return None

    def day(name: str, otherwise: date) -> date:
        text = request.query_params.get(name)
        if text is None:
            return otherwise
        try:
            return date.fromisoformat(text)
        except ValueError:
            raise _wrong(name, f"{_PERIOD}.") from None

    last = day("to", today)
    if last.year < 2000:
        raise _wrong("to", "not before 2000.")
    span = Span(day("from", last - timedelta(days=USUAL_DAYS - 1)), last)
    if span.days < 1:
        raise _wrong("from", f"it is after to ({span.last}).")
    if span.days > LONGEST_DAYS:
        raise Problem(
            422, "too-long", "The period is too long", f"{span.days} days were asked for; at most {LONGEST_DAYS}."
        )
    return span


def _filters(request: Request, report: Report) -> dict[str, str]:
    given = {name: request.query_params.get(name, "") for name in ("channel", "alloy", "partner")}
    for name, value in given.items():
        if value and name not in report.filters:
            raise _wrong(name, f"this report can be filtered by: {', '.join(report.filters)}.")
        if len(value) > 200 or "\0" in value:
            raise _wrong(name, "at most 200 characters, no U+0000.")
    return given


def _view(report: Report) -> ReportView:
    columns = _columns(report, "")
    groups, filters, bars = list(report.groups), list(report.filters), list(report.bars)
    return ReportView(report.name, report.title, report.meaning, groups, report.period, filters, columns, bars)


def _columns(report: Report, group: str) -> list[ColumnView]:
    return [
        ColumnView(column.name, column.title or group or "group", column.kind, column.unit) for column in report.columns
    ]


def _stamp(as_of: datetime | None, lag_s: float | None, rows: int) -> dict[str, str]:
    stamp = {"Cache-Control": "no-store", "X-Row-Count": str(rows)}
    if as_of is not None:
        stamp |= {"X-As-Of": as_of.isoformat(), "X-Lag-Seconds": str(lag_s)}
    return stamp


def _file(name: str, format_: Format, content: bytes, headers: Mapping[str, str]) -> Response:
    media = f"{MEDIA[format_]}; charset=utf-8" if format_ is Format.CSV else MEDIA[format_]
    disposition = {"Content-Disposition": f'attachment; filename="{name}.{format_}"'}
    return Response(content, 200, {**headers, **disposition, "X-Content-Type-Options": "nosniff"}, media)


def _report_in(format_: Format, told: ReportAnswer) -> Response:
    headers = _stamp(told.as_of, told.lag_s, told.row_count)
    if told.next is not None:
        headers["X-Next"] = str(told.next)
    if format_ is Format.JSON:
        return answer(told, headers=headers)
    names = [column.name for column in told.columns]
    kinds = [column.kind for column in told.columns]
    rows = told.rows
    if told.previous is not None:
        names, kinds = ["period", *names], ["text", *kinds]
        rows = [["this", *row] for row in told.rows] + [["previous", *row] for row in told.previous.rows]
    name = "-".join(part for part in (told.report, told.group, told.from_, told.to) if part)
    if format_ is Format.CSV:
        return _file(name, format_, csv_text(names, rows), headers)
    arrays = [pa.array([row[i] for row in rows], _ARROW[kind]) for i, kind in enumerate(kinds)]
    return _file(name, format_, parquet_bytes(pa.Table.from_arrays(arrays, names)), headers)
