"""The standard reports: what each means, what it may be asked, and its SQL.

The SQL is the subset that DuckDB and YQL share: no date functions (days are columns of their own), `$name` parameters,
`PERCENTILE` (YQL's; a macro in DuckDB), and shares are counted outside. `{group}` stands for a column of the report's
own list, never for what somebody sent.
"""

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any

import msgspec

from lostwax.contracts.limits import LIMITS
from lostwax.contracts.staff import Role

OVERSEERS = (Role.ADMINISTRATOR, Role.SUPERVISOR)
SALES = (*OVERSEERS, Role.SELLER)

LONGEST_DAYS = 5 * 366
USUAL_DAYS = 30


class Column(msgspec.Struct, frozen=True):
    """`kind`: text, integer or number. `unit`: seconds, percent, `minor` (hundredths of `currency`) ... `share_of`: the
    two columns whose quotient this is, in percent; None in a row where the second is nought."""

    name: str
    title: str
    kind: str
    unit: str = ""
    share_of: tuple[str, str] | None = None


class Report(msgspec.Struct, frozen=True):
    """`groups`: what `group` may be -> the column that it means; the first is the usual one; empty: not grouped.
    `period`: what lies between `from` and `to`; empty: the report is of now. `filters`: which filters it heeds.
    `bars`: columns that a chart shows."""

    name: str
    title: str
    meaning: str
    roles: tuple[Role, ...]
    columns: tuple[Column, ...]
    sql: str
    groups: Mapping[str, str] = {}
    period: str = ""
    filters: tuple[str, ...] = ()
    bars: tuple[str, ...] = ()


def _count(name: str, title: str) -> Column:
    return Column(name, title, "integer")


def _seconds(name: str, title: str) -> Column:
    return Column(name, title, "number", "seconds")


def _share(name: str, title: str, part: str, whole: str) -> Column:
    return Column(name, title, "number", "percent", (part, whole))


def _by(prefix: str, *others: str) -> dict[str, str]:
    times = {unit: f"{prefix}{unit}" for unit in ("day", "week", "month")}
    return times | {other: other for other in others}


_GROUP = Column("group", "", "text")
_PERCENTILES = (_seconds("p50", "half within"), _seconds("p90", "90 % within"), _seconds("p95", "95 % within"))
_CHANNELS = ("channel", "alloy", "partner")

_FILTERS = """($channel = '' OR channel = $channel) AND ($alloy = '' OR alloy = $alloy)
  AND ($partner = '' OR partner = $partner)"""


def _period(day: str) -> str:
    return f"deleted = 0 AND {day} >= $from AND {day} <= $to AND {_FILTERS}"


_PERCENTILE_SQL = """PERCENTILE({x}, 0.5) AS p50, PERCENTILE({x}, 0.9) AS p90, PERCENTILE({x}, 0.95) AS p95"""

ORDERS = Report(
    "orders",
    "Orders",
    "Orders by the day on which they were submitted, and what has become of them by now.",
    SALES,
    (
        _GROUP,
        _count("orders", "orders"),
        _count("pieces", "pieces"),
        _count("approved", "approved"),
        _count("shipped", "shipped"),
        _count("cancelled", "cancelled"),
        _share("approved_share", "approved, %", "approved", "orders"),
    ),
    f"""SELECT {{group}} AS grp, COUNT(*) AS orders, SUM(quantity) AS pieces,
  SUM(CASE WHEN approved_day IS NOT NULL AND status <> 'CANCELLED' THEN 1 ELSE 0 END) AS approved,
  SUM(CASE WHEN shipped_day IS NOT NULL THEN 1 ELSE 0 END) AS shipped,
  SUM(CASE WHEN status = 'CANCELLED' THEN 1 ELSE 0 END) AS cancelled
FROM orders WHERE {_period("submitted_day")}
GROUP BY {{group}} ORDER BY grp""",
    _by("submitted_", *_CHANNELS),
    "submitted",
    _CHANNELS,
    ("orders", "shipped", "cancelled"),
)

REVENUE = Report(
    "revenue",
    "Revenue",
    "Amounts of orders by the day on which they were approved, without cancelled ones. A row for each currency: amounts"
    " of different currencies are never added.",
    SALES,
    (
        _GROUP,
        Column("currency", "currency", "text"),
        _count("orders", "orders"),
        _count("pieces", "pieces"),
        Column("amount_minor", "amount", "integer", "minor"),
    ),
    f"""SELECT {{group}} AS grp, currency, COUNT(*) AS orders, SUM(quantity) AS pieces,
  SUM(amount_minor) AS amount_minor
FROM orders WHERE {_period("approved_day")} AND status <> 'CANCELLED' AND amount_minor IS NOT NULL
GROUP BY {{group}}, currency ORDER BY grp, currency""",
    _by("approved_", *_CHANNELS),
    "approved",
    _CHANNELS,
    ("amount_minor",),
)

LEAD_TIMES = Report(
    "lead-times",
    "Time in each status",
    "How long orders stayed in a status, by the day on which they left it.",
    OVERSEERS,
    (_GROUP, _count("times", "times left"), *_PERCENTILES),
    f"""SELECT {{group}} AS grp, COUNT(*) AS times, {_PERCENTILE_SQL.format(x="former_s")}
FROM history WHERE {_period("day")} AND former_s IS NOT NULL
GROUP BY {{group}} ORDER BY grp""",
    {"status": "from_status", **_by("", *_CHANNELS)},
    "left the status",
    _CHANNELS,
    ("p50", "p95"),
)

ON_TIME = Report(
    "on-time",
    "Kept promises",
    "Orders by the day of shipping: how many within three weeks of approval, and how long it took from approval.",
    SALES,
    (
        _GROUP,
        _count("shipped", "shipped"),
        _count("on_time", "on time"),
        _share("on_time_share", "on time, %", "on_time", "shipped"),
        *_PERCENTILES,
    ),
    f"""SELECT {{group}} AS grp, COUNT(*) AS shipped, SUM(on_time) AS on_time,
  {_PERCENTILE_SQL.format(x="approved_to_shipped_s")}
FROM orders WHERE {_period("shipped_day")}
GROUP BY {{group}} ORDER BY grp""",
    _by("shipped_", *_CHANNELS),
    "shipped",
    _CHANNELS,
    ("on_time_share",),
)

PRICES = Report(
    "prices",
    "Prices",
    "Answers of pricing by outcome, with the reason of failures. Times are from the submission to the first answer.",
    OVERSEERS,
    (
        _GROUP,
        Column("outcome", "outcome", "text"),
        _count("prices", "calculations"),
        *_PERCENTILES,
        _seconds("longest", "longest"),
    ),
    f"""SELECT {{group}} AS grp, outcome, COUNT(*) AS prices,
  {_PERCENTILE_SQL.format(x="seconds")}, MAX(seconds) AS longest
FROM (SELECT day, week, month, channel, alloy, partner, seconds,
    CASE WHEN outcome = 'priced' THEN outcome ELSE COALESCE(failure_code, outcome) END AS outcome
  FROM prices WHERE {_period("day")}) AS answered
GROUP BY {{group}}, outcome ORDER BY grp, outcome""",
    _by("", *_CHANNELS),
    "priced",
    _CHANNELS,
    ("prices",),
)

OPERATORS = Report(
    "operators",
    "Operators' work",
    "Work that ended in the period: pieces made, hours in hand, and the share that failed its check.",
    OVERSEERS,
    (
        _GROUP,
        _count("done", "orders made"),
        _count("pieces", "pieces made"),
        _count("reworked", "failed check"),
        _share("rework_share", "failed check, %", "reworked", "judged"),
        _count("given_back", "given back"),
        _seconds("seconds", "in hand"),
        _count("judged", "judged"),
    ),
    f"""SELECT {{group}} AS grp, SUM(CASE WHEN state = 'done' THEN 1 ELSE 0 END) AS done,
  SUM(CASE WHEN state = 'done' THEN quantity ELSE 0 END) AS pieces,
  SUM(CASE WHEN state = 'reworked' THEN 1 ELSE 0 END) AS reworked,
  SUM(CASE WHEN state = 'released' THEN 1 ELSE 0 END) AS given_back,
  SUM(COALESCE(seconds, 0)) AS seconds,
  SUM(CASE WHEN state = 'done' OR state = 'reworked' THEN 1 ELSE 0 END) AS judged
FROM (SELECT c.operator_id AS operator_id, c.day AS day, c.week AS week, c.month AS month, c.state AS state,
    c.seconds AS seconds, o.channel AS channel, o.alloy AS alloy, o.partner AS partner, o.quantity AS quantity,
    c.deleted AS deleted
  FROM claims AS c JOIN orders AS o ON c.order_id = o.order_id
  WHERE c.ended_at IS NOT NULL AND c.state <> 'voided' AND c.day >= $from AND c.day <= $to) AS work
WHERE deleted = 0 AND {_FILTERS}
GROUP BY {{group}} ORDER BY grp""",
    {"operator": "operator_id", **_by("", "alloy", "channel")},
    "ended",
    _CHANNELS,
    ("pieces", "reworked"),
)

AGREEING = Report(
    "agreeing",
    "Agreeing with customers",
    "Orders that were talked about, by the day of submission: rounds of layouts, and how long each party was waited"
    " for, on average for an order: the customer and the seller while they agreed, the workshop from approval to"
    " shipping. Waits that still last are counted and add no time.",
    SALES,
    (
        _GROUP,
        _count("orders", "orders"),
        Column("rounds", "rounds of layouts", "number"),
        _seconds("customer_s", "waited for the customer"),
        _seconds("seller_s", "waited for the seller"),
        _seconds("workshop_s", "waited for the workshop"),
        _count("customer_open", "wait for the customer now"),
        _count("seller_open", "wait for the seller now"),
    ),
    f"""SELECT {{group}} AS grp, COUNT(*) AS orders, AVG(COALESCE(l.rounds, 0)) AS rounds,
  AVG(w.customer_s) AS customer_s, AVG(w.seller_s) AS seller_s, AVG(o.approved_to_shipped_s) AS workshop_s,
  SUM(w.customer_open) AS customer_open, SUM(w.seller_open) AS seller_open
FROM (SELECT order_id,
    SUM(CASE WHEN party = 'customer' THEN COALESCE(seconds, 0.0) ELSE 0.0 END) AS customer_s,
    SUM(CASE WHEN party = 'seller' THEN COALESCE(seconds, 0.0) ELSE 0.0 END) AS seller_s,
    MAX(CASE WHEN party = 'customer' AND ended_at IS NULL THEN 1 ELSE 0 END) AS customer_open,
    MAX(CASE WHEN party = 'seller' AND ended_at IS NULL THEN 1 ELSE 0 END) AS seller_open
  FROM layout_waits WHERE deleted = 0 GROUP BY order_id) AS w
JOIN (SELECT order_id, submitted_day, submitted_week, submitted_month, channel, alloy, partner, approved_to_shipped_s
  FROM orders WHERE {_period("submitted_day")}) AS o ON w.order_id = o.order_id
LEFT JOIN (SELECT order_id, MAX(revision) AS rounds FROM layouts WHERE deleted = 0 GROUP BY order_id) AS l
  ON w.order_id = l.order_id
GROUP BY {{group}} ORDER BY grp""",
    {name: f"o.{column}" for name, column in _by("submitted_", *_CHANNELS).items()},
    "submitted",
    _CHANNELS,
    ("customer_s", "seller_s", "workshop_s"),
)

_STUCK = "\n      ".join(
    f"WHEN status = '{status}' AND status_since < $before_{status} THEN 'stuck'" for status in LIMITS
)

ATTENTION = Report(
    "attention",
    "What needs somebody now",
    "Orders on hold, in rework, without a price, or longer in their status than they should be; the longest first.",
    SALES,
    (
        Column("code", "order", "text"),
        Column("why", "why", "text"),
        Column("status", "status", "text"),
        Column("waits_s", "for", "number", "seconds"),
        Column("channel", "channel", "text"),
        Column("partner", "partner", "text"),
        Column("reference", "reference", "text"),
        Column("reason", "reason", "text"),
        Column("order_id", "id", "text"),
    ),
    f"""SELECT code, why, status, status_since AS waits_s, channel, partner, reference,
  COALESCE(held_reason, failure_code) AS reason, order_id
FROM (SELECT code, status, status_since, channel, partner, reference, held_reason, failure_code, order_id,
    CASE WHEN status = 'ON_HOLD' THEN 'held' WHEN status = 'REWORK' THEN 'rework'
      WHEN status = 'PRICE_FAILED' THEN 'no price'
      {_STUCK} ELSE '' END AS why
  FROM orders WHERE deleted = 0 AND status <> 'CLOSED' AND status <> 'CANCELLED' AND status <> 'SHIPPED'
    AND {_FILTERS}) AS open_orders
WHERE why <> '' ORDER BY waits_s, order_id""",
    filters=_CHANNELS,
)

PARTNERS = Report(
    "partners",
    "Partners' reconciliation",
    "Requests that a partner was acknowledged in the period, and where each is now. `missing` must be nought: it counts"
    " those that Orders does not have.",
    SALES,
    (
        _GROUP,
        _count("acknowledged", "acknowledged"),
        _count("missing", "missing"),
        _count("unpriced", "without price"),
        _count("waiting", "to be approved"),
        _count("workshop", "in the workshop"),
        _count("shipped", "shipped"),
        _count("held", "held"),
        _count("cancelled", "cancelled"),
    ),
    """SELECT r.{group} AS grp, COUNT(*) AS acknowledged,
  SUM(CASE WHEN o.status IS NULL THEN 1 ELSE 0 END) AS missing,
  SUM(CASE WHEN o.status = 'SUBMITTED' OR o.status = 'PRICE_FAILED' THEN 1 ELSE 0 END) AS unpriced,
  SUM(CASE WHEN o.status = 'PRICE_CALCULATED' THEN 1 ELSE 0 END) AS waiting,
  SUM(CASE WHEN o.status = 'MANUFACTURING_APPROVED' OR o.status = 'MANUFACTURING_STARTED' OR o.status = 'REWORK'
    OR o.status = 'MANUFACTURING_COMPLETED' OR o.status = 'PACKAGING' THEN 1 ELSE 0 END) AS workshop,
  SUM(CASE WHEN o.status = 'SHIPPED' OR o.status = 'CLOSED' THEN 1 ELSE 0 END) AS shipped,
  SUM(CASE WHEN o.status = 'ON_HOLD' THEN 1 ELSE 0 END) AS held,
  SUM(CASE WHEN o.status = 'CANCELLED' THEN 1 ELSE 0 END) AS cancelled
FROM requests AS r LEFT JOIN orders AS o ON r.order_id = o.order_id
WHERE r.deleted = 0 AND r.accepted_day >= $from AND r.accepted_day <= $to
  AND ($partner = '' OR r.partner = $partner)
GROUP BY r.{group} ORDER BY grp""",
    {"partner": "partner", "day": "accepted_day", "month": "accepted_month"},
    "acknowledged",
    ("partner",),
    ("acknowledged", "missing"),
)

PARTNER_ORDERS = Report(
    "partner-orders",
    "Partners' orders, one by one",
    "Every request that was acknowledged in the period, with its order's status; MISSING: Orders does not have it.",
    SALES,
    (
        Column("accepted_day", "acknowledged", "text"),
        Column("partner", "partner", "text"),
        Column("reference", "reference", "text"),
        Column("code", "order", "text"),
        Column("status", "status", "text"),
        Column("shipped_day", "shipped", "text"),
        Column("amount_minor", "amount", "integer", "minor"),
        Column("currency", "currency", "text"),
        Column("order_id", "id", "text"),
    ),
    """SELECT r.accepted_day AS accepted_day, r.partner AS partner, o.reference AS reference, o.code AS code,
  COALESCE(o.status, 'MISSING') AS status, o.shipped_day AS shipped_day, o.amount_minor AS amount_minor,
  o.currency AS currency, r.order_id AS order_id
FROM requests AS r LEFT JOIN orders AS o ON r.order_id = o.order_id
WHERE r.deleted = 0 AND r.accepted_day >= $from AND r.accepted_day <= $to
  AND ($partner = '' OR r.partner = $partner)
ORDER BY accepted_day, order_id""",
    period="acknowledged",
    filters=("partner",),
)

REPORTS: Mapping[str, Report] = {
    report.name: report
    for report in (
        ORDERS, REVENUE, ON_TIME, LEAD_TIMES, AGREEING, PRICES, OPERATORS, ATTENTION, PARTNERS, PARTNER_ORDERS
    )
}  # fmt: skip


class Span(msgspec.Struct, frozen=True):
    """Whole days, both included."""

    first: date
    last: date

    @property
    def days(self) -> int:
        return (self.last - self.first).days + 1

    def before(self) -> "Span":
        """As many days, just before. Raises OverflowError where the calendar begins."""
        return Span(self.first - timedelta(days=self.days), self.first - timedelta(days=1))


def statement(report: Report, group: str, limit: int, offset: int) -> str:
    """The SQL of a page of a report. `group`: one of its `groups`, or nothing where it has none."""
    text = report.sql.replace("{group}", report.groups[group]) if report.groups else report.sql
    return f"{text}\nLIMIT {limit} OFFSET {offset}"


def parameters(span: Span | None, filters: Mapping[str, str], now: datetime) -> dict[str, str | datetime]:
    """What the SQL of every report may name; `filters` must hold all three, empty ones let everything through."""
    days = {} if span is None else {"from": span.first.isoformat(), "to": span.last.isoformat()}
    return {**filters, **days, **{f"before_{status}": now - limit for status, limit in LIMITS.items()}}


def filled(
    report: Report,
    group: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    names: Mapping[str, str],
    now: datetime,
) -> list[list[Any]]:
    """The warehouse's rows in the order of the report's columns, with shares counted, and accounts told by `names`."""

    def value(row: Mapping[str, Any], column: Column) -> Any:
        if column.share_of is not None:
            part, whole = (row[name] for name in column.share_of)
            return round(100 * part / whole, 1) if whole else None
        found = row["grp" if column.name == "group" else column.name]
        if isinstance(found, datetime):
            return round(max(0.0, (now - found).total_seconds()))
        if column.name == "partner" or (column.name == "group" and group in ("partner", "operator")):
            return names.get(found, found)
        if found is None or column.kind == "text":
            return found
        return int(found) if column.kind == "integer" else round(float(found), 1)

    return [
        [value(row, column) for column in report.columns] for row in (dict(zip(columns, r, strict=True)) for r in rows)
    ]
