"""Questions about telemetry, as pure functions: what is asked of OpenSearch, and what its answers mean."""

import base64
import binascii
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from lostwax.contracts.ids import parse_code, short_code
from lostwax.contracts.metrics import Metric

LEVELS = ("debug", "info", "warning", "error", "critical")
MOST_STEPS = 500
MOST_SERIES = 500
TIME_LIMIT = "8s"
"""How long OpenSearch may work on one question."""

_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
_DURATION = re.compile(r"^(\d{1,6})(s|m|h|d)$")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


class BadQuestion(Exception):
    """A parameter cannot be meant; the text says which, and how to mend it."""


class LogFilter(msgspec.Struct, frozen=True):
    """Which log lines; None: any. `levels`: one of these. `since` included, `until` excluded."""

    text: str | None = None
    service: str | None = None
    levels: tuple[str, ...] = ()
    order: Mapping[str, str] = {}
    trace: str | None = None
    since: datetime | None = None
    until: datetime | None = None


class LogLine(msgspec.Struct, frozen=True):
    at: datetime
    service: str
    level: str
    message: str
    instance: str = ""
    trace_id: str | None = None
    span_id: str | None = None
    order_id: str | None = None
    code: str | None = None
    attributes: dict[str, str] = {}


def duration(text: str) -> timedelta:
    """`90s`, `15m`, `6h`, `7d`. Raises BadQuestion."""
    found = _DURATION.match(text)
    if found is None:
        raise BadQuestion(f"{text!r} is no duration: write 90s, 15m, 6h or 7d")
    return timedelta(seconds=int(found[1]) * _SECONDS[found[2]])


def moment(text: str, now: datetime) -> datetime:
    """A time with its offset (`2026-11-25T07:00:00Z`), or a duration back from now (`15m`). Raises BadQuestion."""
    if _DURATION.match(text):
        return now - duration(text)
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise BadQuestion(
            f"{text!r} is no time: write 2026-11-25T07:00:00Z, or 15m for a quarter of an hour ago"
        ) from None
    if at.tzinfo is None:
        raise BadQuestion(f"{text!r} has no offset: end it with Z or +01:00")
    return at.astimezone(UTC)


def order_terms(text: str) -> dict[str, str]:
    """The field and value by which an order is found, by its id or its short code as typed. Raises BadQuestion."""
    try:
        return {"order_id": str(UUID(text.strip()))}
    except ValueError:
        pass
    bits = parse_code(text.strip())
    if bits is None:
        raise BadQuestion(f"{text[:60]!r} is neither an order's id (a UUID) nor its code (XXXXX-XXXXX)")
    return {"code": short_code(UUID(int=bits))}


def levels_from(level: str) -> tuple[str, ...]:
    """This level and all that are worse. Raises BadQuestion."""
    if level.lower() not in LEVELS:
        raise BadQuestion(f"level is one of {', '.join(LEVELS)}")
    return LEVELS[LEVELS.index(level.lower()) :]


def _conditions(asked: LogFilter) -> dict[str, Any]:
    terms: list[dict[str, Any]] = []
    if asked.service:
        terms.append({"term": {"service": asked.service}})
    if asked.levels:
        terms.append({"terms": {"level": list(asked.levels)}})
    terms += [{"term": {name: value}} for name, value in asked.order.items()]
    if asked.trace:
        terms.append({"term": {"trace_id": asked.trace}})
    span = {}
    if asked.since is not None:
        span["gte"] = asked.since.isoformat()
    if asked.until is not None:
        span["lt"] = asked.until.isoformat()
    if span:
        terms.append({"range": {"@timestamp": span}})
    must = []
    if asked.text:
        must.append(
            {
                "simple_query_string": {
                    "query": asked.text,
                    "fields": ["message"],
                    "default_operator": "and",
                    "flags": "AND|OR|NOT|PHRASE|PREFIX|WHITESPACE",
                }
            }
        )
    return {"bool": {"filter": terms, "must": must}}


_ORDERED = [{"@timestamp": "desc"}, {"_index": "desc"}, {"_seq_no": "desc"}]


def log_page(asked: LogFilter, after: Sequence[Any] | None, rows: int) -> dict[str, Any]:
    """The newest lines before `after`. Each has its one place in (time, backing index, number in it), so that lines
    which arrive meanwhile shift nothing."""
    body: dict[str, Any] = {
        "size": rows,
        "sort": _ORDERED,
        "query": _conditions(asked),
        "timeout": TIME_LIMIT,
        "track_total_hits": False,
    }
    return body if after is None else body | {"search_after": list(after)}


def arrivals(asked: LogFilter, after: Sequence[Any], rows: int) -> dict[str, Any]:
    """Lines in the order in which they arrived in OpenSearch, whatever their time: a tail misses none."""
    return {
        "size": rows,
        "sort": [{"_index": "asc"}, {"_seq_no": "asc"}],
        "search_after": list(after),
        "query": _conditions(asked),
        "timeout": TIME_LIMIT,
        "track_total_hits": False,
    }


LAST_ARRIVAL: Mapping[str, Any] = {"size": 1, "sort": [{"_index": "desc"}, {"_seq_no": "desc"}], "_source": False}


def cursor(sort: Sequence[Any]) -> str:
    """A place in a list, as its reader hands it back."""
    return base64.urlsafe_b64encode(msgspec.json.encode(sort)).rstrip(b"=").decode()


def place(text: str) -> list[Any]:
    """Raises BadQuestion."""
    try:
        found = msgspec.json.decode(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), type=tuple[int, str, int])
    except (msgspec.MsgspecError, binascii.Error, ValueError):
        raise BadQuestion("after: give the `next` of the page before, as it is") from None
    return list(found)


def log_line(hit: Mapping[str, Any]) -> LogLine:
    source = hit["_source"]
    return LogLine(
        datetime.fromisoformat(source["@timestamp"]),
        source["service"],
        source["level"],
        source["message"],
        source.get("instance", ""),
        source.get("trace_id"),
        source.get("span_id"),
        source.get("order_id"),
        source.get("code"),
        source.get("attributes") or {},
    )


# -- Traces ---------------------------------------------------------------------------------------------------------
class Hop(msgspec.Struct, frozen=True):
    """One span. `depth` within its trace; `after_us`: its start, counted from the start of everything shown."""

    at: datetime
    after_us: int
    duration_us: int
    depth: int
    service: str
    name: str
    kind: str
    status: str
    trace_id: str
    span_id: str
    parent_id: str
    links: list[str]
    attributes: dict[str, str]


def hops(spans: Iterable[Mapping[str, Any]]) -> list[Hop]:
    """Spans of any traces as trees, written one after the other: parents before children, else by time. A span whose
    parent is not known (not stored yet, lost) stands as a root; no circle of parents hides one."""
    by_id = {s["span_id"]: s for s in sorted(spans, key=lambda s: (s["@timestamp"], -s["duration_us"], s["span_id"]))}
    if not by_id:
        return []
    children: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    roots: list[Mapping[str, Any]] = []
    for span in by_id.values():
        parent = span.get("parent_id") or ""
        if parent in by_id and parent != span["span_id"]:
            children[parent].append(span)
        else:
            roots.append(span)
    start = min(datetime.fromisoformat(s["@timestamp"]) for s in by_id.values())
    placed: list[Hop] = []
    seen: set[str] = set()

    def walk(beginning: Mapping[str, Any]) -> None:
        waiting = [(beginning, 0)]
        while waiting:
            span, depth = waiting.pop()
            if span["span_id"] in seen:
                continue
            seen.add(span["span_id"])
            at = datetime.fromisoformat(span["@timestamp"])
            placed.append(
                Hop(
                    at,
                    (at - start) // timedelta(microseconds=1),
                    span["duration_us"],
                    depth,
                    span["service"],
                    span["name"],
                    span["kind"],
                    span["status"],
                    span["trace_id"],
                    span["span_id"],
                    span.get("parent_id") or "",
                    list(span.get("links") or []),
                    span.get("attributes") or {},
                )
            )
            waiting += [(child, depth + 1) for child in reversed(children[span["span_id"]])]

    for root in roots:
        walk(root)
    for span in by_id.values():
        walk(span)
    return placed


# -- Metrics --------------------------------------------------------------------------------------------------------
class Point(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was so in the step that begins at `at`. `value`: per second (counters, histograms), or the reading (gauges).
    Of histograms also their mean and percentiles, in the metric's unit."""

    at: datetime
    value: float
    mean: float | None = None
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None


class Line(msgspec.Struct, frozen=True):
    """One line of a chart: `labels` are those that were asked for by `by`."""

    labels: dict[str, str]
    points: list[Point]


class Reading(msgspec.Struct, frozen=True):
    """One series (of one process) in one step. `value`: sum of what came, or the last reading; `at`: of the last."""

    service: str
    instance: str
    labels: Mapping[str, str]
    at_ms: int
    value: float
    buckets: Sequence[int] = ()
    bounds: Sequence[float] = ()
    name: str = ""
    at: datetime | None = None


_ADD_UP = {
    "scripted_metric": {
        "init_script": "state.sums = [];",
        "map_script": (
            "def b = params._source.buckets; if (b != null) { for (int i = 0; i < b.length; i++) {"
            " if (state.sums.size() <= i) { state.sums.add(0L); }"
            " state.sums[i] = state.sums[i] + (long) b[i]; } }"
        ),
        "combine_script": "return state.sums;",
        "reduce_script": (
            "def all = []; for (s in states) { if (s == null) { continue; } for (int i = 0; i < s.size(); i++) {"
            " if (all.size() <= i) { all.add(0L); } all[i] = all[i] + s[i]; } } return all;"
        ),
    }
}
"""Buckets are kept as they came, not indexed: they are added up place by place."""


def readings_query(
    names: Sequence[str], since: datetime, until: datetime, *, step_s: int | None, service: str | None, histogram: bool
) -> dict[str, Any]:
    """Every series of these metrics, in steps (None: one step for all)."""
    terms: list[dict[str, Any]] = [
        {"terms": {"name": list(names)}},
        {"range": {"@timestamp": {"gte": since.isoformat(), "lt": until.isoformat()}}},
    ]
    if service:
        terms.append({"term": {"service": service}})
    values: dict[str, Any] = {
        "sum": {"sum": {"field": "value"}},
        "last": {"top_hits": {"size": 1, "sort": [{"@timestamp": "desc"}], "_source": ["value", "@timestamp"]}},
    }
    if histogram:
        values["buckets"] = _ADD_UP
    inner: dict[str, Any] = values
    if step_s is not None:
        in_steps = {"field": "@timestamp", "fixed_interval": f"{step_s}s", "min_doc_count": 1}
        inner = {"steps": {"date_histogram": in_steps, "aggs": values}}
    who = {"top_hits": {"size": 1, "_source": ["service", "instance", "name", "kind", "labels", "bounds"]}}
    return {
        "size": 0,
        "timeout": TIME_LIMIT,
        "query": {"bool": {"filter": terms}},
        "aggs": {"series": {"terms": {"field": "series", "size": MOST_SERIES}, "aggs": {"who": who, **inner}}},
    }


def readings(answer: Mapping[str, Any]) -> list[Reading]:
    """What OpenSearch answers to `readings_query`."""
    found = []
    for series in answer["aggregations"]["series"]["buckets"]:
        who = series["who"]["hits"]["hits"][0]["_source"]
        for step in series["steps"]["buckets"] if "steps" in series else [series | {"key": 0}]:
            last = step["last"]["hits"]["hits"][0]["_source"]
            found.append(
                Reading(
                    who["service"],
                    who.get("instance", ""),
                    who.get("labels") or {},
                    int(step["key"]),
                    float(last["value"] if who["kind"] == "gauge" else step["sum"]["value"]),
                    tuple(step["buckets"]["value"]) if "buckets" in step else (),
                    tuple(who.get("bounds") or ()),
                    who["name"],
                    datetime.fromisoformat(last["@timestamp"]),
                )
            )
    return found


def lines(metric: Metric, found: Iterable[Reading], by: Sequence[str], step_s: int) -> list[Line]:
    """Series put together: over processes, and over all labels that `by` does not name. Counters become rates; readings
    in seconds (ages) the highest, all others their sum."""
    groups: dict[tuple[str, ...], dict[int, list[Reading]]] = defaultdict(lambda: defaultdict(list))
    for reading in found:
        labels = {"service": reading.service, "instance": reading.instance, **reading.labels}
        key = tuple(labels.get(name.replace(".", "_"), "") for name in by)
        groups[key][reading.at_ms].append(reading)
    return [
        Line(
            dict(zip(by, key, strict=True)),
            [_point(metric, at_ms, here, step_s) for at_ms, here in sorted(steps.items())],
        )
        for key, steps in sorted(groups.items())
    ]


def _point(metric: Metric, at_ms: int, here: Sequence[Reading], step_s: int) -> Point:
    at = datetime.fromtimestamp(at_ms / 1000, UTC)
    if metric.kind == "gauge":
        return Point(at, max(r.value for r in here) if metric.unit == "s" else sum(r.value for r in here))
    if metric.kind == "counter":
        return Point(at, sum(r.value for r in here) / step_s)
    count, buckets, bounds = together(here)
    mean = sum(r.value for r in here) / count if count else None
    shares = (quantile(share, buckets, bounds) for share in (0.5, 0.95, 0.99))
    return Point(at, count / step_s, mean, *shares)


def newest(found: Iterable[Reading]) -> list[Reading]:
    """Of gauges the newest reading of each set of labels: several processes may see the same thing, and what one that
    is gone said last must not stand beside it."""
    by_labels: dict[tuple[tuple[str, str], ...], Reading] = {}
    for reading in sorted(found, key=lambda r: r.at or _LONG_AGO):
        by_labels[tuple(sorted(reading.labels.items()))] = reading
    return list(by_labels.values())


def together(here: Iterable[Reading]) -> tuple[int, list[int], Sequence[float]]:
    """Count, buckets and bounds of several histograms of one metric; those with other bounds (of another version of the
    program) are left out."""
    buckets: list[int] = []
    bounds: Sequence[float] = ()
    for reading in here:
        if not buckets:
            buckets, bounds = list(reading.buckets), reading.bounds
        elif len(reading.buckets) == len(buckets):
            buckets = [a + b for a, b in zip(buckets, reading.buckets, strict=True)]
    return sum(buckets), buckets, bounds


def quantile(share: float, buckets: Sequence[int], bounds: Sequence[float]) -> float | None:
    """As kit.metrics.quantile; None also where no bounds are known."""
    from lostwax.kit.metrics import quantile as of_buckets

    return of_buckets(share, buckets, bounds) if bounds else None


def usual_step(span: timedelta) -> int:
    """Seconds: about a hundred steps, and no step shorter than metrics come."""
    wanted = span.total_seconds() / 100
    return next((s for s in (10, 30, 60, 300, 900, 3600, 21_600) if s >= wanted), 86_400)
