"""`lostwax bench lookers`: OpenSearch, Connect and the warehouse are stopped for a minute each under 50 orders/s, then
a replication slot is invalidated. The order flow of each phase stands beside the phase without; afterwards reports have
every order as Orders has it, telemetry every step of every order, and the audit finds nothing.

`--quick` is Connect and the warehouse alone, ten seconds each: OpenSearch takes minutes to come back under load, and a
slot to be copied anew.
"""

import asyncio
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import asyncpg
import httpx

from _journal import Answer, acknowledged, drained, metric, read
from _load import load
from _people import a_partner, operators, order_body, order_head, upload_model
from _stack import fresh_stack
from lostwax.audit.run import audit
from lostwax.audit.sources import Databases
from lostwax.chaos.run import NOTHING_UNPRICED
from lostwax.cli.audit import databases_of
from lostwax.contracts.metrics import ORDER_STEPS
from lostwax.kit.clock import utc_now
from lostwax.local.places import POSTGRES_SUPERUSER
from lostwax.local.stack import Stack
from lostwax.telemetry import indices

RATE, MODELS, CONNECTIONS = 50, 8, 64
SOON_BACK = {"Connect away": "connect", "the warehouse away": "reporting"}
AWAY = {"OpenSearch away": "opensearch", **SOON_BACK}
SHARD, SLOT = "pg-shard-1", "capture_orders_1"
TOLD_WITHIN_S = 180
STRETCH_S, BACK_WITHIN_S = 30, 600
NAMES = {"without": "without", "OpenSearch away": "opensearch", "Connect away": "connect",
         "the warehouse away": "warehouse", "a slot invalidated": "slot"}  # fmt: skip


def run(quick: bool) -> dict[str, Any]:
    """Prints a table; returns the metrics."""
    with fresh_stack() as stack, tempfile.TemporaryDirectory() as folder:
        return asyncio.run(_run(stack, Path(folder), whole=not quick))


async def _run(stack: Stack, folder: Path, *, whole: bool) -> dict[str, Any]:
    seconds = 60 if whole else 10
    client, key = await a_partner(stack)
    await operators(stack, 1)
    models = [upload_model(stack, key, width=2 + n / 8) for n in range(MODELS)]
    databases = databases_of(stack)
    arguments = {
        "host": "127.0.0.1", "port": stack.process("partner_api").port, "in_flight": CONNECTIONS, "rate": RATE,
        "requests": [[order_head(key), order_body(model)] for model in models],
        "record": str(folder / "journal.jsonl"),
    }  # fmt: skip
    await asyncio.to_thread(lambda: load(seconds=5, tag="warm", **arguments))
    await drained(databases, len(read(folder)))
    # What comes back takes its time, so orders come in stretches, until all is done.
    over = asyncio.Event()

    async def place() -> None:
        number = 0
        while not over.is_set():
            number += 1
            tag = f"look-{number}"
            await asyncio.to_thread(lambda tag=tag: load(seconds=STRETCH_S if whole else 10, tag=tag, **arguments))

    placing = asyncio.create_task(place())
    times: dict[str, tuple[float, float]] = {}
    try:
        began = time.time()
        await asyncio.sleep(seconds)
        times["without"] = (began, time.time())
        for name, process in (AWAY if whole else SOON_BACK).items():
            began = time.time()
            await asyncio.to_thread(stack.stop, process)
            await asyncio.sleep(max(0.0, began + seconds - time.time()))
            times[name] = (began, time.time())
            # Coming back costs the machine what it costs: that, too, is a time of its own.
            await asyncio.to_thread(stack.start_one, process, limit_s=BACK_WITHIN_S)
            times[f"{process} back"] = (times[name][1], time.time())
        copied_s = 0.0
        if whole:
            began = time.time()
            await asyncio.to_thread(stack.stop, "connect")
            await _invalidate(stack)
            await asyncio.to_thread(stack.start_one, "connect", limit_s=BACK_WITHIN_S)
            await asyncio.sleep(max(0.0, began + seconds - time.time()))
            times["a slot invalidated"] = (began, time.time())
            copied_s = await _streams_again(stack) - began
        await asyncio.sleep(10 if whole else 0)
    finally:
        over.set()
        await placing
    ended = time.time()
    answers = read(folder)
    accepted = [answer for answer in answers if answer.status == 202]
    await drained(databases, len(accepted))
    priced = await _priced(databases)
    metrics = _tell([answer for answer in answers if answer.submission.startswith("look-")], priced, times)
    missing = await _untold(stack, databases)
    report = await audit(
        databases,
        stack.env("orders")["LOSTWAX_KAFKA_BOOTSTRAP"],
        [acknowledged(answer, client) for answer in accepted],
        now=utc_now,
        limits=NOTHING_UNPRICED,
        settle_s=60,
        reports_s=TOLD_WITHIN_S,
    )
    print(
        f"{len(accepted)} accepted, Orders {report.orders}, reports {report.reported}; audit:"
        f" {len(report.findings)} findings; steps that telemetry lacks: {missing};"
        f" all told {time.time() - ended:.0f} s after the end"
        + (f"; the slot's tables streamed again {copied_s:.0f} s after" if whole else "")
    )
    for finding in report.findings[:20]:
        print(f"  {finding.kind} {finding.order_id or ''}: {finding.detail}")
    unequal = abs(len(accepted) - report.orders) + abs(len(accepted) - (report.reported or 0))
    metrics["not_202"] = metric(sum(answer.status != 202 for answer in answers), "answers")
    metrics["missing_or_found"] = metric(len(report.findings) + unequal + abs(missing), "orders")
    if whole:
        metrics["slot_streams_again_s"] = metric(round(copied_s, 1), "s")
    return metrics


async def _invalidate(stack: Stack) -> None:
    """The slot of one shard lost, as it is when more is written behind it than the server keeps."""
    server = stack.url(SHARD).replace("//", f"//postgres:{POSTGRES_SUPERUSER.read_text().strip()}@")
    shard = await asyncpg.connect(f"{server}/orders", timeout=10)
    try:
        await shard.execute("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'")
        await shard.execute("SELECT pg_reload_conf()")
        for _ in range(5):
            await shard.execute("SELECT pg_logical_emit_message(false, 'heartbeat', repeat('x', 1000000))")
            await shard.execute("SELECT pg_switch_wal()")
        await shard.execute("CHECKPOINT")
        lost = await shard.fetchval("SELECT wal_status FROM pg_replication_slots WHERE slot_name = $1", SLOT)
        await shard.execute("ALTER SYSTEM RESET max_slot_wal_keep_size")
        await shard.execute("SELECT pg_reload_conf()")
    finally:
        await shard.close()
    if lost != "lost":
        raise SystemExit(f"the slot {SLOT} is {lost}, not lost")


async def _streams_again(stack: Stack) -> float:
    """When Reporting has made up for the slot, in seconds since 1970."""
    server = stack.url(SHARD).replace("//", f"//postgres:{POSTGRES_SUPERUSER.read_text().strip()}@")
    shard = await asyncpg.connect(f"{server}/orders", timeout=10)
    try:
        deadline = time.monotonic() + TOLD_WITHIN_S
        sound = "SELECT active AND wal_status <> 'lost' FROM pg_replication_slots WHERE slot_name = $1"
        while not await shard.fetchval(sound, SLOT):
            if time.monotonic() > deadline:
                print(f"NOT CAPTURED again after {TOLD_WITHIN_S} s")
                break
            await asyncio.sleep(0.5)
        return time.time()
    finally:
        await shard.close()


async def _priced(databases: Databases) -> list[tuple[float, float]]:
    """Of each order, when it was accepted (seconds since 1970), and after how many seconds it was approved, its price
    known."""
    found: list[tuple[float, float]] = []
    for dsn in databases.shards:
        shard = await asyncpg.connect(dsn, timeout=10)
        try:
            rows = await shard.fetch(
                "SELECT extract(epoch FROM o.submitted_at)::float8 AS at,"
                " extract(epoch FROM min(h.at) - o.submitted_at)::float8 AS seconds"
                " FROM orders o JOIN order_history h USING (order_id) WHERE h.status = 'MANUFACTURING_APPROVED'"
                " GROUP BY o.order_id, o.submitted_at"
            )
        finally:
            await shard.close()
        found += [(row["at"], row["seconds"]) for row in rows]
    return found


def _tell(
    answers: Sequence[Answer], priced: Sequence[tuple[float, float]], times: dict[str, tuple[float, float]]
) -> dict[str, Any]:
    """A line for each phase: answers, and orders from 202 to approved."""
    metrics: dict[str, Any] = {}
    print(
        f"{'phase':20}{'s':>6}{'accepted/s':>12}{'202 p50':>9}{'p99 ms':>9}{'approved p50':>14}{'p99 ms':>9}  not 202"
    )
    for name, (start, end) in times.items():
        there = [answer for answer in answers if start <= answer.at < end]
        waits = sorted(1000 * answer.seconds for answer in there if answer.status == 202)
        through = sorted(1000 * seconds for at, seconds in priced if start <= at < end)
        told = [some[int(share * len(some))] if some else 0.0 for some in (waits, through) for share in (0.5, 0.99)]
        others = sum(answer.status != 202 for answer in there)
        print(
            f"{name:20}{end - start:6.0f}{len(waits) / (end - start):12.1f}{told[0]:9.1f}{told[1]:9.1f}{told[2]:14.0f}"
            f"{told[3]:9.0f}  {others}"
        )
        if name in NAMES:
            metrics[f"{NAMES[name]}_p99_ms"] = metric(round(told[1], 1), "ms")
            metrics[f"{NAMES[name]}_approved_p99_ms"] = metric(round(told[3], 1), "ms")
    for kind in ("p99_ms", "approved_p99_ms"):
        worst = max(metrics[f"{NAMES[name]}_{kind}"]["value"] for name in times if name in NAMES and name != "without")
        without = metrics[f"without_{kind}"]["value"]
        metrics[f"worst_{kind}"] = {"value": worst, "unit": "ms", "ceiling": without, "ratio": worst / without}
    return metrics


async def _untold(stack: Stack, databases: Databases) -> int:
    """Steps of orders that are in the databases and not in OpenSearch's metrics, once that is none or time is over."""
    steps = 0
    for dsn in databases.shards:
        shard = await asyncpg.connect(dsn, timeout=10)
        steps += await shard.fetchval("SELECT count(*) FROM order_history")
        await shard.close()
    asked = {
        "size": 0,
        "query": {"term": {"name": ORDER_STEPS.name}},
        "aggs": {"steps": {"sum": {"field": "value"}}},
    }
    deadline = time.monotonic() + TOLD_WITHIN_S
    async with httpx.AsyncClient(base_url=stack.url("opensearch"), timeout=30) as search:
        while True:
            answer = (await search.post(f"/{indices.METRICS.name}/_search", json=asked)).raise_for_status().json()
            missing = steps - round(answer["aggregations"]["steps"]["value"])
            if missing == 0 or time.monotonic() > deadline:
                return missing
            await asyncio.sleep(2)
