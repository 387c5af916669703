"""Telemetry at the source: what is counted, sampled and sent; what is dropped rather than waited for."""

import asyncio
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from tests.builders import a_partner, an_approved_order, records_of, wait_for

from lostwax.contracts import catalogue, topics
from lostwax.contracts import metrics as measured
from lostwax.contracts.metrics import Metric
from lostwax.kit import metrics, otlp, telemetry, tracing
from lostwax.local.stack import Stack

WAIT = Metric("test.wait", "histogram", "s", "A wait.", ("topic",), (0.1, 1.0))
DONE = Metric("test.done", "counter", "1", 'Said "so".', ("topic", "how"))
NOW = Metric("test.now", "gauge", "By", "As it is.")


@pytest.fixture
def spans() -> Iterator[list[tracing.Span]]:
    """Every span of this process while the test runs; all traces are sampled."""
    found: list[tracing.Span] = []
    tracing.configure(1.0, found.append)
    token = tracing.current.set(None)
    yield found
    tracing.current.reset(token)
    tracing.configure(0, None)


def test_the_catalogue_names_each_metric_once_with_sorted_bounds() -> None:
    names = [m.name for m in measured.ALL]
    assert len(names) == len(set(names))
    assert all((m.kind == "histogram") == bool(m.bounds) and list(m.bounds) == sorted(m.bounds) for m in measured.ALL)


def test_deltas_add_up_to_the_totals_whenever_they_are_taken() -> None:
    counter, histogram = metrics.counter(DONE), metrics.histogram(WAIT)
    deltas = metrics.Deltas()
    deltas.take()
    before = counter.series.get(("a", "well"), 0)
    took: list[Any] = []
    for round_ in range(3):
        counter.add(2, "a", "well")
        histogram.record(0.05 * (round_ + 1), "a")
        took.append({metric.name: series for metric, series in deltas.take()})
    assert [t["test.done"][("a", "well")] for t in took] == [2, 2, 2]
    assert counter.series[("a", "well")] == before + 6
    # A value on a bound lies in the bucket that ends there.
    assert [t["test.wait"][("a",)].buckets for t in took] == [[1, 0, 0], [1, 0, 0], [0, 1, 0]]
    assert deltas.take() == [] or "test.done" not in {m.name for m, _ in deltas.take()}


def test_too_many_series_are_counted_together() -> None:
    counter = metrics.Counter(DONE)
    for number in range(2_100):
        counter.add(1, str(number), "x")
    assert len(counter.series) == 2_001
    assert counter.series[("others", "others")] == 100


def test_quantiles_are_interpolated() -> None:
    assert metrics.quantile(0.5, [0, 10, 0], (0.1, 1.0)) == pytest.approx(0.55)
    assert metrics.quantile(0.99, [0, 0, 3], (0.1, 1.0)) == 1.0
    assert metrics.quantile(0.5, [0, 0, 0], (0.1, 1.0)) is None


def test_prometheus_text_has_running_buckets_units_and_escapes() -> None:
    metrics.counter(DONE).add(1, 'a"b\\', "line\nbreak")
    metrics.histogram(WAIT).record(5, "b")
    metrics.gauge(NOW).set(7)
    text = metrics.prometheus_text("x")
    assert 'test_done_total{service="x",topic="a\\"b\\\\",how="line\\nbreak"} 1' in text
    assert 'test_wait_seconds_bucket{service="x",topic="b",le="1.0"} 0' in text
    assert 'test_wait_seconds_bucket{service="x",topic="b",le="+Inf"} 1' in text
    assert 'test_now_bytes{service="x"} 7' in text


def test_every_service_decides_alike_whether_a_trace_is_sampled() -> None:
    tracing.configure(0.25, lambda _: None)
    try:
        traces = [tracing.new_traceparent() for _ in range(4_000)]
        shares = sum(map(tracing.sampled, traces)) / len(traces)
        assert 0.2 < shares < 0.3
        for trace in traces[:200]:
            # Whatever flag comes from outside, and however many services it goes through.
            for flag in ("00", "01", "ff"):
                assert tracing.sampled(tracing.child_of(trace[:-2] + flag)) is tracing.sampled(trace)
    finally:
        tracing.configure(0, None)


def test_spans_nest_and_carry_what_they_are_told(spans: list[tracing.Span]) -> None:
    tracing.current.set(root := tracing.new_traceparent())
    with tracing.span("outer", "server", a=1) as outer, tracing.span("inner"):
        outer.note(b="two")
    inner, outside = spans
    assert (outside.trace_id, outside.parent_id) == (root[3:35], root[36:52])
    assert inner.parent_id == outside.span_id
    assert outside.attributes == {"a": 1, "b": "two"}
    assert outside.started_ns <= inner.started_ns <= inner.ended_ns <= outside.ended_ns
    assert tracing.current.get() == root


def test_an_error_is_recorded_though_its_trace_is_not_sampled(spans: list[tracing.Span]) -> None:
    tracing.configure(0, spans.append)
    tracing.current.set(root := tracing.new_traceparent())
    with tracing.span("fine"):
        pass
    with pytest.raises(ValueError, match="odd"), tracing.span("failing"):
        raise ValueError("odd")
    assert [(s.name, s.error, s.trace_id) for s in spans] == [("failing", "ValueError: odd", root[3:35])]


def test_messages_of_a_batch_keep_their_own_traces(spans: list[tracing.Span]) -> None:
    first, second = tracing.new_traceparent(), tracing.new_traceparent()
    batch = tracing.Batch([("a", first), ("b", second), ("c", None)])
    batch.enter()
    of_b, of_nobody = tracing.of("b"), tracing.of("nobody")
    assert (of_b or "")[:35] == second[:35]
    assert of_nobody == tracing.current.get()
    assert (of_nobody or "")[:35] == first[:35]
    batch.finish("handle it", messages=3)
    assert [s.trace_id for s in spans][:2] == [first[3:35], second[3:35]]
    assert len(spans) == 3
    assert (spans[0].links, len(spans[1].links)) == ((), 1)


def test_what_is_sent_can_be_read_again(spans: list[tracing.Span]) -> None:
    source = otlp.resource("orders", "a")
    tracing.current.set(tracing.new_traceparent())
    with tracing.span("work", "client", rows=3, share=0.5, what="x" * 20_000):
        pass
    (read,) = otlp.read_spans(otlp.encode_spans(source, spans))
    assert (read.service, read.name, read.kind, read.error) == ("orders", "work", "client", "")
    assert (read.span_id, read.parent_id) == (spans[0].span_id, spans[0].parent_id)
    assert {**read.attributes, "what": len(read.attributes["what"])} == {"rows": 3, "share": 0.5, "what": 16_384}
    wait = metrics.Distribution([1, 2, 0], 1.5)
    points = list(otlp.read_metrics(otlp.encode_metrics(source, [(WAIT, {("t",): wait}), (NOW, {(): 7.0})], 1, 2)))
    assert [(p.name, p.kind, p.attributes, p.value, p.buckets, p.bounds) for p in points] == [
        ("test.wait", "histogram", {"topic": "t"}, 1.5, (1, 2, 0), (0.1, 1.0)),
        ("test.now", "gauge", {}, 7.0, (), ()),
    ]


class Settings(msgspec.Struct, frozen=True):
    kafka_bootstrap: str
    instance: str = "test"
    log_level: str = "INFO"
    telemetry: bool = True
    traces_share: float = 1.0


@pytest.fixture
def root_logger() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:], root.level = handlers, level


@pytest.mark.usefixtures("root_logger")
async def test_without_kafka_nothing_waits_and_what_is_lost_is_counted() -> None:
    dropped = metrics.counter(measured.TELEMETRY_DROPPED)
    before = dropped.series.get(("logs",), 0)
    began = time.monotonic()
    async with telemetry.running("test", Settings("127.0.0.1:1")):
        for number in range(30_000):
            logging.getLogger("test").info("line", extra={"number": number})
    assert dropped.series[("logs",)] - before >= 9_999
    assert time.monotonic() - began < 20


@pytest.mark.usefixtures("root_logger")
async def test_a_log_line_arrives_with_its_trace_and_a_long_one_is_cut(stack: Stack) -> None:
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

    bootstrap = stack.env("orders")["LOSTWAX_KAFKA_BOOTSTRAP"]
    trace = tracing.new_traceparent()
    tracing.current.set(trace)
    async with telemetry.running("test-logs", Settings(bootstrap)):
        logging.getLogger("test").warning("x" * 1_000_000, extra={"order": "o", "big": 2**70})
    found = [
        log
        for record in records_of(bootstrap, [topics.TELEMETRY_LOGS.name])
        if record.key() == b"test-logs"
        for group in ExportLogsServiceRequest.FromString(record.value() or b"").resource_logs
        for log in group.scope_logs[0].log_records
    ]
    (log,) = found
    assert len(log.body.string_value) == 16_384
    assert (log.severity_text, log.trace_id.hex(), log.span_id.hex()) == ("WARNING", trace[3:35], trace[36:52])
    assert {a.key: a.value.string_value for a in log.attributes} == {
        "logger": "test",
        "order": "o",
        "big": str(2**70),
    }


async def test_the_way_of_one_order_that_went_through_a_retry(stack: Stack) -> None:
    """Its shard is away while Orders handles its approval: the failed tries are seen, and every hop of the rest."""
    partner = await a_partner(stack)
    try:
        order_id = await an_approved_order(partner)

        def traced() -> str:
            command = [sys.executable, "-m", "lostwax", "trace", order_id, "--all", "--stack", stack.folder.name]
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False,
                                  env={**os.environ, "COLUMNS": "300"})  # fmt: skip
            assert done.returncode == 0, done.stderr
            return done.stdout

        async def whole() -> str | None:
            text = await asyncio.to_thread(traced)
            return (
                text if "handle pricing.requests.quick" in text and text.count("handle orders.changes") >= 6 else None
            )

        text = await wait_for(whole, 30)
        for hop in (
            "POST /v1/orders",
            "store together",
            "wrote orders.requests",
            "send orders.requests",
            "handle orders.requests",
            "wrote pricing.requests.quick",
            "measure",
            "get s3",
            "wrote pricing.results",
            "version 2 PRICE_CALCULATED by Orders",
            "version 3 MANUFACTURING_APPROVED",
            "INSERT postgresql",
        ):
            assert hop in text, hop

        stack.stop("pg-shard-0")
        stack.stop("pg-shard-1")
        cancelled = await partner.post(f"/v1/orders/{order_id}/cancel", json={"reason": "no longer wanted"})
        assert cancelled.status_code == 202
        await asyncio.sleep(2)
        stack.start_one("pg-shard-0")
        stack.start_one("pg-shard-1")

        async def mended() -> bool:
            text = await asyncio.to_thread(traced)
            return "Cancel by partner" in text and "CANCELLED" in text and "Error" in text

        assert await wait_for(mended, 40)
    finally:
        await partner.aclose()


def test_every_message_type_has_a_subject() -> None:
    for type_ in catalogue.TYPES:
        assert catalogue._SUBJECT_OF[type_.struct].__reduce__()[1] != ("__class__.__name__",), type_.name
