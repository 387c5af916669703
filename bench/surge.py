"""`lostwax bench surge`: 100 orders a second for ten minutes, Kafka stopped for two of them, Orders killed twice: once
while Kafka is away, once under load. Each 202 against its budget in each phase; then the time until everything is
through, the counts of the client's journal, the channel and Orders, and the audit.

`--quick` is the same in one minute.
"""

import asyncio
import tempfile
import time
from collections import Counter
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import asyncpg
import msgspec

from _journal import Answer, acknowledged, drained, metric, read
from _load import load
from _people import a_partner, operators, order_body, order_head, upload_model
from _stack import fresh_stack
from lostwax.audit.run import Report, audit
from lostwax.audit.sources import Databases
from lostwax.chaos.run import NOTHING_UNPRICED
from lostwax.cli.audit import databases_of
from lostwax.kit.clock import utc_now
from lostwax.local.stack import Stack

RATE, MODELS, CONNECTIONS = 100, 8, 64
STARTS = {"before": 0.0, "Kafka away": 0.3, "Kafka back": 0.5, "Orders killed": 0.7, "after": 0.75}
"""When each phase begins, as a share of the whole; the first kill comes in the middle of `Kafka away`."""

SLOW_S, SHOWN = 0.3, 12
PHASE_METRICS = {"before": "before", "Kafka away": "kafka_away", "Kafka back": "kafka_back",
                 "Orders killed": "orders_killed", "after": "after"}  # fmt: skip


class _Logged(msgspec.Struct, frozen=True):
    at: datetime
    level: str
    message: str
    error: str = ""


def run(quick: bool) -> dict[str, Any]:
    """Prints a table; returns the metrics. Ends with exit code 1 when something was lost."""
    with fresh_stack() as stack, tempfile.TemporaryDirectory() as folder:
        return asyncio.run(_run(stack, Path(folder), 60 if quick else 600))


async def _run(stack: Stack, folder: Path, seconds: int) -> dict[str, Any]:
    client, key = await a_partner(stack)
    await operators(stack, 1)  # signs keys and warms the doors up
    models = [upload_model(stack, key, width=2 + n / 8) for n in range(MODELS)]
    requests = [[order_head(key), order_body(model)] for model in models]
    databases = databases_of(stack)

    async def send(seconds: float, tag: str) -> None:
        arguments = {
            "host": "127.0.0.1", "port": stack.process("partner_api").port, "requests": requests, "seconds": seconds,
            "in_flight": CONNECTIONS, "rate": RATE, "tag": tag, "record": str(folder / "journal.jsonl"),
        }  # fmt: skip
        await asyncio.to_thread(lambda: load(**arguments))

    await send(3, "warm")
    await drained(databases, len(read(folder)))
    began = time.time()
    placing = asyncio.create_task(send(seconds, "surge"))
    times = await _hurt(stack, began, seconds)
    await placing
    answers = read(folder)
    surge = [answer for answer in answers if answer.submission.startswith("surge-")]
    times["before"], ended = min(a.at for a in surge), max(a.at for a in surge) + 1 / RATE
    accepted = [answer for answer in answers if answer.status == 202]
    through = await drained(databases, len(accepted))
    drained_s = max(0.0, through - ended)
    report = await audit(
        databases,
        stack.env("orders")["LOSTWAX_KAFKA_BOOTSTRAP"],
        [acknowledged(answer, client) for answer in accepted],
        now=utc_now,
        limits=NOTHING_UNPRICED,
        settle_s=60,
    )
    metrics = _tell(surge, times, ended)
    _tell_log(stack.log_path("partner_api"), times)
    counts = await _counts(databases, report)
    print(
        f"drained {drained_s:.1f} s after the last order; client's journal {len(accepted)},"
        f" channel {counts['channel']}, Orders {counts['orders']}; audit: {len(report.findings)} findings"
    )
    for finding in report.findings[:20]:
        print(f"  {finding.kind} {finding.order_id or ''}: {finding.detail}")
    lost = len(report.findings) + sum(abs(n - len(accepted)) for n in counts.values())
    metrics["drained_s"] = metric(drained_s, "s")
    metrics["journal"] = metric(len(accepted), "orders")
    for name, number in counts.items():
        metrics[name] = metric(number, "orders")
    metrics["not_equal_or_found"] = metric(lost, "orders")
    return metrics


async def _hurt(stack: Stack, began: float, seconds: float) -> dict[str, float]:
    """Do to the stack what each phase is called by; returns when each really began, in seconds since 1970."""

    async def until(share: float) -> float:
        await asyncio.sleep(max(0.0, began + share * seconds - time.time()))
        return time.time()

    times = {"before": began}
    times["Kafka away"] = await until(STARTS["Kafka away"])
    await asyncio.to_thread(stack.stop, "kafka")
    await until((STARTS["Kafka away"] + STARTS["Kafka back"]) / 2)
    await asyncio.to_thread(stack.kill, "orders")
    times["Kafka back"] = await until(STARTS["Kafka back"])
    await asyncio.to_thread(stack.start_one, "kafka")
    times["Orders killed"] = await until(STARTS["Orders killed"])
    await asyncio.to_thread(stack.kill, "orders")
    await until(STARTS["after"])
    await asyncio.to_thread(stack.wait_ready, "orders")
    times["after"] = time.time()
    return times


def _tell(answers: list[Answer], times: dict[str, float], ended: float) -> dict[str, Any]:
    """A line for each phase, every answer that was not 202, and the slowest."""
    metrics: dict[str, Any] = {}
    ends = [*list(times.values())[1:], ended]
    print(f"{'phase':14}{'s':>6}{'accepted/s':>12}{'p50 ms':>9}{'p99 ms':>9}{'max ms':>10}  not 202")
    for (name, start), end in zip(times.items(), ends, strict=True):
        there = [a for a in answers if start <= a.at < end]
        waits = sorted(1000 * a.seconds for a in there if a.status == 202)
        others = Counter(a.status for a in there if a.status != 202)
        p50, p99, worst = (waits[min(len(waits) - 1, int(s * len(waits)))] if waits else 0.0 for s in (0.5, 0.99, 1))
        per_s = len(waits) / (end - start)
        said = ", ".join(f"{n} x {status or 'no answer'}" for status, n in sorted(others.items())) or "none"
        print(f"{name:14}{end - start:6.0f}{per_s:12.1f}{p50:9.1f}{p99:9.1f}{worst:10.1f}  {said}")
        short = PHASE_METRICS[name]
        metrics[f"{short}_accepted"] = metric(per_s, "orders/s")
        metrics[f"{short}_p99_ms"] = metric(p99, "ms")
        metrics[f"{short}_max_ms"] = metric(worst, "ms")
    metrics["p99_ms"] = metric(max(m["value"] for name, m in metrics.items() if name.endswith("_p99_ms")), "ms")
    metrics["max_ms"] = metric(max(m["value"] for name, m in metrics.items() if name.endswith("_max_ms")), "ms")
    metrics["not_202"] = metric(sum(a.status != 202 for a in answers), "answers")
    _tell_stalls(answers, times["before"])
    return metrics


def _tell_stalls(answers: list[Answer], began: float) -> None:
    """The seconds in which requests were due that took long or got no 202, the worst first."""
    seconds: dict[int, list[Answer]] = {}
    for answer in answers:
        if answer.seconds > SLOW_S or answer.status != 202:
            seconds.setdefault(int(answer.at - began), []).append(answer)
    worst = sorted(seconds.items(), key=lambda item: -max(a.seconds for a in item[1]))
    for second, slow in worst[:SHOWN]:
        first = max(slow, key=lambda a: a.seconds)
        print(
            f"  due in second {second}: {len(slow)} above {SLOW_S} s or not 202, the longest {first.seconds:.2f} s"
            f" ({first.submission}: {first.status})"
        )
    if len(worst) > SHOWN:
        print(f"  and in {len(worst) - SHOWN} seconds more")


def _tell_log(path: Path, times: dict[str, float]) -> None:
    """What the partner API complained of meanwhile, in which phase and how often, to find a slow answer's cause by."""
    said: Counter[tuple[str, str]] = Counter()
    for line in path.read_bytes().splitlines():
        with suppress(msgspec.DecodeError):  # a traceback, or a line that a kill cut short
            entry = msgspec.json.decode(line, type=_Logged)
            at = entry.at.timestamp()
            if entry.level not in ("DEBUG", "INFO") and at >= times["before"]:
                phase = [name for name, start in times.items() if start <= at][-1]
                said[phase, f"{entry.level} {entry.message} {entry.error[:90]}"] += 1
    for (phase, message), number in said.items():
        print(f"  partner_api, {phase}: {number} x {message}")


async def _counts(databases: Databases, report: Report) -> dict[str, int]:
    connection = await asyncpg.connect(databases.partner_api)
    try:
        return {"channel": await connection.fetchval("SELECT count(*) FROM requests"), "orders": report.orders}
    finally:
        await connection.close()
