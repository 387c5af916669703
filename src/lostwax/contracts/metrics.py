"""The one catalogue of what is measured: OpenTelemetry names where its conventions have one, `lostwax.` else.

Durations are in seconds. Attributes are few-valued on purpose: no id of an order, a client or a model is ever one.
"""

from typing import Literal

import msgspec

_WAITS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0)


class Metric(msgspec.Struct, frozen=True):
    """One metric. `unit` is UCUM's (`s`, `By`, `1`); `bounds` are the upper ends of a histogram's buckets."""

    name: str
    kind: Literal["counter", "histogram", "gauge"]
    unit: str
    description: str
    attributes: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()


ALL: list[Metric] = []


def _metric(metric: Metric) -> Metric:
    ALL.append(metric)
    return metric


def _counter(name: str, unit: str, description: str, *attributes: str) -> Metric:
    return _metric(Metric(name, "counter", unit, description, attributes))


def _gauge(name: str, unit: str, description: str, *attributes: str) -> Metric:
    return _metric(Metric(name, "gauge", unit, description, attributes))


def _histogram(name: str, unit: str, description: str, *attributes: str, bounds: tuple[float, ...] = _WAITS) -> Metric:
    return _metric(Metric(name, "histogram", unit, description, attributes, bounds))


# -- HTTP ---------------------------------------------------------------------------------------------------------
HTTP_REQUESTS = _histogram(
    "http.server.request.duration",
    "s",
    "From the first byte of a request to the last of its answer. Rate, errors and latency of a service come from it.",
    "http.request.method",
    "http.route",
    "http.response.status_code",
)

# -- PostgreSQL ---------------------------------------------------------------------------------------------------
DATABASE_CALLS = _histogram(
    "db.client.operation.duration",
    "s",
    "One statement as the service waits for it, network included; the operation is its first word.",
    "db.operation.name",
)
FLUSH_ROWS = _histogram(
    "lostwax.flush.rows", "1", "Rows that were written together in one flush of intake.", bounds=_SIZES
)
OUTBOX_WAIT = _histogram(
    "lostwax.outbox.wait", "s", "From a message's transaction to Kafka's acknowledgement: the relay's delay.", "topic"
)
OUTBOX_DEPTH = _gauge("lostwax.outbox.depth", "1", "Messages that wait in an outbox.", "relay")
OUTBOX_AGE = _gauge("lostwax.outbox.age", "s", "Age of the oldest message in an outbox; 0 when empty.", "relay")

# -- Kafka --------------------------------------------------------------------------------------------------------
MESSAGES_SENT = _counter("messaging.client.sent.messages", "1", "Messages acknowledged by Kafka.", "topic")
MESSAGES_HANDLED = _counter("messaging.client.consumed.messages", "1", "Messages handled to the end.", "topic")
MESSAGES_FAILED = _counter(
    "lostwax.message.failures", "1", "Batches that could not be handled and were tried again.", "topic"
)
MESSAGES_DEAD = _counter("lostwax.message.dead", "1", "Messages that were dead-lettered.", "topic", "code")
HANDLING = _histogram("messaging.process.duration", "s", "One batch of messages in its handler.", "topic")
MESSAGE_AGE = _histogram(
    "lostwax.message.age", "s", "From a message's arrival in Kafka to the end of its handling, the oldest of a batch.",
    "topic",
)  # fmt: skip

CONSUMER_LAG = _gauge(
    "lostwax.consumer.lag", "1", "Messages in Kafka that a reader has not handled.", "group", "topic",
)  # fmt: skip

# -- S3 -----------------------------------------------------------------------------------------------------------
STORAGE_CALLS = _histogram("lostwax.storage.duration", "s", "One call of the object store.", "operation", "outcome")

# -- The trade ----------------------------------------------------------------------------------------------------
ORDERS_ACCEPTED = _counter("lostwax.orders.accepted", "1", "Orders answered 202.", "channel")
ORDER_STEPS = _counter("lostwax.orders.steps", "1", "Versions of orders written, by the step they took.", "from", "to")
COMMANDS_DECIDED = _counter("lostwax.commands.decided", "1", "Commands by what became of them.", "action", "outcome")
PRICE_JOBS = _counter(
    "lostwax.price.jobs", "1", "Price jobs by what the desk did: published, again (not answered in time), given_up.",
    "lane", "outcome",
)  # fmt: skip
PRICES = _histogram(
    "lostwax.price.duration", "s", "A price job from its request being read to its result.", "lane", "outcome"
)
CLAIMS = _counter("lostwax.claims", "1", "Clicks on `take`: won, or lost to somebody else.", "outcome")
LIST_PAGES = _counter("lostwax.lists.pages", "1", "Pages of lists by where they came from.", "list", "source")

ORDERS_OLDEST = _gauge(
    "lostwax.orders.oldest", "s", "How long the order that is longest in a status has been in it; 0: none is.", "status"
)
DEAD_OPEN = _gauge("lostwax.dead.open", "1", "Dead letters that nobody has replayed or discarded yet.", "topic")
AUDIT_FINDINGS = _gauge(
    "lostwax.audit.findings", "1", "What the last audit found wrong; its time is the reading's time.", "kind"
)

# -- Change capture -----------------------------------------------------------------------------------------------
CAPTURE_HELD = _gauge("lostwax.capture.held", "By", "WAL that a database keeps for capture's slot.", "source")
CAPTURE_LAG = _gauge("lostwax.capture.lag", "s", "How old the newest change is that Kafka certainly has.", "source")
CAPTURE_STREAMING = _gauge("lostwax.capture.streaming", "1", "1 while changes flow or are copied, else 0.", "source")
CAPTURE_DEEDS = _counter(
    "lostwax.capture.mended", "1", "What the watcher did: registered, restarted, copied anew.", "source", "deed"
)

WAREHOUSE_ROWS = _counter("lostwax.warehouse.rows", "1", "Rows that the warehouse took, once or again.", "table")

# -- The process --------------------------------------------------------------------------------------------------
CPU = _counter("process.cpu.time", "s", "CPU of the process and of its ended children.")
MEMORY = _gauge("process.memory.usage", "By", "Resident memory of the process.")
LOG_LINES = _counter("lostwax.logs", "1", "Log lines written.", "level")
TELEMETRY_DROPPED = _counter(
    "lostwax.telemetry.dropped", "1", "Logs and spans that were dropped rather than waited for.", "signal"
)
TELEMETRY_STORED = _counter("lostwax.telemetry.stored", "1", "Documents that OpenSearch took, once or again.", "signal")
