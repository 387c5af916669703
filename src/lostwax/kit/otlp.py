"""OpenTelemetry's wire format (OTLP, protobuf) of logs, spans and metrics, as collectors read it from Kafka."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, HistogramDataPoint, NumberDataPoint
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from lostwax.contracts.metrics import Metric
from lostwax.kit.metrics import Attributes, Distribution
from lostwax.kit.tracing import Span

SCOPE = "lostwax"
LONGEST_TEXT = 16_384
"""Characters of a log's body or of an attribute; the rest is cut off."""

_SEVERITIES = {
    logging.DEBUG: 5,
    logging.INFO: 9,
    logging.WARNING: 13,
    logging.ERROR: 17,
    logging.CRITICAL: 21,
}
_KINDS: Mapping[str, Any] = {
    "internal": SpanMessage.SPAN_KIND_INTERNAL,
    "server": SpanMessage.SPAN_KIND_SERVER,
    "client": SpanMessage.SPAN_KIND_CLIENT,
    "producer": SpanMessage.SPAN_KIND_PRODUCER,
    "consumer": SpanMessage.SPAN_KIND_CONSUMER,
}
_encoder = msgspec.json.Encoder(enc_hook=str)


class Log(msgspec.Struct, frozen=True):
    """A log line on its way out. `at_ns`: since 1970."""

    at_ns: int
    level: int
    body: str
    attributes: Mapping[str, Any]
    traceparent: str | None


def resource(service: str, instance: str) -> Resource:
    """Who speaks."""
    return Resource(attributes=_pairs({"service.name": service, "service.instance.id": instance}))


def encode_logs(source: Resource, logs: Iterable[Log]) -> bytes:
    """An ExportLogsServiceRequest."""
    request = ExportLogsServiceRequest()
    group = request.resource_logs.add(resource=source)
    scope = group.scope_logs.add()
    scope.scope.name = SCOPE
    for log in logs:
        scope.log_records.append(
            LogRecord(
                time_unix_nano=log.at_ns,
                observed_time_unix_nano=log.at_ns,
                severity_number=_SEVERITIES.get(log.level, 9),  # type: ignore[arg-type]
                severity_text=logging.getLevelName(log.level),
                body=AnyValue(string_value=log.body[:LONGEST_TEXT]),
                attributes=_pairs(log.attributes),
                trace_id=bytes.fromhex(log.traceparent[3:35]) if log.traceparent else b"",
                span_id=bytes.fromhex(log.traceparent[36:52]) if log.traceparent else b"",
            )
        )
    return bytes(request.SerializeToString())


def encode_spans(source: Resource, spans: Iterable[Span]) -> bytes:
    """An ExportTraceServiceRequest."""
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add(resource=source)
    scope = group.scope_spans.add()
    scope.scope.name = SCOPE
    for span in spans:
        made = scope.spans.add(
            trace_id=bytes.fromhex(span.trace_id),
            span_id=bytes.fromhex(span.span_id),
            parent_span_id=bytes.fromhex(span.parent_id),
            name=span.name,
            kind=_KINDS[span.kind],
            start_time_unix_nano=span.started_ns,
            end_time_unix_nano=span.ended_ns,
            attributes=_pairs(span.attributes),
        )
        for link in span.links:
            made.links.add(trace_id=bytes.fromhex(link[3:35]), span_id=bytes.fromhex(link[36:52]))
        if span.error is not None:
            made.status.CopyFrom(Status(code=Status.STATUS_CODE_ERROR, message=span.error))
    return bytes(request.SerializeToString())


def encode_metrics(
    source: Resource,
    changes: Sequence[tuple[Metric, Mapping[Attributes, float | Distribution]]],
    started_ns: int,
    ended_ns: int,
) -> bytes:
    """An ExportMetricsServiceRequest of what came between the two times (delta temporality)."""
    request = ExportMetricsServiceRequest()
    group = request.resource_metrics.add(resource=source)
    scope = group.scope_metrics.add()
    scope.scope.name = SCOPE
    delta = AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA
    for metric, series in changes:
        made = scope.metrics.add(name=metric.name, description=metric.description, unit=metric.unit)
        if metric.kind == "counter":
            made.sum.aggregation_temporality = delta
            made.sum.is_monotonic = True
        elif metric.kind == "histogram":
            made.histogram.aggregation_temporality = delta
        for attributes, value in series.items():
            pairs = _pairs(dict(zip(metric.attributes, attributes, strict=True)))
            if isinstance(value, Distribution):
                made.histogram.data_points.append(
                    HistogramDataPoint(
                        attributes=pairs,
                        start_time_unix_nano=started_ns,
                        time_unix_nano=ended_ns,
                        count=value.count,
                        sum=value.total,
                        bucket_counts=value.buckets,
                        explicit_bounds=metric.bounds,
                    )
                )
                continue
            point = NumberDataPoint(
                attributes=pairs, start_time_unix_nano=started_ns, time_unix_nano=ended_ns, as_double=value
            )
            (made.gauge if metric.kind == "gauge" else made.sum).data_points.append(point)
    return bytes(request.SerializeToString())


def _pairs(attributes: Mapping[str, Any]) -> list[KeyValue]:
    return [KeyValue(key=name, value=_value(value)) for name, value in attributes.items()]


def _value(value: Any) -> AnyValue:
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    text = value if isinstance(value, str) else _encoder.encode(value).decode()
    return AnyValue(string_value=text[:LONGEST_TEXT])


class ReadLog(msgspec.Struct, frozen=True):
    """A log line as it was sent. `at_ns` since 1970; ids in hex, "" outside a trace."""

    service: str
    instance: str
    at_ns: int
    level: str
    body: str
    trace_id: str
    span_id: str
    attributes: dict[str, Any]


class ReadSpan(msgspec.Struct, frozen=True):
    """A span as it was sent. Times in nanoseconds since 1970, ids in hex; `error` is "" when it went well. `links` are
    the traces that it hangs together with."""

    service: str
    instance: str
    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    started_ns: int
    ended_ns: int
    attributes: dict[str, Any]
    error: str
    links: tuple[str, ...]


class ReadPoint(msgspec.Struct, frozen=True):
    """One series of one metric over one interval. `value` is the sum of a counter or histogram, or a gauge's reading;
    `buckets` and `bounds` are a histogram's."""

    service: str
    instance: str
    name: str
    kind: str
    unit: str
    attributes: dict[str, Any]
    started_ns: int
    ended_ns: int
    value: float
    buckets: tuple[int, ...] = ()
    bounds: tuple[float, ...] = ()


def read_logs(value: bytes) -> Iterator[ReadLog]:
    """What `encode_logs` made. Raises ValueError for anything else."""
    for group in _parsed(ExportLogsServiceRequest, value).resource_logs:
        who = _who(group.resource)
        for scope in group.scope_logs:
            for record in scope.log_records:
                yield ReadLog(
                    *who,
                    record.time_unix_nano,
                    record.severity_text,
                    record.body.string_value,
                    record.trace_id.hex(),
                    record.span_id.hex(),
                    _plain(record.attributes),
                )


def read_spans(value: bytes) -> Iterator[ReadSpan]:
    """What `encode_spans` made. Raises ValueError for anything else."""
    for group in _parsed(ExportTraceServiceRequest, value).resource_spans:
        who = _who(group.resource)
        for scope in group.scope_spans:
            for span in scope.spans:
                yield ReadSpan(
                    *who,
                    span.name,
                    SpanMessage.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    span.start_time_unix_nano,
                    span.end_time_unix_nano,
                    _plain(span.attributes),
                    (span.status.message or "failed") if span.status.code == Status.STATUS_CODE_ERROR else "",
                    tuple(link.trace_id.hex() for link in span.links),
                )


def read_metrics(value: bytes) -> Iterator[ReadPoint]:
    """What `encode_metrics` made. Raises ValueError for anything else."""
    for group in _parsed(ExportMetricsServiceRequest, value).resource_metrics:
        who = _who(group.resource)
        for scope in group.scope_metrics:
            for metric in scope.metrics:
                kind = metric.WhichOneof("data")
                if kind not in ("sum", "gauge", "histogram"):
                    raise ValueError(f"{metric.name} is of a kind that nobody here reads: {kind}")
                for point in getattr(metric, kind).data_points:
                    plain = _plain(point.attributes)
                    times = (point.start_time_unix_nano, point.time_unix_nano)
                    if kind == "histogram":
                        buckets, bounds = tuple(point.bucket_counts), tuple(point.explicit_bounds)
                        yield ReadPoint(*who, metric.name, kind, metric.unit, plain, *times, point.sum, buckets, bounds)
                    else:
                        measured = point.as_int if point.WhichOneof("value") == "as_int" else point.as_double
                        yield ReadPoint(*who, metric.name, kind, metric.unit, plain, *times, measured)


def _parsed(request: Any, value: bytes) -> Any:
    try:
        return request.FromString(value)
    except DecodeError as error:
        raise ValueError(f"no {request.DESCRIPTOR.name}: {error}") from None


def _who(source: Resource) -> tuple[str, str]:
    """Service and instance. Raises ValueError for a source that does not say."""
    said = _plain(source.attributes)
    if "service.name" not in said:
        raise ValueError("the resource has no service.name")
    return str(said["service.name"]), str(said.get("service.instance.id", ""))


def _plain(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value") or "string_value") for pair in pairs}
