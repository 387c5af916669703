"""Floors and goals in one place: what each figure is held against. A goal is where to get, a floor what a change must
not fall below."""

import msgspec


class Budget(msgspec.Struct, frozen=True):
    """A figure of a benchmark with its bounds. `by`: what of the metric is judged, its value or its ratio to the
    ceiling or peer of the same run. `at_least`: more is better. None: no such bound."""

    what: str
    bench: str
    metric: str
    unit: str
    floor: float | None
    goal: float | None
    by: str = "value"
    at_least: bool = False

    def reached(self, figure: float, bound: float | None) -> bool:
        return bound is None or (figure >= bound if self.at_least else figure <= bound)


def _most(what: str, bench: str, metric: str, unit: str, floor: float | None, goal: float | None) -> Budget:
    return Budget(what, bench, metric, unit, floor, goal)


def _least(what: str, bench: str, metric: str, unit: str, floor: float | None, goal: float | None) -> Budget:
    return Budget(what, bench, metric, unit, floor, goal, at_least=True)


def _times(what: str, bench: str, metric: str, peer: str, floor: float | None, goal: float | None) -> Budget:
    return Budget(what, bench, metric, f"x {peer}", floor, goal, by="ratio", at_least=True)


def _ratio(what: str, bench: str, metric: str, peer: str, floor: float | None, goal: float | None) -> Budget:
    return Budget(what, bench, metric, f"x {peer}", floor, goal, by="ratio")


BUDGETS = (
    _times("intake, one worker, durable", "intake", "accepted", "pgbench", 1.2, 1.5),
    _most("intake: p99 at 64 in flight", "intake", "p99_ms", "ms", None, 60),
    _most("intake at the edge: p99 of the accepted", "intake-edge", "p99_ms", "ms", 300, 300),
    _most("intake at the edge: answers neither 202 nor 503", "intake-edge", "neither_202_nor_503", "", 0, 0),
    _most("intake at the edge: memory, again over first", "intake-edge", "memory_growth", "x", None, 1.05),
    _times("relay, acknowledged rows a second", "relay", "published", "Debezium's EventRouter", 1, 2),
    _most("relay: wait of a row at 500/s, p99", "relay", "lag_p99_ms", "ms", None, 100),
    _most("a partner's 202 to the operators' queue, p99", "door-to-queue", "p99_ms", "ms", 2000, 500),
    _most("orders never seen in the queue", "door-to-queue", "never_seen", "orders", 0, 0),
    _least("whole pipeline", "pipeline", "orders_per_s", "orders/s", 100, 400),
    _most("operators' list, most orders, p99", "queue", "p99_ms", "ms", 50, 10),
    _most("operators' list, growth of p99 with the orders", "queue", "growth", "x", 1.5, 1.1),
    _most("sellers' desk, 100,000 orders, worst p99", "crm", "p99_ms", "ms", 100, 50),
    _most("sellers' desk, growth of p99 with the orders", "crm", "growth", "x", 1.5, 1.1),
    _most("claim, 100 at once, p95", "claim", "p95_ms", "ms", 200, 50),
    _most("price, 100,000 triangles, CPU", "price", "cpu_ms_100k", "ms", 250, 100),
    _most("price, 1.3 M triangles, CPU", "price", "cpu_ms_1300k", "ms", 3500, 1300),
    _times("parse and measure, 84,000 triangles", "price", "parse_84k", "trimesh", 8, 30),
    _times("parse and measure, 1.3 M triangles", "price", "parse_1300k", "trimesh", 8, 30),
    _times("parse and measure, 5 M triangles", "price", "parse_5000k", "trimesh", 8, 30),
    _most("memory of a price over its file's size", "price", "memory", "x", 4, 2),
    _most("volume against what is known, worst", "price", "accuracy", "", 1e-5, 1e-6),
    _most("re-quote of known content, CPU", "price", "requote_ms", "ms", 20, 5),
    _times("shards: orders written, two over one", "shards", "scaling", "one shard", 1.5, 1.9),
    _least("replica reads: share on replicas", "replica-reads", "share", "%", 80, 95),
    _most("replica reads: stale reads of one's own write", "replica-reads", "stale", "", 0, 0),
    _least("change capture into the warehouse", "capture", "rows", "rows/s", 5000, 20_000),
    _most("change capture: freshness p95 at 100 orders/s", "capture", "freshness_p95_s", "s", 10, 2),
    _most("reports over 5 M orders, the slowest", "reports", "slowest_ms", "ms", 2000, 300),
    _times("telemetry into OpenSearch", "telemetry", "bulk", "raw _bulk", 0.6, 0.9),
    _most("telemetry: CPU added to intake", "telemetry", "cpu_added", "%", 8, 4),
    _most("start: first order shipped", "start", "first_shipped_s", "s", 90, 40),
    _most("at rest: CPU of all services", "idle", "cpu", "% of a core", 10, 3),
    _most("surge: p99 of the 202s in the worst phase", "surge", "p99_ms", "ms", 300, 60),
    _most("surge: answers other than 202", "surge", "not_202", "", 0, 0),
    _most("surge: journal, channel and Orders unequal, or findings", "surge", "not_equal_or_found", "orders", 0, 0),
    _ratio("202s while what looks on is away, worst p99", "lookers", "worst_p99_ms", "without", 1.5, 1.1),
    _ratio("202 to approved meanwhile, worst p99", "lookers", "worst_approved_p99_ms", "without", 1.5, 1.1),
    _most("lookers back: findings, or missing in reports or telemetry", "lookers", "missing_or_found", "", 0, 0),
)
