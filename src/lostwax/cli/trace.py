"""`trace`: the way of one order, every hop with its time, read straight from Kafka."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from lostwax.cli.where import StackName, kafka_address

if TYPE_CHECKING:
    from confluent_kafka import Message as KafkaMessage

_SLACK_MS = 60_000


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(trace)


class Hop(NamedTuple):
    """One line of the story. Times in nanoseconds since 1970; `level` 0: always shown, 1: only with --all."""

    at_ns: int
    took_ns: int | None
    service: str
    what: str
    detail: str
    failed: bool
    level: int


def trace(
    order: Annotated[str, typer.Argument(help="The order's id, or its short code.")],
    everything: Annotated[bool, typer.Option("--all", help="Statements and calls of the file storage too.")] = False,
    stack: StackName = "dev",
) -> None:
    """Show the way of one order through every service: its messages as they stand in Kafka (14 days), and the spans of
    its traces (3 days; of the traces that were sampled, and every error)."""
    from confluent_kafka import KafkaException
    from rich.console import Console
    from rich.table import Table

    address = kafka_address(stack)
    console = Console()
    try:
        messages = _messages_of(address, order)
        if not messages:
            typer.echo(f"no message of an order {order} stands in Kafka", err=True)
            raise typer.Exit(1)
        hops = sorted([*_message_hops(messages), *_span_hops(address, messages)], key=lambda hop: hop.at_ns)
    except KafkaException as error:
        typer.echo(f"Kafka does not answer: {error}", err=True)
        raise typer.Exit(2) from error
    first = hops[0].at_ns
    console.print(f"{_order_id(messages)}, first seen {_clock(first)} UTC, {len(hops)} hops", highlight=False)
    table = Table("ms", "took", "", "", "", box=None, pad_edge=False)
    table.columns[0].justify = table.columns[1].justify = "right"
    for hop in hops:
        if hop.level and not everything and not hop.failed:
            continue
        took = "" if hop.took_ns is None else f"{hop.took_ns / 1e6:.1f}"
        style = "red" if hop.failed else "dim" if hop.took_ns is not None else None
        table.add_row(f"{(hop.at_ns - first) / 1e6:.1f}", took, hop.service, hop.what, hop.detail.replace("[", r"\["),
                      style=style)  # fmt: skip
    console.print(table)


def _messages_of(address: str, order: str) -> "list[KafkaMessage]":
    """Every message about the order. All of them stand in the partition of its bucket, whatever the topic."""
    from uuid import UUID

    from lostwax.contracts import catalogue, topics
    from lostwax.contracts.ids import BUCKETS, parse_code, partition_of
    from lostwax.kit.kafka_reading import headers_of, read_to_end

    try:
        wanted, bits = UUID(order).int, 128
    except ValueError:
        code = parse_code(order)
        if code is None:
            raise typer.BadParameter("neither an order's id nor a short code like 7ZK3Q-0M2VX") from None
        wanted, bits = code, 50
    partition = partition_of(wanted & (BUCKETS - 1))
    mask = (1 << bits) - 1
    found = []
    for message in read_to_end(address, {t.name: [partition] for t in topics.ALL if t.by_bucket}):
        type_name = headers_of(message).get("ce_type", "")
        if not catalogue.knows(type_name) or message.value() is None:
            continue
        try:
            subject = UUID(catalogue.subject_of(catalogue.decode(type_name, message.value() or b"")))
        except ValueError:  # about a model, or malformed
            continue
        if subject.int & mask == wanted:
            found.append(message)
    return found


def _order_id(messages: "Sequence[KafkaMessage]") -> str:
    from lostwax.contracts import catalogue
    from lostwax.contracts.ids import short_code
    from lostwax.kit.kafka_reading import headers_of

    ids = sorted({catalogue.subject_of(catalogue.decode(headers_of(m)["ce_type"], m.value() or b"")) for m in messages})
    from uuid import UUID

    return ", ".join(f"{short_code(UUID(i))} {i}" for i in ids)


def _message_hops(messages: "Sequence[KafkaMessage]") -> Iterator[Hop]:
    from datetime import datetime

    from lostwax.contracts import catalogue
    from lostwax.kit.kafka_reading import headers_of

    for message in messages:
        headers = headers_of(message)
        body = catalogue.decode(headers["ce_type"], message.value() or b"")
        written_ns = int(datetime.fromisoformat(headers["ce_time"]).timestamp() * 1e9)
        arrived_ns = message.timestamp()[1] * 1_000_000
        detail = f"{_said(body)}, in Kafka {max(0, arrived_ns - written_ns) / 1e6:.0f} ms later"
        again = headers.get("replayed_from")
        yield Hop(
            written_ns, None, headers.get("ce_source", ""), f"wrote {message.topic()}",
            detail + (f", replayed from {again}" if again else ""), False, 0,
        )  # fmt: skip


def _said(body: Any) -> str:
    """What a message says, in a few words."""
    from lostwax.contracts.orders import Command, OrderChanged, Outcome
    from lostwax.contracts.pricing import Priced, PriceResult

    if isinstance(body, OrderChanged):
        step = body.order.transition
        reason = f" ({step.reason})" if step.reason else ""
        return f"version {body.order.version} {body.order.status} by {step.actor.name}{reason}"
    if isinstance(body, Command):
        return f"{type(body.action).__name__} by {body.actor.kind} {body.actor.name}, saw version {body.seen_version}"
    if isinstance(body, Outcome):
        return f"accepted: version {body.version}" if body.accepted else f"refused: {body.code}, {body.detail}"
    if isinstance(body, PriceResult):
        return f"{body.result.amount} {body.currency}" if isinstance(body.result, Priced) else body.result.failure.code
    return type(body).__name__


def _span_hops(address: str, messages: "Sequence[KafkaMessage]") -> Iterator[Hop]:
    """The spans of the traces that the messages belong to."""
    from lostwax.contracts.topics import TELEMETRY_TRACES
    from lostwax.kit.kafka_reading import headers_of, read_to_end
    from lostwax.kit.otlp import read_spans

    traces = {headers_of(m).get("traceparent", "")[3:35] for m in messages}
    since_ms = min(m.timestamp()[1] for m in messages) - _SLACK_MS
    seen = set()
    for record in read_to_end(address, {TELEMETRY_TRACES.name: None}, since_ms=since_ms):
        for span in read_spans(record.value() or b""):
            if span.trace_id not in traces or span.span_id in seen:
                continue
            seen.add(span.span_id)
            detail = span.error or ", ".join(
                f"{name.rpartition('.')[2]} {value}" for name, value in span.attributes.items() if name != "http.route"
            )
            level = 1 if span.kind == "client" or span.name == "store together" else 0
            took_ns = span.ended_ns - span.started_ns
            yield Hop(span.started_ns, took_ns, span.service, span.name, detail, bool(span.error), level)


def _clock(at_ns: int) -> str:
    from datetime import UTC, datetime

    return f"{datetime.fromtimestamp(at_ns / 1e9, UTC):%Y-%m-%d %H:%M:%S}"
