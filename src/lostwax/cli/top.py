"""`top`: what every service does just now, read straight from the metrics in Kafka."""

import time
from collections import defaultdict
from typing import TYPE_CHECKING, Annotated

import typer

from lostwax.cli.where import StackName, kafka_address

if TYPE_CHECKING:
    from rich.console import Group

    from lostwax.kit.otlp import ReadPoint

_REACH_S = 30.0
_EVERY_S = 2.0


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(top)


def top(
    once: Annotated[bool, typer.Option("--once", help="Print what is known now, and end.")] = False,
    stack: StackName = "dev",
) -> None:
    """Live: rates, errors and latencies of every service, outboxes, lags of Kafka's readers, and what is slowest, over
    the last half a minute. Ctrl-C ends it."""
    from confluent_kafka import KafkaException
    from rich.console import Console
    from rich.live import Live

    address = kafka_address(stack)
    console = Console()
    try:
        if once:
            console.print(_picture(_recent(address), _lags(address)))
            return
        with Live(console=console, refresh_per_second=2, screen=console.is_terminal) as live:
            while True:
                live.update(_picture(_recent(address), _lags(address)))
                time.sleep(_EVERY_S)
    except KeyboardInterrupt:
        return
    except KafkaException as error:
        typer.echo(f"Kafka does not answer: {error}", err=True)
        raise typer.Exit(2) from error


def _recent(address: str) -> "list[ReadPoint]":
    from lostwax.contracts.topics import TELEMETRY_METRICS
    from lostwax.kit.kafka_reading import read_to_end
    from lostwax.kit.otlp import read_metrics

    since_ms = int((time.time() - _REACH_S) * 1000)
    records = read_to_end(address, {TELEMETRY_METRICS.name: None}, since_ms=since_ms, limit_s=10)
    return [point for record in records for point in read_metrics(record.value() or b"")]


def _lags(address: str) -> dict[tuple[str, str], int]:
    """By group and topic: messages that are in Kafka and not committed as handled."""
    from confluent_kafka.admin import AdminClient

    from lostwax.contracts.topics import ALL
    from lostwax.kit.lags import lags

    admin = AdminClient({"bootstrap.servers": address, "log_level": 3})
    return lags(admin, sorted({reader for topic in ALL for reader in topic.read_by}))


def _picture(points: "list[ReadPoint]", lags: dict[tuple[str, str], int]) -> "Group":
    from rich.console import Group
    from rich.table import Table

    from lostwax.contracts import metrics as catalogue

    spans: dict[tuple[str, str], tuple[int, int]] = {}
    for point in points:
        who = (point.service, point.instance)
        low, high = spans.get(who, (point.started_ns, point.ended_ns))
        spans[who] = (min(low, point.started_ns), max(high, point.ended_ns))
    seconds = {service: max(1.0, (high - low) / 1e9) for (service, _), (low, high) in spans.items()}
    services = Table("", "req/s", "p99 ms", "errors/s", "messages/s", "sent/s", "CPU %", "MB", box=None, pad_edge=False)
    for column in services.columns[1:]:
        column.justify = "right"
    for service in sorted(seconds):
        own = [p for p in points if p.service == service]
        requests = [p for p in own if p.name == catalogue.HTTP_REQUESTS.name]
        per_s = seconds[service]
        failed = sum(sum(p.buckets) for p in requests if str(p.attributes.get("http.response.status_code"))[:1] == "5")
        services.add_row(
            service,
            f"{sum(sum(p.buckets) for p in requests) / per_s:.1f}",
            _milliseconds(_quantile(0.99, requests)),
            f"{failed / per_s:.1f}",
            f"{_sum(own, catalogue.MESSAGES_HANDLED.name) / per_s:.1f}",
            f"{_sum(own, catalogue.MESSAGES_SENT.name) / per_s:.1f}",
            f"{100 * _sum(own, catalogue.CPU.name) / per_s:.1f}",
            f"{_newest(own, catalogue.MEMORY.name) / 1e6:.0f}",
        )
    parts: list[Table | str] = [services, ""]
    waiting = Table("waiting", "", "how many", "oldest s", box=None, pad_edge=False)
    depths = {p.attributes["relay"]: p.value for p in points if p.name == catalogue.OUTBOX_DEPTH.name}
    ages = {p.attributes["relay"]: p.value for p in points if p.name == catalogue.OUTBOX_AGE.name}
    for relay, depth in sorted(depths.items()):
        waiting.add_row("outbox", relay, f"{depth:.0f}", f"{ages.get(relay, 0):.1f}", style="red" if depth else "")
    for (group, topic), lag in sorted(lags.items()):
        if lag:
            waiting.add_row("lag", f"{group} on {topic}", str(lag), "", style="yellow")
    parts += [waiting, ""]
    slowest = Table("slowest, by p99", "ms", "of", box=None, pad_edge=False)
    named = {
        catalogue.HTTP_REQUESTS.name: lambda a: f"{a['http.request.method']} {a['http.route']}",
        catalogue.HANDLING.name: lambda a: f"handle {a['topic']}",
        catalogue.OUTBOX_WAIT.name: lambda a: f"outbox {a['topic']}",
        catalogue.DATABASE_CALLS.name: lambda a: f"database {a['db.operation.name']}",
        catalogue.STORAGE_CALLS.name: lambda a: f"file storage {a['operation']}",
        catalogue.PRICES.name: lambda a: f"price {a['lane']}",
    }
    groups: dict[str, list[ReadPoint]] = defaultdict(list)
    for point in points:
        if point.name in named:
            groups[f"{point.service}: {named[point.name](point.attributes)}"].append(point)
    rows = sorted(((_quantile(0.99, some) or 0.0, what, some) for what, some in groups.items()), key=lambda r: -r[0])
    for seconds_at, what, some in rows[:8]:
        slowest.add_row(what, _milliseconds(seconds_at), str(sum(sum(p.buckets) for p in some)))
    parts.append(slowest)
    return Group(*parts)


def _sum(points: "list[ReadPoint]", name: str) -> float:
    return sum(p.value for p in points if p.name == name)


def _newest(points: "list[ReadPoint]", name: str) -> float:
    return max(((p.ended_ns, p.value) for p in points if p.name == name), default=(0, 0.0))[1]


def _quantile(share: float, points: "list[ReadPoint]") -> float | None:
    from lostwax.kit.metrics import quantile

    if not points:
        return None
    buckets = [sum(column) for column in zip(*(p.buckets for p in points), strict=True)]
    return quantile(share, buckets, points[0].bounds)


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds * 1000:.1f}"
