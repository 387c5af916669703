"""`audit`: is every order that a client was told of exactly once where it should be?"""

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from lostwax.audit.run import Report
    from lostwax.audit.sources import Databases
    from lostwax.local.stack import Stack

SHOWN = 40


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(audit)


def audit(
    journal: Annotated[
        Path | None, typer.Option(help="A client's journal of acknowledged orders (JSON lines).")
    ] = None,
    stack: Annotated[str, typer.Option("--stack", help="Which local stack; or LOSTWAX_AUDIT_* for another.")] = "dev",
    settle: Annotated[float, typer.Option(help="Seconds to wait for what is under way.")] = 10,
    redrive: Annotated[bool, typer.Option("--redrive", help="Send again what is missing or seen differently.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """Compare every database; name each order that is missing, doubled, stuck, dead or seen differently. Exit 1 if any.

    Beyond a local stack: LOSTWAX_AUDIT_PARTNER_API, LOSTWAX_AUDIT_MES, LOSTWAX_AUDIT_CRM, LOSTWAX_AUDIT_SHARDS (comma
    separated) and LOSTWAX_KAFKA_BOOTSTRAP in the environment.
    """
    import msgspec

    from lostwax.audit.journal import read_journal
    from lostwax.audit.run import audit as run_audit
    from lostwax.kit.clock import utc_now

    attached, databases, bootstrap = _where(stack)
    entries = list(read_journal(journal)) if journal is not None else []
    report = asyncio.run(run_audit(databases, bootstrap, entries, now=utc_now, settle_s=settle))
    if redrive and not report.clean:
        if attached is None:
            typer.echo("--redrive needs a local stack", err=True)
            raise typer.Exit(2)
        sent = redrive_all(attached, report)
        typer.echo(f"sent again: {sent} orders; looking once more", err=True)
        report = asyncio.run(run_audit(databases, bootstrap, entries, now=utc_now, settle_s=settle))
    if as_json:
        typer.echo(msgspec.json.encode(report).decode())
    else:
        show(report)
    if not report.clean:
        raise typer.Exit(1)


def _where(stack: str) -> "tuple[Stack | None, Databases, str]":
    from lostwax.audit.sources import Databases
    from lostwax.local.places import STACKS
    from lostwax.local.stack import NotRunning, Stack

    if "LOSTWAX_AUDIT_SHARDS" in os.environ:
        databases = Databases(
            partner_api=os.environ["LOSTWAX_AUDIT_PARTNER_API"],
            mes=os.environ["LOSTWAX_AUDIT_MES"],
            crm=os.environ["LOSTWAX_AUDIT_CRM"],
            shards=tuple(os.environ["LOSTWAX_AUDIT_SHARDS"].split(",")),
        )
        return None, databases, os.environ["LOSTWAX_KAFKA_BOOTSTRAP"]
    try:
        attached = Stack.attach(STACKS / stack)
    except NotRunning as error:
        typer.echo(f"no stack {stack} runs: ./lostwax up", err=True)
        raise typer.Exit(2) from error
    return attached, databases_of(attached), attached.env("orders")["LOSTWAX_KAFKA_BOOTSTRAP"]


def databases_of(stack: "Stack") -> "Databases":
    """The read-only addresses of a local stack."""
    from lostwax.audit.sources import Databases

    dsns = stack.audit_dsns
    shards = tuple(dsns[name] for name in sorted(dsns) if name.startswith("shard-"))
    return Databases(partner_api=dsns["partner_api"], mes=dsns["mes"], crm=dsns["crm"], shards=shards)


def redrive_all(stack: "Stack", report: "Report") -> int:
    """Ask channels to send what Orders lacks, and Orders to tell again what somebody sees differently."""
    import httpx

    from lostwax.audit.verdict import Kind

    missing = sorted({f.order_id for f in report.findings if f.kind is Kind.MISSING and f.order_id})
    differing = sorted({f.order_id for f in report.findings if f.kind is Kind.DIFFERS and f.order_id})
    with httpx.Client(timeout=30) as client:
        for start in range(0, len(missing), 1000):
            client.post(
                f"{stack.url('partner_api')}/v1/requests/resend",
                json={"order_ids": [str(i) for i in missing[start : start + 1000]]},
                headers={"Authorization": f"Bearer {stack.console_token('partner_api')}"},
            ).raise_for_status()
        for order_id in differing:
            client.post(
                f"{stack.url('orders')}/v1/orders/{order_id}/republish",
                headers={"Authorization": f"Bearer {stack.console_token('orders')}"},
            ).raise_for_status()
    return len(missing) + len(differing)


def show(report: "Report") -> None:
    """The report for people."""
    from rich.console import Console
    from rich.table import Table

    from lostwax.contracts.ids import short_code

    console = Console()
    statuses = ", ".join(f"{count} {status}" for status, count in report.by_status.items()) or "none"
    console.print(
        f"{report.acknowledged} acknowledged to clients, {report.requested} requested through channels,"
        f" {report.announced} announced ({report.expected} on their way), {report.orders} in Orders: {statuses}",
        highlight=False,
    )
    if report.clean:
        console.print(
            f"[bold green]audit clean[/]: every order once, alike everywhere, none stuck or dead ({report.seconds} s)"
        )
        return
    table = Table("", "order", "code", "what", box=None, pad_edge=False)
    for finding in report.findings[:SHOWN]:
        code = short_code(finding.order_id) if finding.order_id else ""
        table.add_row(f"[red]{finding.kind}[/]", str(finding.order_id or ""), code, finding.detail)
    console.print(table)
    if len(report.findings) > SHOWN:
        console.print(f"and {len(report.findings) - SHOWN} more; --json has them all")
    console.print(f"[bold red]audit NOT clean[/]: {len(report.findings)} findings ({report.seconds} s)")
