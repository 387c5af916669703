"""Telemetry at the source: this process' logs, spans and metrics to Kafka, as OTLP.

Nothing waits for it. What Kafka does not take is dropped and counted, and the lines on standard error stay in any case.
At rest it wakes for the metrics alone.
"""

import asyncio
import logging
import resource
import socket
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka import Message as KafkaMessage

from lostwax.contracts import metrics as catalogue
from lostwax.contracts import topics
from lostwax.contracts.topics import Topic
from lostwax.kit import logs, metrics, otlp, tracing

log = logging.getLogger(__name__)

GATHER_S = 1.0
METRICS_EVERY_S = 10.0
_MOST_WAITING = 20_000
_BATCH = 400
_LAST_WORDS_S = 2.0

_dropped = metrics.counter(catalogue.TELEMETRY_DROPPED)
_log_lines = metrics.counter(catalogue.LOG_LINES)
_cpu = metrics.counter(catalogue.CPU)
_memory = metrics.gauge(catalogue.MEMORY)


class HasTelemetry(Protocol):
    """The settings that every service has for this. `traces_share`: of all traces, 0 to 1."""

    @property
    def kafka_bootstrap(self) -> str: ...
    @property
    def instance(self) -> str: ...
    @property
    def log_level(self) -> str: ...
    @property
    def telemetry(self) -> bool: ...
    @property
    def traces_share(self) -> float: ...


@asynccontextmanager
async def running(service: str, settings: HasTelemetry) -> AsyncIterator[None]:
    """Logs, spans and metrics of this process go out while this is entered; the last ones at its end."""
    logs.configure(service, settings.log_level)
    if not settings.telemetry:
        yield
        return
    exporter = Exporter(service, settings.instance or socket.gethostname(), settings.kafka_bootstrap)
    tracing.configure(settings.traces_share, exporter.take_span)
    handler = _Handler(exporter)
    logging.getLogger().addHandler(handler)
    task = asyncio.create_task(exporter.run(), name="telemetry")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        logging.getLogger().removeHandler(handler)
        tracing.configure(0, None)
        await asyncio.to_thread(exporter.close)


class Exporter:
    """Gathers for a second, sends, forgets."""

    def __init__(self, service: str, instance: str, bootstrap: str) -> None:
        self._service = service
        self._source = otlp.resource(service, instance)
        self._logs: deque[otlp.Log] = deque()
        self._spans: deque[tracing.Span] = deque()
        self._deltas = metrics.Deltas()
        self._measured_ns = time.time_ns()
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._woken = False
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "client.id": f"{service}-telemetry",
                "acks": "1",
                "linger.ms": 50,
                "compression.type": "lz4",
                "message.timeout.ms": 30_000,
                "queue.buffering.max.messages": 2_000,
                "queue.buffering.max.kbytes": 16_384,
                "delivery.report.only.error": True,
                "log_level": 0,
                "reconnect.backoff.max.ms": 5_000,
                "error_cb": lambda _: None,
            }
        )

    def take_span(self, span: tracing.Span) -> None:
        """Queue a span; drops it when too many wait. Must be called on the event loop."""
        if len(self._spans) >= _MOST_WAITING:
            _dropped.add(1, "traces")
            return
        self._spans.append(span)
        if not self._woken:
            self._woken = True
            self._wake.set()

    def take_log(self, entry: otlp.Log) -> None:
        """Queue a log; drops it when too many wait. From any thread."""
        if len(self._logs) >= _MOST_WAITING:
            _dropped.add(1, "logs")
            return
        self._logs.append(entry)
        if not self._woken:
            self._woken = True
            self._loop.call_soon_threadsafe(self._wake.set)

    async def run(self) -> None:
        """Export until cancelled. A fault in here costs telemetry, never the service."""
        due = self._loop.time() + METRICS_EVERY_S
        while True:
            try:
                async with asyncio.timeout_at(due):
                    await self._wake.wait()
                    await asyncio.sleep(GATHER_S)
            except TimeoutError:
                due = self._loop.time() + METRICS_EVERY_S
                self._guarded(self._send_metrics)
            self._wake.clear()
            self._woken = False
            self._guarded(self._send_queued)

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception:
            log.exception("telemetry failed")

    def _send_queued(self) -> None:
        for topic, waiting, encode in (
            (topics.TELEMETRY_LOGS, self._logs, otlp.encode_logs),
            (topics.TELEMETRY_TRACES, self._spans, otlp.encode_spans),
        ):
            some: deque[Any] = waiting
            while some:
                taken = [some.popleft() for _ in range(min(_BATCH, len(some)))]
                self._produce(topic, encode(self._source, taken), len(taken))
        self._producer.poll(0)

    def _send_metrics(self) -> None:
        _measure_process()
        now_ns = time.time_ns()
        changes = self._deltas.take()
        self._produce(
            topics.TELEMETRY_METRICS,
            otlp.encode_metrics(self._source, changes, self._measured_ns, now_ns),
            len(changes),
        )
        self._measured_ns = now_ns

    def _produce(self, topic: Topic, value: bytes, count: int) -> None:
        signal = topic.name.rpartition(".")[2]

        def lost(_error: KafkaError | None, _message: KafkaMessage) -> None:
            _dropped.add(count, signal)

        try:
            self._producer.produce(topic.name, value=value, key=self._service, on_delivery=lost)
        except (BufferError, KafkaException):
            _dropped.add(count, signal)

    def close(self) -> None:
        """Send what waits, for two seconds at most."""
        self._guarded(self._send_queued)
        self._guarded(self._send_metrics)
        self._producer.flush(_LAST_WORDS_S)


class _Handler(logging.Handler):
    """Every log line of this process, but for the exporter's own."""

    def __init__(self, exporter: Exporter) -> None:
        super().__init__()
        self._exporter = exporter

    def emit(self, record: logging.LogRecord) -> None:
        if record.name == __name__:
            return
        attributes: dict[str, Any] = {"logger": record.name, **logs.extra_fields(record)}
        if record.exc_info:
            attributes["exception"] = logging.Formatter().formatException(record.exc_info)
        _log_lines.add(1, record.levelname)
        self._exporter.take_log(
            otlp.Log(int(record.created * 1e9), record.levelno, record.getMessage(), attributes, tracing.current.get())
        )


def _measure_process() -> None:
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    used = own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
    _cpu.add(used - _cpu.series.get((), 0.0))
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    _memory.set(pages * resource.getpagesize())
