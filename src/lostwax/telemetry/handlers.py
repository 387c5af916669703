"""Questions about telemetry, asked of OpenSearch. Every function raises SearchAway when it does not answer."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from lostwax.contracts import metrics as measured
from lostwax.contracts.metrics import Metric
from lostwax.telemetry import domain, indices
from lostwax.telemetry.clients import OpenSearch, SearchAway
from lostwax.telemetry.domain import Hop, Line, LogFilter, LogLine, Reading

MOST_SPANS = 2_000
MOST_TRACES = 100
STORY_LINES = 500
TICK_S = 1.0
_TAIL_ROWS = 200
_TAIL_WAITING = 1_000
MOST_FILTERS, MOST_LISTENERS = 20, 100
HEARTBEAT_S = 10.0
RECENT = timedelta(minutes=5)
_UNSEEN_AFTER = timedelta(seconds=45)
_BOARD = (
    measured.HTTP_REQUESTS,
    measured.OUTBOX_DEPTH,
    measured.OUTBOX_AGE,
    measured.MESSAGES_HANDLED,
    measured.MESSAGES_FAILED,
    measured.MESSAGES_DEAD,
    measured.CONSUMER_LAG,
    measured.MEMORY,
    measured.CPU,
    measured.ORDERS_OLDEST,
    measured.DEAD_OPEN,
)
_AUDITED_WITHIN = timedelta(days=8)
_COMES_AND_GOES = "audit"
"""Sends metrics without being a service."""


class LogPage(msgspec.Struct, frozen=True):
    """Newest first. Ask for the next page with `after=<next>`; no `next`: that was all."""

    lines: list[LogLine]
    next: str | None = None


class Trace(msgspec.Struct, frozen=True):
    """One trace as a tree, parents before children. `linked`: spans of other traces that worked in the same batches.
    `cut`: there is more than is shown."""

    trace_id: str
    hops: list[Hop]
    linked: list[Hop]
    cut: bool = False


class Story(msgspec.Struct, frozen=True):
    """All that is known of one order: every hop in order with its time, and what was logged. `orders`: whose it is;
    two where a code is shared: then ask by id. `cut`: there is more than is shown."""

    orders: list[str]
    code: str | None
    hops: list[Hop]
    logs: list[LogLine]
    cut: bool = False


class Service(msgspec.Struct, frozen=True):
    """One service over the last five minutes. Rates are per second, waits in seconds. `dead`: letters of that time."""

    name: str
    last_seen: datetime | None
    seen: bool
    rate: float
    error_rate: float
    error_share: float
    p50: float | None
    p99: float | None
    messages_rate: float
    failures: float
    dead: float
    outbox_depth: float
    outbox_age: float
    lag: dict[str, float]
    memory_bytes: float


class Audit(msgspec.Struct, frozen=True):
    """The last one: what it found wrong, by kind."""

    at: datetime
    findings: dict[str, float]
    clean: bool


class Services(msgspec.Struct, frozen=True):
    """`at`: when this was so. `oldest`: seconds for which an order is in each status at most. `dead_letters`: by topic,
    those that wait for a decision. `audit`: null when there was none lately."""

    at: datetime
    services: list[Service]
    oldest: dict[str, float]
    dead_letters: dict[str, float]
    audit: Audit | None


async def _search(search: OpenSearch, stream: indices.Stream, body: Any) -> list[Any]:
    answer = await search.call("POST", f"/{stream.name}/_search", body)
    hits: list[Any] = answer["hits"]["hits"]
    return hits


async def log_page(search: OpenSearch, asked: LogFilter, after: Sequence[Any] | None, rows: int) -> LogPage:
    hits = await _search(search, indices.LOGS, domain.log_page(asked, after, rows + 1))
    shown = hits[:rows]
    return LogPage([domain.log_line(h) for h in shown], domain.cursor(shown[-1]["sort"]) if len(hits) > rows else None)


# -- Traces and stories ---------------------------------------------------------------------------------------------
async def _spans(search: OpenSearch, condition: Mapping[str, Any], most: int = MOST_SPANS) -> list[Any]:
    body = {
        "size": most,
        "timeout": domain.TIME_LIMIT,
        "sort": [{"@timestamp": "asc"}],
        "query": {"bool": {"filter": [condition]}},
        "track_total_hits": False,
    }
    return [h["_source"] for h in await _search(search, indices.TRACES, body)]


async def trace(search: OpenSearch, trace_id: str) -> Trace:
    own = await _spans(search, {"term": {"trace_id": trace_id}})
    links = sorted({link for span in own for link in span.get("links") or ()} - {trace_id})[:MOST_TRACES]
    linked: list[Any] = []
    if own:
        either: list[Any] = [{"term": {"links": trace_id}}]
        if links:
            either.append({"terms": {"trace_id": links}})
        linked = await _spans(search, {"bool": {"should": either, "must_not": [{"term": {"trace_id": trace_id}}]}}, 200)
    return Trace(trace_id, domain.hops(own), domain.hops(linked), len(own) == MOST_SPANS or len(linked) == 200)


async def story(search: OpenSearch, order: Mapping[str, str]) -> Story:
    """Begins with the spans and lines that name the order. Whole are shown those traces that it was alone in: a trace
    in which several orders were handled together gives those of its spans that name this one or none."""
    (term,) = [{"term": {name: value}} for name, value in order.items()]
    named, lines = await asyncio.gather(
        _spans(search, term), _search(search, indices.LOGS, _story_lines({"bool": {"filter": [term]}}))
    )
    traces = {s["trace_id"] for s in named} | {h["_source"].get("trace_id") for h in lines} - {None}
    traces = set(sorted(traces, key=str)[:MOST_TRACES])
    whole: list[Any] = []
    more_lines: list[Any] = []
    if traces:
        of_traces = {"terms": {"trace_id": sorted(traces)}}
        whole, more_lines = await asyncio.gather(
            _spans(search, of_traces),
            _search(search, indices.LOGS, _story_lines({"bool": {"filter": [of_traces]}})),
        )
        links = sorted({link for s in whole for link in s.get("links") or ()} - traces)[:MOST_TRACES]
        if links:
            # What a batch did for all of its messages stands in the trace of its first.
            batch = {
                "bool": {"filter": [{"terms": {"trace_id": links}}], "must_not": [{"exists": {"field": "order_id"}}]}
            }
            whole += [s for s in await _spans(search, batch, 200) if s["kind"] != "server"]
    mine = {s["order_id"] for s in named if s.get("order_id")} | {
        h["_source"]["order_id"] for h in lines if h["_source"].get("order_id")
    }
    spans = [s for s in [*named, *whole] if s.get("order_id") in (None, *mine)]
    all_lines = {(h["_index"], h["_id"]): h for h in [*lines, *more_lines]}.values()
    shown = [domain.log_line(h) for h in all_lines if h["_source"].get("order_id") in (None, *mine)]
    codes = {s["code"] for s in named if s.get("code")} | {line.code for line in shown if line.code}
    return Story(
        sorted(mine),
        min(codes, default=None),
        sorted(domain.hops(spans), key=lambda hop: hop.after_us),
        sorted(shown, key=lambda line: line.at)[:STORY_LINES],
        len(spans) >= MOST_SPANS or len(shown) > STORY_LINES,
    )


def _story_lines(condition: Mapping[str, Any]) -> dict[str, Any]:
    return {"size": STORY_LINES, "sort": [{"@timestamp": "asc"}], "query": condition, "timeout": domain.TIME_LIMIT}


# -- Metrics and services -------------------------------------------------------------------------------------------
async def series(
    search: OpenSearch,
    metric: Metric,
    since: datetime,
    until: datetime,
    *,
    step_s: int,
    by: Sequence[str],
    service: str | None,
) -> list[Line]:
    asked = domain.readings_query(
        [metric.name], since, until, step_s=step_s, service=service, histogram=metric.kind == "histogram"
    )
    answer = await search.call("POST", f"/{indices.METRICS.name}/_search", asked)
    return domain.lines(metric, domain.readings(answer), by, step_s)


async def recent(search: OpenSearch, names: Sequence[str], now: datetime, span: timedelta = RECENT) -> list[Reading]:
    """Every series of these metrics over the last minutes: what came together, or the last reading."""
    asked = domain.readings_query(names, now - span, now + span, step_s=None, service=None, histogram=True)
    return domain.readings(await search.call("POST", f"/{indices.METRICS.name}/_search", asked))


async def last_seen(search: OpenSearch, since: datetime) -> dict[str, datetime]:
    """When each service last sent metrics."""
    asked = {
        "size": 0,
        "timeout": domain.TIME_LIMIT,
        "query": {
            "bool": {
                "filter": [{"range": {"@timestamp": {"gte": since.isoformat()}}}],
                "must_not": [{"term": {"service": _COMES_AND_GOES}}],
            }
        },
        "aggs": {
            "services": {
                "terms": {"field": "service", "size": 100},
                "aggs": {"newest": {"max": {"field": "@timestamp"}}},
            }
        },
    }
    answer = await search.call("POST", f"/{indices.METRICS.name}/_search", asked)
    found = {}
    for bucket in answer["aggregations"]["services"]["buckets"]:
        at = indices.at_ms(bucket["newest"]["value"])
        if at is not None:
            found[bucket["key"]] = at
    return found


async def board(search: OpenSearch, now: datetime) -> Services:
    found, seen, audited = await asyncio.gather(
        recent(search, [m.name for m in _BOARD], now),
        last_seen(search, now - timedelta(days=1)),
        recent(search, [measured.AUDIT_FINDINGS.name], now, _AUDITED_WITHIN),
    )
    lags: dict[str, dict[str, float]] = defaultdict(dict)
    for reading in _newest(found, measured.CONSUMER_LAG):
        lags[reading.labels["group"]][reading.labels["topic"]] = reading.value
    findings = {r.labels["kind"]: r.value for r in _newest(audited, measured.AUDIT_FINDINGS)}
    ends = [r.at for r in audited if r.at is not None]
    return Services(
        now,
        [
            _service(name, seen.get(name), [r for r in found if r.service == name], lags[name], now)
            for name in sorted(seen)
        ],
        {r.labels["status"]: r.value for r in _newest(found, measured.ORDERS_OLDEST) if r.value},
        {r.labels["topic"]: r.value for r in _newest(found, measured.DEAD_OPEN) if r.value},
        Audit(max(ends), {k: v for k, v in findings.items() if v}, not any(findings.values())) if ends else None,
    )


def _newest(found: Iterable[Reading], metric: Metric) -> list[Reading]:
    return domain.newest(r for r in found if r.name == metric.name)


def _service(
    name: str, last: datetime | None, found: Iterable[Reading], lag: Mapping[str, float], now: datetime
) -> Service:
    of: dict[str, list[Reading]] = defaultdict(list)
    for reading in found:
        of[reading.name].append(reading)
    http = of[measured.HTTP_REQUESTS.name]
    count, buckets, bounds = domain.together(http)
    failed = [r for r in http if r.labels.get("http_response_status_code", "").startswith("5")]
    errors = sum(sum(r.buckets) for r in failed)
    span_s = RECENT.total_seconds()

    def total(metric: Metric) -> float:
        return sum(r.value for r in of[metric.name])

    return Service(
        name,
        last,
        last is not None and now - last < _UNSEEN_AFTER,
        count / span_s,
        errors / span_s,
        errors / count if count else 0.0,
        domain.quantile(0.5, buckets, bounds),
        domain.quantile(0.99, buckets, bounds),
        total(measured.MESSAGES_HANDLED) / span_s,
        total(measured.MESSAGES_FAILED),
        total(measured.MESSAGES_DEAD),
        total(measured.OUTBOX_DEPTH),
        max((r.value for r in of[measured.OUTBOX_AGE.name]), default=0.0),
        dict(sorted(lag.items())),
        total(measured.MEMORY),
    )


# -- The live tail --------------------------------------------------------------------------------------------------
class TooMany(Exception):
    """As many listen already as may."""


Heard = list[LogLine] | str
"""Lines that came, or what is wrong."""


class Tail:
    """Live tails: those who listen by one filter share one query a second, and it ends with the last of them."""

    def __init__(self, search: OpenSearch) -> None:
        self._search = search
        self._listeners: dict[bytes, list[asyncio.Queue[Heard]]] = {}
        self._asking: dict[bytes, asyncio.Task[None]] = {}

    async def listen(self, asked: LogFilter) -> AsyncIterator[Heard | None]:
        """What comes from now on; None: nothing came for a while. Raises TooMany at once. Close it when done."""
        key = msgspec.json.encode(asked)
        if len(self._listeners) >= MOST_FILTERS and key not in self._listeners:
            raise TooMany
        if sum(map(len, self._listeners.values())) >= MOST_LISTENERS:
            raise TooMany
        heard: asyncio.Queue[Heard] = asyncio.Queue(maxsize=_TAIL_WAITING)
        self._listeners.setdefault(key, []).append(heard)
        if key not in self._asking:
            self._asking[key] = asyncio.create_task(self._ask(key, asked), name="tail")
        try:
            while True:
                try:
                    async with asyncio.timeout(HEARTBEAT_S):
                        came = await heard.get()
                except TimeoutError:
                    yield None
                else:
                    yield came
        finally:
            listeners = self._listeners[key]
            listeners.remove(heard)
            if not listeners:
                del self._listeners[key]
                self._asking.pop(key).cancel()

    async def _ask(self, key: bytes, asked: LogFilter) -> None:
        place: Sequence[Any] | None = None
        away = False
        while True:
            try:
                if place is None:
                    newest = await _search(self._search, indices.LOGS, domain.LAST_ARRIVAL)
                    place = newest[0]["sort"] if newest else ["", -1]
                hits = await _search(self._search, indices.LOGS, domain.arrivals(asked, place, _TAIL_ROWS))
            except SearchAway:
                if not away:
                    self._tell(key, "OpenSearch does not answer; lines come again when it does.")
                away = True
            else:
                away = False
                if hits:
                    place = hits[-1]["sort"]
                    self._tell(key, [domain.log_line(h) for h in hits])
            await asyncio.sleep(TICK_S)

    def _tell(self, key: bytes, what: Heard) -> None:
        for heard in self._listeners.get(key, ()):
            if not heard.full():
                heard.put_nowait(what)


Now = Callable[[], datetime]
