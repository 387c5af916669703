"""What OpenSearch keeps of a log line, a span and a point of a metric: one document each, made of OTLP by pure
functions.

A document's id follows from what it says, so that a batch that is read again makes no second copy.
"""

import hashlib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from lostwax.contracts.ids import short_code
from lostwax.kit import otlp
from lostwax.kit.tracing import SUBJECT

LONGEST_MESSAGE, LONGEST_ATTRIBUTE, LONGEST_NAME = 16_384, 7_000, 200
"""Characters that are kept. An attribute is one term of OpenSearch's, which holds 32,766 bytes with its name."""

_FUTURE, _PAST = timedelta(minutes=10), timedelta(days=30)
_ORDER_FIELDS = (SUBJECT, "order", "order_id")
_encoder = msgspec.json.Encoder(enc_hook=str)


class Document(msgspec.Struct, frozen=True):
    """`source` is JSON, ready for OpenSearch."""

    id: str
    source: bytes


def log_documents(value: bytes, now: datetime) -> Iterator[Document]:
    """Of an ExportLogsServiceRequest. Raises ValueError for anything else."""
    for log in otlp.read_logs(value):
        attributes = dict(log.attributes)
        exception = attributes.pop("exception", "")
        at, said = _sane(log.at_ns, now)
        source = {
            "@timestamp": at,
            "service": log.service,
            "instance": log.instance,
            "level": log.level.lower(),
            "message": _cut(f"{log.body}\n{exception}" if exception else log.body, LONGEST_MESSAGE),
            "attributes": _texts(attributes) | said,
        }
        if log.trace_id:
            source |= {"trace_id": log.trace_id, "span_id": log.span_id}
        source |= _order(log.attributes)
        body = _encoder.encode(source)
        # Under the present time it would be another line each time it is read.
        yield Document(_digest(_encoder.encode(source | {"@timestamp": log.at_ns}) if said else body), body)


def span_documents(value: bytes, now: datetime) -> Iterator[Document]:
    """Of an ExportTraceServiceRequest. Raises ValueError for anything else."""
    for span in otlp.read_spans(value):
        at, said = _sane(span.started_ns, now)
        source: dict[str, Any] = {
            "@timestamp": at,
            "service": span.service,
            "instance": span.instance,
            "trace_id": span.trace_id,
            "span_id": span.span_id,
            "parent_id": span.parent_id,
            "links": list(span.links),
            "name": span.name,
            "kind": span.kind,
            "duration_us": max(0, span.ended_ns - span.started_ns) // 1000,
            "status": "error" if span.error else "ok",
            "attributes": _texts(span.attributes)
            | said
            | ({"error": _cut(span.error, LONGEST_ATTRIBUTE)} if span.error else {}),
        }
        yield Document(span.trace_id + span.span_id, _encoder.encode(source | _order(span.attributes)))


def metric_documents(value: bytes, now: datetime) -> Iterator[Document]:
    """Of an ExportMetricsServiceRequest. Raises ValueError for anything else.

    `value` is what came within the interval that ended at `@timestamp` and took `interval_s` (of a counter or a
    histogram), or the reading (of a gauge)."""
    for point in otlp.read_metrics(value):
        labels = _texts(point.attributes)
        series = _digest("\0".join([point.service, point.instance, point.name, *map(str, labels.items())]).encode())
        at, said = _sane(point.ended_ns, now)
        source: dict[str, Any] = {
            "@timestamp": at,
            "service": point.service,
            "instance": point.instance,
            "name": point.name,
            "kind": {"sum": "counter"}.get(point.kind, point.kind),
            "unit": point.unit,
            "value": point.value,
            "interval_s": max(0, point.ended_ns - point.started_ns) / 1e9,
            "labels": labels | said,
            "series": series,
        }
        if point.kind == "histogram":
            source |= {"count": sum(point.buckets), "bounds": point.bounds, "buckets": point.buckets}
        yield Document(f"{series}-{point.ended_ns}", _encoder.encode(source))


def _order(attributes: Mapping[str, Any]) -> dict[str, str]:
    """The order that something is about, where it says so, by id and by the code that people read out."""
    for name in _ORDER_FIELDS:
        try:
            order_id = UUID(str(attributes[name]))
        except (KeyError, ValueError):
            continue
        return {"order_id": str(order_id), "code": short_code(order_id)}
    return {}


def _texts(attributes: Mapping[str, Any]) -> dict[str, str]:
    """As texts, whatever they are: the same name with a number here and a text there must not be a conflict."""
    return {
        (name.replace(".", "_") or "_")[:LONGEST_NAME]: _cut(str(value), LONGEST_ATTRIBUTE)
        for name, value in attributes.items()
    }


def _cut(text: str, longest: int) -> str:
    if len(text) <= longest:
        return text
    return f"{text[:longest]} ... cut off here: {len(text)} characters"


def _sane(at_ns: int, now: datetime) -> tuple[str, dict[str, str]]:
    """The time as OpenSearch wants it, and, of a clock that is far off, what it said: such a document is kept under the
    present time, where somebody will see it."""
    try:
        at = datetime.fromtimestamp(at_ns / 1e9, UTC)
    except (OverflowError, ValueError, OSError):
        return now.isoformat(), {"clock_said": str(at_ns)}
    if now - _PAST <= at <= now + _FUTURE:
        return at.isoformat(), {}
    return now.isoformat(), {"clock_said": at.isoformat()}


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()
