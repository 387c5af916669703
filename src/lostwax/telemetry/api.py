"""HTTP of Telemetry, for administrators, supervisors and the console."""

import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from datetime import datetime, timedelta
from functools import wraps
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from lostwax.contracts import metrics as measured
from lostwax.contracts.staff import Role
from lostwax.kit.auth import BadCredentials, Member, ServiceVerifier, StaffVerifier
from lostwax.kit.http import Events, Operation, Parameter, answer
from lostwax.kit.paging import page_parameters, rows_wanted
from lostwax.kit.problems import Problem, try_later, unauthorized
from lostwax.kit.service_calls import CONSOLE
from lostwax.kit.staff import STAFF_AUTH, admitted, staff_token
from lostwax.telemetry import domain, handlers
from lostwax.telemetry.alerting import Alerts, Watch
from lostwax.telemetry.clients import BadQuery, OpenSearch, SearchAway
from lostwax.telemetry.domain import BadQuestion, Line, LogFilter, LogLine
from lostwax.telemetry.handlers import LogPage, Services, Story, Tail, Trace

ROLES = (Role.SUPERVISOR, Role.ADMINISTRATOR)
LONGEST = timedelta(days=62)
LONGEST_TEXT = 200
_USUAL_LOGS, _USUAL_METRICS = timedelta(days=1), timedelta(hours=1)
_LISTENED_S = 300
_TRACE = re.compile(r"^[0-9a-f]{32}$")
_METRICS = {m.name: m for m in measured.ALL}

_LOOK_AGAIN_S = 10.0
"""How old a look at an account may be: a withdrawn member's token works that long."""

_REMEMBERED = 1_000

Look = Callable[[Request], Awaitable[Response]]


class Door:
    """Who a request is from: a bearer token of the staff or of the console, or the cookie that the page sets."""

    def __init__(
        self, staff: StaffVerifier, services: ServiceVerifier, stands: Callable[[str], Awaitable[bool | None]]
    ) -> None:
        """`stands`: whether the account behind a token still is as the token says; None: nobody can say now, and the
        token is believed, so that whoever is on call gets in while the CRM is away."""
        self._staff, self._services, self._stands = staff, services, stands
        self._looked: dict[str, tuple[float, bool]] = {}

    async def admit(self, request: Request) -> None:
        """Raises the 401 or 403 Problem."""
        token = staff_token(request)
        try:
            caller = self._services.caller(token)
        except BadCredentials:
            await self.member(token)
            return
        if caller != CONSOLE:
            detail = f"You are {caller}; this is for people, and for the {CONSOLE}."
            raise Problem(403, "service-may-not", "This service may not do this", detail, services=[CONSOLE])

    async def member(self, token: str) -> Member:
        """Whose token this is. Raises the 401 or 403 Problem."""
        try:
            member = self._staff.member(token)
        except BadCredentials as error:
            raise unauthorized(f"Sign in again: {error}.") from None
        looked, stands = self._looked.get(token, (-_LOOK_AGAIN_S, True))
        if looked + _LOOK_AGAIN_S < time.monotonic():
            said = await self._stands(token)
            stands = stands if said is None else said
            if len(self._looked) > _REMEMBERED:
                self._looked.clear()
            self._looked[token] = (time.monotonic(), stands)
        if not stands:
            raise unauthorized("This account was withdrawn, or has another role now: sign in again.")
        return admitted(member, *ROLES)


class MetricView(msgspec.Struct, frozen=True):
    """A metric: its `kind` is counter, gauge or histogram, its `labels` what `by` takes beside service and instance."""

    name: str
    kind: str
    unit: str
    description: str
    labels: list[str]


class Metrics(msgspec.Struct, frozen=True):
    metrics: list[MetricView]


class Series(msgspec.Struct, frozen=True):
    """Steps in which nothing came have no point. A point's `value` is a rate per second, or a gauge's reading."""

    name: str
    kind: str
    unit: str
    since: datetime
    until: datetime
    step_s: int
    lines: list[Line]


def _told(look: Look) -> Look:
    """Troubles of a question as the problems that they are."""

    @wraps(look)
    async def told(request: Request) -> Response:
        try:
            return await look(request)
        except BadQuestion as error:
            raise Problem(400, "bad-parameter", "A parameter is wrong", str(error)) from None
        except BadQuery as error:
            if "index_not_found" in str(error):
                raise _away("nothing has been stored yet") from None
            raise Problem(400, "bad-query", "This cannot be searched for", str(error)[:300]) from None
        except SearchAway:
            raise _away("OpenSearch does not answer") from None

    return told


def _away(why: str) -> Problem:
    return try_later(
        f"{why}: logs, metrics and traces wait in Kafka and can be asked for when it is back. Orders flow as ever;"
        " `lostwax top`, `lostwax trace` and each service's /metrics work without it.",
        after_s=10,
        code="search-away",
    )


def _period(request: Request, now: datetime, usual: timedelta) -> tuple[datetime, datetime]:
    given_until = request.query_params.get("to")
    until = domain.moment(given_until, now) if given_until else now + timedelta(minutes=1)
    given = request.query_params.get("from")
    since = domain.moment(given, now) if given else until - usual
    if since >= until:
        raise BadQuestion("from must lie before to")
    if until - since > LONGEST:
        raise BadQuestion(f"from and to may be at most {LONGEST.days} days apart")
    return since, until


def _filter(request: Request, *, since: datetime | None, until: datetime | None) -> LogFilter:
    asked = request.query_params
    text = asked.get("text") or None
    if text is not None and len(text) > LONGEST_TEXT:
        raise BadQuestion(f"text: at most {LONGEST_TEXT} characters")
    trace = asked.get("trace") or None
    if trace is not None and not _TRACE.match(trace):
        raise BadQuestion("trace: 32 hex digits")
    order, level = asked.get("order"), asked.get("level")
    return LogFilter(
        text,
        asked.get("service") or None,
        domain.levels_from(level) if level else (),
        domain.order_terms(order) if order else {},
        trace,
        since,
        until,
    )


def operations(
    search: OpenSearch, tail: Tail, watch: Watch, door: Door, now: Callable[[], datetime]
) -> list[Operation]:
    async def get_logs(request: Request) -> Response:
        since, until = _period(request, now(), _USUAL_LOGS)
        after = request.query_params.get("after")
        asked = _filter(request, since=since, until=until)
        return answer(
            await handlers.log_page(search, asked, domain.place(after) if after else None, rows_wanted(request))
        )

    async def tail_logs(request: Request) -> Response:
        asked = _filter(request, since=None, until=None)
        listening = tail.listen(asked)
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(_events(listening, now), headers=headers, media_type="text/event-stream")

    async def list_metrics(_: Request) -> Response:
        views = [MetricView(m.name, m.kind, m.unit, m.description, list(m.attributes)) for m in measured.ALL]
        return answer(Metrics(sorted(views, key=lambda v: v.name)))

    async def get_metric(request: Request) -> Response:
        metric = _METRICS.get(request.path_params["name"])
        if metric is None:
            raise Problem(404, "not-found", "No such metric", "GET /v1/metrics names them all.")
        since, until = _period(request, now(), _USUAL_METRICS)
        given = request.query_params.get("step")
        step_s = int(domain.duration(given).total_seconds()) if given else domain.usual_step(until - since)
        if step_s < 10 or (until - since).total_seconds() / step_s > domain.MOST_STEPS:
            raise BadQuestion(f"step: at least 10s, and at most {domain.MOST_STEPS} steps from `from` to `to`")
        known = ("service", "instance", *metric.attributes)
        by = [name for name in request.query_params.get("by", "").split(",") if name]
        if wrong := [name for name in by if name not in known]:
            raise BadQuestion(f"by: {', '.join(wrong)[:100]} is no label of {metric.name}; it has {', '.join(known)}")
        found = await handlers.series(
            search, metric, since, until, step_s=step_s, by=by, service=request.query_params.get("service")
        )
        return answer(Series(metric.name, metric.kind, metric.unit, since, until, step_s, found))

    async def get_trace(request: Request) -> Response:
        trace_id = request.path_params["trace_id"].lower()
        found = await handlers.trace(search, trace_id) if _TRACE.match(trace_id) else None
        if found is None or not found.hops:
            raise Problem(404, "not-found", "No such trace", "It was not sampled, has not arrived yet, or was removed.")
        return answer(found)

    async def get_story(request: Request) -> Response:
        found = await handlers.story(search, domain.order_terms(request.path_params["order"]))
        if not found.hops and not found.logs:
            detail = "Nothing is known of it here: it was not sampled, has not arrived yet, or was removed."
            raise Problem(404, "not-found", "No story of such an order", detail)
        return answer(found)

    async def list_services(_: Request) -> Response:
        return answer(await handlers.board(search, now()))

    async def list_alerts(_: Request) -> Response:
        return answer(await watch.view())

    when = (
        _parameter("from", "a time with its offset, or a duration back from now: 15m, 6h, 7d"),
        _parameter("to", "as from; now by default"),
    )
    which = (
        _parameter("text", 'words that the message has; "in quotes" a phrase, -not, begin*'),
        _parameter("service", "one service"),
        _parameter("level", f"at least this: {', '.join(domain.LEVELS)}"),
        _parameter("order", "an order's id or its short code"),
        _parameter("trace", "a trace's id, 32 hex digits"),
    )
    wrong = {400: "a parameter is wrong", 403: "for administrators and supervisors"}
    absent = wrong | {404: "nothing is known of it"}

    def get(
        path: str,
        look: Look,
        summary: str,
        answers: Any,
        problems: Any,
        parameters: tuple[Parameter, ...] = (),
    ) -> Operation:
        return Operation(
            "GET",
            path,
            _told(look),
            summary,
            {200: answers},
            problems,
            parameters=parameters,
            auth=STAFF_AUTH,
            admit=None if door is None else door.admit,
        )

    after = page_parameters({"type": "string"})
    return [
        get("/v1/logs", get_logs, "Log lines of all services, newest first", LogPage, wrong, (*which, *when, *after)),
        get(
            "/v1/logs/tail",
            tail_logs,
            "Log lines as they come, for five minutes (SSE)",
            Events,
            wrong,
            which,
        ),
        get("/v1/metrics", list_metrics, "What is measured, and what it means", Metrics, {403: wrong[403]}),
        get(
            "/v1/metrics/{name}",
            get_metric,
            "A metric over time: rates, readings, percentiles",
            Series,
            absent,
            (
                *when,
                _parameter("step", "a duration, at least 10s; about a hundred steps by default"),
                _parameter("by", "labels that get lines of their own, comma between; all others are put together"),
                _parameter("service", "one service"),
            ),
        ),
        get("/v1/traces/{trace_id}", get_trace, "One trace whole, as a tree, with what is linked to it", Trace, absent),
        get("/v1/orders/{order}/story", get_story, "All hops and log lines of one order", Story, absent),
        get("/v1/services", list_services, "Every service, over the last five minutes", Services, {403: wrong[403]}),
        get("/v1/alerts", list_alerts, "What is wrong by the rules of alerts", Alerts, {403: wrong[403]}),
    ]


def _parameter(name: str, description: str) -> Parameter:
    return Parameter(name, "query", {"type": "string"}, description)


async def _events(
    listening: AsyncIterator[list[LogLine] | str | None], now: Callable[[], datetime]
) -> AsyncIterator[bytes]:
    """As server-sent events. Ends after five minutes: a browser then asks again by itself."""
    until = now() + timedelta(seconds=_LISTENED_S)
    yield b"retry: 1000\n\n"
    async with aclosing(listening) as heard:  # type: ignore[type-var]
        try:
            async for came in heard:
                if came is None:
                    yield b": nothing new\n\n"
                elif isinstance(came, str):
                    yield b"event: trouble\ndata: " + msgspec.json.encode(came) + b"\n\n"
                else:
                    for line in came:
                        yield b"data: " + msgspec.json.encode(line) + b"\n\n"
                if now() > until:
                    return
        except handlers.TooMany:
            yield b'event: trouble\ndata: "Too many listen already; search instead."\n\n'
