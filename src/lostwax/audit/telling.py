"""The verdict of an audit, as a metric: so it is on telemetry's page, and an alert can ring for it."""

from collections import Counter

from confluent_kafka import KafkaException, Producer

from lostwax.audit.run import Report
from lostwax.audit.verdict import Kind
from lostwax.contracts.metrics import AUDIT_FINDINGS
from lostwax.contracts.topics import TELEMETRY_METRICS
from lostwax.kit import otlp

_LIMIT_S = 5.0
_WHO = "audit"


def tell(report: Report, bootstrap: str) -> bool:
    """Send it to telemetry's topic; False where there is none, or Kafka does not take it. Blocks."""
    found = Counter(finding.kind for finding in report.findings)
    at_ns = int(report.at.timestamp() * 1e9)
    # One name for all audits, wherever they run: the newest is the last.
    value = otlp.encode_metrics(
        otlp.resource(_WHO, _WHO),
        [(AUDIT_FINDINGS, {(kind.value,): float(found[kind]) for kind in Kind})],
        at_ns - int(report.seconds * 1e9),
        at_ns,
    )
    failed: list[object] = []
    producer = Producer(
        {"bootstrap.servers": bootstrap, "log_level": 0, "message.timeout.ms": int(_LIMIT_S * 1000), "acks": "all"}
    )
    try:
        if TELEMETRY_METRICS.name not in producer.list_topics(timeout=_LIMIT_S).topics:
            return False
        producer.produce(
            TELEMETRY_METRICS.name,
            value,
            key=_WHO,
            on_delivery=lambda error, _: failed.append(error) if error is not None else None,
        )
        return producer.flush(_LIMIT_S) == 0 and not failed
    except (KafkaException, BufferError):
        return False
