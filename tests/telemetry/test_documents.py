"""Logs, spans and points of metrics as documents: pure functions over what services send."""

import json
import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lostwax.contracts.ids import new_id, short_code
from lostwax.contracts.metrics import ORDERS_ACCEPTED, OUTBOX_DEPTH, OUTBOX_WAIT
from lostwax.kit import otlp
from lostwax.kit.metrics import Distribution
from lostwax.kit.tracing import SUBJECT, Span, new_traceparent
from lostwax.telemetry.documents import (
    LONGEST_MESSAGE,
    Document,
    log_documents,
    metric_documents,
    span_documents,
)

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
SOURCE = otlp.resource("orders", "orders-0")


def ns(at: datetime) -> int:
    return int(at.timestamp()) * 10**9


def a_log(body: str = "shard away", *, at: datetime = NOW, **attributes: Any) -> Document:
    log = otlp.Log(ns(at), logging.WARNING, body, attributes, new_traceparent())
    (document,) = log_documents(otlp.encode_logs(SOURCE, [log]), NOW)
    return document


def source(document: Document) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(document.source)
    return made


def test_a_log_line_says_who_when_and_about_which_order() -> None:
    order_id = new_id()
    said = source(a_log("shard away", order=str(order_id), shard=1))
    assert (said["service"], said["instance"], said["level"]) == ("orders", "orders-0", "warning")
    assert (said["@timestamp"], said["message"]) == ("2026-11-25T12:00:00+00:00", "shard away")
    assert (said["order_id"], said["code"]) == (str(order_id), short_code(order_id))
    assert said["attributes"] == {"order": str(order_id), "shard": "1"}
    assert len(said["trace_id"]) == 32


def test_what_is_no_order_is_not_called_one() -> None:
    assert "order_id" not in source(a_log(order="the next one"))


def test_the_same_line_read_again_has_the_same_id_and_another_line_has_not() -> None:
    traceparent = new_traceparent()
    lines = [otlp.Log(ns(NOW), logging.INFO, body, {}, traceparent) for body in ("one", "one", "two")]
    ids = [d.id for d in log_documents(otlp.encode_logs(SOURCE, lines), NOW)]
    assert ids[0] == ids[1] != ids[2]


def test_a_long_line_is_cut_and_says_so() -> None:
    document = a_log("x" * 1_000_000, detail="y" * 1_000_000)
    said = source(document)
    assert len(document.source) < 5 * LONGEST_MESSAGE
    assert said["message"].startswith("x" * LONGEST_MESSAGE)


@pytest.mark.parametrize("off", [timedelta(hours=1), -timedelta(days=400), timedelta(days=36_000)])
def test_a_clock_that_is_far_off_is_told_and_the_line_kept_under_now(off: timedelta) -> None:
    said = source(a_log(at=NOW + off))
    assert said["@timestamp"] == NOW.isoformat()
    assert said["attributes"]["clock_said"].startswith(str((NOW + off).year))


def test_a_span_is_a_hop_of_its_trace() -> None:
    parent, own, other = new_traceparent(), new_traceparent(), new_traceparent()
    own = own[:3] + parent[3:35] + own[35:]
    order_id = new_id()
    span = Span(
        "handle orders.requests", "consumer", own, parent, ns(NOW), ns(NOW) + 2_500_000,
        {SUBJECT: str(order_id), "messages": 3}, "StorageAway: 503", (other,),
    )  # fmt: skip
    (document,) = span_documents(otlp.encode_spans(SOURCE, [span]), NOW)
    said = source(document)
    assert (said["trace_id"], said["parent_id"], said["links"]) == (parent[3:35], parent[36:52], [other[3:35]])
    assert (said["duration_us"], said["status"], said["kind"]) == (2500, "error", "consumer")
    assert (said["order_id"], said["attributes"]["error"]) == (str(order_id), "StorageAway: 503")


def test_points_of_one_series_share_its_name_and_nothing_else_does() -> None:
    changes = [
        (ORDERS_ACCEPTED, {("partner_api",): 3.0, ("shop",): 1.0}),
        (OUTBOX_DEPTH, {("relay",): 7.0}),
        (OUTBOX_WAIT, {("orders.changes",): Distribution([1, 2] + [0] * (len(OUTBOX_WAIT.bounds) - 1), 0.5)}),
    ]
    first, second = (
        list(metric_documents(otlp.encode_metrics(SOURCE, changes, ns(at) - 10**10, ns(at)), NOW))
        for at in (NOW, NOW - timedelta(seconds=10))
    )
    points = [source(d) for d in first]
    assert [(p["name"], p["kind"], p["value"]) for p in points] == [
        ("lostwax.orders.accepted", "counter", 3),
        ("lostwax.orders.accepted", "counter", 1),
        ("lostwax.outbox.depth", "gauge", 7),
        ("lostwax.outbox.wait", "histogram", 0.5),
    ]
    assert points[0]["interval_s"] == 10
    assert (points[3]["count"], points[3]["buckets"][:2], points[3]["unit"]) == (3, [1, 2], "s")
    assert [source(d)["series"] for d in second] == [p["series"] for p in points]
    assert len({p["series"] for p in points}) == 4
    assert not {d.id for d in first} & {d.id for d in second}


@pytest.mark.parametrize("read", [log_documents, span_documents, metric_documents])
def test_what_is_no_telemetry_is_refused(read: Any) -> None:
    with pytest.raises(ValueError, match="no Export"):
        list(read(b"\xff\xff not protobuf", NOW))
