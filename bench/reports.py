# ruff: noqa: E501 (SQL)
"""`lostwax bench reports`: each standard report over a year of a million orders (quick: 100,000), generated straight
into the warehouse, the same ones in each run. The slowest one is the figure."""

import asyncio
import statistics
import tempfile
import time
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import duckdb

from lostwax.reporting.reports import REPORTS, Span, parameters, statement
from lostwax.reporting.warehouse import Limits
from lostwax.reporting.warehouse_duckdb import DuckDbWarehouse

YEAR = Span(date(2025, 1, 1), date(2025, 12, 31))
NOW = datetime(2026, 1, 1, tzinfo=UTC)
ROUNDS = 3

_STEPS = """('SUBMITTED', NULL, 0), ('PRICE_CALCULATED', 'SUBMITTED', 20), ('MANUFACTURING_APPROVED', 'PRICE_CALCULATED', 60000),
 ('MANUFACTURING_STARTED', 'MANUFACTURING_APPROVED', 400000), ('MANUFACTURING_COMPLETED', 'MANUFACTURING_STARTED', 900000),
 ('PACKAGING', 'MANUFACTURING_COMPLETED', 950000), ('SHIPPED', 'PACKAGING', 1000000)"""

GENERATOR = (
    """CREATE TEMP TABLE made AS SELECT i, 'order-' || lpad(i::text, 9, '0') AS order_id,
      TIMESTAMP '2025-01-01' + to_seconds(i * 31536000 // $orders) AS submitted_at, hash(i) % 1000 AS luck,
      CASE WHEN hash(i + 1) % 10 < 7 THEN 'partner_api' WHEN hash(i + 1) % 10 < 9 THEN 'crm' ELSE 'shop' END AS channel,
      ['gold-14k', 'gold-18k', 'silver-925', 'platinum-950', 'brass'][1 + (hash(i + 2) % 5)::int] AS alloy,
      'partner-' || (hash(i + 3) % 40) AS partner, 1 + (hash(i + 4) % 4)::bigint AS quantity,
      5000 + (hash(i + 5) % 90000)::bigint AS amount_minor FROM range($orders) AS r(i)""",
    """CREATE TEMP TABLE facts AS SELECT *, CASE WHEN luck < 30 THEN 'CANCELLED' WHEN luck < 40 THEN 'PRICE_FAILED'
      WHEN luck < 50 THEN 'ON_HOLD' WHEN luck < 900 THEN 'CLOSED' ELSE 'SHIPPED' END AS status,
      CASE WHEN luck < 30 OR luck >= 50 THEN submitted_at + to_seconds(60000 + luck * 97) END AS approved_at,
      CASE WHEN luck >= 50 THEN submitted_at + to_seconds(1000000 + luck * 1300) END AS shipped_at FROM made""",
    """INSERT INTO orders BY NAME SELECT order_id, upper(right(order_id, 8)) AS code, channel, alloy, partner, quantity,
      amount_minor, 'USD' AS currency, 'R' || i AS reference, status, submitted_at AS status_since, 7 AS version,
      submitted_at, strftime(submitted_at, '%Y-%m-%d') AS submitted_day, strftime(submitted_at, '%Y-%m') AS submitted_month,
      strftime(submitted_at, '%G-W%V') AS submitted_week, approved_at, strftime(approved_at, '%Y-%m-%d') AS approved_day,
      strftime(approved_at, '%Y-%m') AS approved_month, strftime(approved_at, '%G-W%V') AS approved_week, shipped_at,
      strftime(shipped_at, '%Y-%m-%d') AS shipped_day, strftime(shipped_at, '%Y-%m') AS shipped_month,
      strftime(shipped_at, '%G-W%V') AS shipped_week, epoch(shipped_at) - epoch(approved_at) AS approved_to_shipped_s,
      CASE WHEN shipped_at IS NULL THEN NULL WHEN luck < 880 THEN 1 ELSE 0 END AS on_time, 0 AS deleted, 7 AS position,
      submitted_at AS source_at, submitted_at AS captured_at FROM facts""",
    f"""INSERT INTO history BY NAME SELECT order_id, row_number() OVER (PARTITION BY order_id ORDER BY after_s) AS version,
      channel, alloy, partner, quantity, step.status, from_status, submitted_at + to_seconds(after_s + luck) AS happened_at,
      strftime(submitted_at + to_seconds(after_s + luck), '%Y-%m-%d') AS day,
      strftime(submitted_at + to_seconds(after_s + luck), '%Y-%m') AS month,
      strftime(submitted_at + to_seconds(after_s + luck), '%G-W%V') AS week,
      epoch(submitted_at) + after_s + luck * (after_s > 0)::int AS happened_s, happened_s - lag(happened_s) OVER
      (PARTITION BY order_id ORDER BY after_s) AS former_s, 0 AS deleted, 1 AS position,
      submitted_at AS source_at FROM facts, (VALUES {_STEPS}) AS step(status, from_status, after_s)""",
    """INSERT INTO prices BY NAME SELECT order_id, 2 AS version, channel, alloy, partner, submitted_day AS day,
      submitted_month AS month, submitted_week AS week, 2 + hash(order_id) % 60 AS seconds, 0 AS deleted,
      CASE WHEN status = 'PRICE_FAILED' THEN 'failed' ELSE 'priced' END AS outcome,
      CASE WHEN status = 'PRICE_FAILED' THEN 'not-watertight' END AS failure_code FROM orders""",
    """INSERT INTO claims BY NAME SELECT 'claim-' || order_id AS claim_id, order_id, 'operator-' || hash(order_id) % 30 AS
      operator_id, CASE WHEN hash(code) % 100 < 6 THEN 'reworked' ELSE 'done' END AS state, shipped_at AS ended_at,
      shipped_day AS day, shipped_month AS month, shipped_week AS week, 3600 + hash(code) % 9000 AS seconds, 0 AS deleted
      FROM orders WHERE shipped_at IS NOT NULL""",
    """INSERT INTO requests BY NAME SELECT order_id, partner, submitted_at AS accepted_at, submitted_day AS accepted_day,
      submitted_month AS accepted_month, 0 AS deleted FROM orders WHERE channel = 'partner_api'""",
    """INSERT INTO partners BY NAME SELECT 'partner-' || i AS partner, 'Partner ' || (i + 1) AS name FROM range(40) AS r(i)""",
    """INSERT INTO operators BY NAME SELECT 'operator-' || i AS operator_id, 'Operator ' || (i + 1) AS name
      FROM range(30) AS r(i)""",
)  # fmt: skip


async def generate(path: Path, orders: int) -> None:
    """A year's business into a new warehouse, the same in every run."""
    empty = DuckDbWarehouse(path)
    await empty.freshness()
    await empty.close()
    with duckdb.connect(str(path), config={"memory_limit": "2GB"}) as connection:
        for sql in GENERATOR:
            connection.execute(sql, {"orders": orders} if "$orders" in sql else None)


def run(quick: bool) -> dict[str, Any]:
    """Prints a table; returns the metrics."""
    return asyncio.run(_run(100_000 if quick else 1_000_000))


async def _run(orders: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "reports.duckdb"
        await generate(path, orders)
        warehouse = DuckDbWarehouse(path, memory="1GB")
        metrics: dict[str, Any] = {}
        print(f"{orders:,} orders\n{'report':>16}{'rows':>8}{'ms':>9}")
        filters = {"channel": "", "alloy": "", "partner": ""}
        for report in REPORTS.values():
            sql = statement(report, next(iter(report.groups), ""), 1000, 0)
            took = []
            for _ in range(ROUNDS):
                began = time.perf_counter()
                answer = await warehouse.query(sql, parameters(YEAR, filters, NOW), Limits(1000, 120))
                took.append((time.perf_counter() - began) * 1000)
            ms = statistics.median(took)
            print(f"{report.name:>16}{len(answer.rows):8}{ms:9.1f}")
            metrics[f"{report.name}_ms"] = {"value": ms, "unit": "ms", "ceiling": None, "ratio": None}
        await warehouse.close()
    slowest = max(metric["value"] for metric in metrics.values())
    metrics["slowest_ms"] = {"value": slowest, "unit": "ms", "ceiling": None, "ratio": None}
    return metrics
