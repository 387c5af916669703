"""What other programs may send as OTLP, and what OpenSearch would not take of it."""

import json
import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from lostwax.kit import otlp
from lostwax.telemetry.documents import log_documents, metric_documents

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
LONGEST_TERM = 32_766
"""Bytes, of Lucene."""

SOURCE = otlp.resource("orders", "orders-0")


def a_request() -> tuple[ExportMetricsServiceRequest, Any]:
    """A request, and the one metric in it, of no kind yet."""
    request = ExportMetricsServiceRequest()
    group = request.resource_metrics.add(resource=SOURCE)
    return request, group.scope_metrics.add().metrics.add(name="theirs", unit="1")


def test_a_line_of_a_wrong_clock_has_the_same_id_whenever_it_is_read() -> None:
    at_ns = int((NOW - timedelta(days=400)).timestamp()) * 10**9
    value = otlp.encode_logs(SOURCE, [otlp.Log(at_ns + n, logging.INFO, "late", {}, None) for n in range(2)])
    first, again = (
        [(d.id, json.loads(d.source)["@timestamp"]) for d in log_documents(value, NOW + timedelta(minutes=m))]
        for m in (0, 1)
    )
    assert [i for i, _ in first] == [i for i, _ in again]
    assert len({i for i, _ in first}) == 2
    assert first[0][1] != again[0][1]


@pytest.mark.parametrize("letter", ["x", "щ", "\N{RING}"])
def test_no_attribute_is_longer_than_a_term_may_be(letter: str) -> None:
    log = otlp.Log(int(NOW.timestamp()) * 10**9, logging.INFO, "long", {"n" * 1000: letter * 100_000}, None)
    (document,) = log_documents(otlp.encode_logs(SOURCE, [log]), NOW)
    ((name, value),) = json.loads(document.source)["attributes"].items()
    assert len(f"{name}={value}".encode()) < LONGEST_TERM
    assert value.endswith("characters")


@pytest.mark.parametrize("kind", ["", "summary", "exponential_histogram"])
def test_a_kind_of_metric_that_nobody_reads_is_refused_by_name(kind: str) -> None:
    request, metric = a_request()
    if kind:
        getattr(metric, kind).data_points.add()
    with pytest.raises(ValueError, match="theirs is of a kind"):
        list(metric_documents(request.SerializeToString(), NOW))


def test_whole_numbers_count_as_well() -> None:
    request, metric = a_request()
    metric.gauge.data_points.add(as_int=7, time_unix_nano=int(NOW.timestamp()) * 10**9)
    (document,) = metric_documents(request.SerializeToString(), NOW)
    assert json.loads(document.source)["value"] == 7
