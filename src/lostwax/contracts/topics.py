"""Kafka topics: what each carries, who writes and who reads it. The one list from which topics are created."""

import msgspec

from lostwax.contracts.ids import PARTITIONS
from lostwax.contracts.quotes import KEPT

DAY_MS = 24 * 3600 * 1000


class Topic(msgspec.Struct, frozen=True):
    """`by_bucket`: a message's partition is its bucket mod PARTITIONS, set by the producer. `retention_ms`: how long
    a message is kept; of a compacted topic the newest of each key, too, when `forgets`, else for ever."""

    name: str
    written_by: tuple[str, ...]
    read_by: tuple[str, ...]
    partitions: int = PARTITIONS
    by_bucket: bool = True
    compacted: bool = False
    forgets: bool = False
    retention_ms: int = 14 * DAY_MS

    @property
    def cleanup(self) -> tuple[list[str], int | None]:
        """Kafka's `cleanup.policy`, and its `retention.ms` where that says anything."""
        if not self.compacted:
            return ["delete"], self.retention_ms
        return (["compact", "delete"], self.retention_ms) if self.forgets else (["compact"], None)

    @property
    def dead(self) -> str:
        """Name of the topic that takes what a reader gave up on, kept without limit."""
        return f"{self.name}.dead"


ORDER_REQUESTS = Topic("orders.requests", ("partner_api", "shop", "crm"), ("orders",))
ORDER_CHANGES = Topic("orders.changes", ("orders",), ("partner_api", "shop", "mes", "crm"), compacted=True)
ORDER_COMMANDS = Topic("orders.commands", ("partner_api", "shop", "mes", "crm"), ("orders",))
ORDER_OUTCOMES = Topic("orders.outcomes", ("orders",), ("partner_api", "shop", "mes", "crm"))
ORDER_MESSAGES = Topic("orders.messages", ("shop", "crm"), ("shop", "crm"))
ORDER_MODELS = Topic("orders.models", ("orders",), ("orders",))
QUOTE_REQUESTS = Topic("quotes.requests", ("partner_api", "shop", "crm"), ("orders",))
QUOTE_CHANGES = Topic(
    "quotes.changes",
    ("orders",),
    ("partner_api", "shop", "crm"),
    compacted=True,
    forgets=True,
    retention_ms=(KEPT.days + 14) * DAY_MS,
)
MODEL_TRANSFERS = Topic("models.transfers", ("partner_api", "shop", "crm", "orders"), ("orders",))
MODEL_STORED = Topic("models.stored", ("orders",), ("partner_api", "shop", "crm"))
PRICING_QUICK = Topic("pricing.requests.quick", ("orders",), ("pricing",))
PRICING_HEAVY = Topic("pricing.requests.heavy", ("orders",), ("pricing",))
PRICING_RESULTS = Topic("pricing.results", ("pricing",), ("orders",))
STAFF_CHANGES = Topic("staff.changes", ("crm",), ("mes",), compacted=True)

ALL: tuple[Topic, ...] = (
    ORDER_REQUESTS,
    ORDER_CHANGES,
    ORDER_COMMANDS,
    ORDER_OUTCOMES,
    ORDER_MESSAGES,
    ORDER_MODELS,
    QUOTE_REQUESTS,
    QUOTE_CHANGES,
    MODEL_TRANSFERS,
    MODEL_STORED,
    PRICING_QUICK,
    PRICING_HEAVY,
    PRICING_RESULTS,
    STAFF_CHANGES,
)

# OTLP as protobuf, not messages of the catalogue: written by every service, keyed by its name.
TELEMETRY_LOGS = Topic("telemetry.logs", (), (), partitions=2, by_bucket=False, retention_ms=3 * DAY_MS)
TELEMETRY_METRICS = Topic("telemetry.metrics", (), (), partitions=2, by_bucket=False, retention_ms=3 * DAY_MS)
TELEMETRY_TRACES = Topic("telemetry.traces", (), (), partitions=2, by_bucket=False, retention_ms=3 * DAY_MS)

TELEMETRY: tuple[Topic, ...] = (TELEMETRY_LOGS, TELEMETRY_METRICS, TELEMETRY_TRACES)
"""Beside ALL: lossy by design, with no outbox behind them."""
