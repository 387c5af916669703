"""`audit`: is every order that a client was told of exactly once where it should be?"""

import asyncio
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from lostwax.audit.run import Report
    from lostwax.audit.sources import Databases, Reports
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
    reports_settle: Annotated[float, typer.Option(help="Seconds to wait for what only reports lack.")] = 120,
    settle: Annotated[float, typer.Option(help="Seconds to wait for what is under way.")] = 10,
    redrive: Annotated[bool, typer.Option("--redrive", help="Send again what is missing or seen differently.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """Compare every database; name each order that is missing, doubled, stuck, dead or seen differently. Exit 1 if any.

    Beyond a local stack: LOSTWAX_AUDIT_PARTNER_API, LOSTWAX_AUDIT_SHOP, LOSTWAX_AUDIT_MES, LOSTWAX_AUDIT_CRM,
    LOSTWAX_AUDIT_SHARDS (comma separated) and LOSTWAX_KAFKA_BOOTSTRAP in the environment; for reports
    LOSTWAX_AUDIT_REPORTING, where Reporting answers, and the console's LOSTWAX_SERVICE_KEY.
    """
    import msgspec

    from lostwax.audit.journal import read_journal
    from lostwax.audit.run import audit as run_audit
    from lostwax.audit.telling import tell
    from lostwax.kit.clock import utc_now

    attached, databases, bootstrap = _where(stack)
    entries = list(read_journal(journal)) if journal is not None else []

    def looked() -> "Coroutine[None, None, Report]":
        return run_audit(databases, bootstrap, entries, now=utc_now, settle_s=settle, reports_s=reports_settle)

    report = asyncio.run(looked())
    if redrive and not report.clean:
        if attached is None:
            typer.echo("--redrive needs a local stack", err=True)
            raise typer.Exit(2)
        sent = redrive_all(attached, report)
        typer.echo(f"sent again: {sent} orders; looking once more", err=True)
        report = asyncio.run(looked())
    if not tell(report, bootstrap):
        typer.echo("the verdict could not be sent to telemetry", err=True)
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
            shop=os.environ["LOSTWAX_AUDIT_SHOP"],
            mes=os.environ["LOSTWAX_AUDIT_MES"],
            crm=os.environ["LOSTWAX_AUDIT_CRM"],
            shards=tuple(os.environ["LOSTWAX_AUDIT_SHARDS"].split(",")),
            reports=_reports_elsewhere(),
        )
        return None, databases, os.environ["LOSTWAX_KAFKA_BOOTSTRAP"]
    try:
        attached = Stack.attach(STACKS / stack)
    except NotRunning as error:
        typer.echo(f"no stack {stack} runs: ./lostwax up", err=True)
        raise typer.Exit(2) from error
    return attached, databases_of(attached), attached.env("orders")["LOSTWAX_KAFKA_BOOTSTRAP"]


def _reports_elsewhere() -> "Reports":
    from lostwax.audit.sources import Reports
    from lostwax.kit.auth import ServiceSigner

    url, key = os.environ.get("LOSTWAX_AUDIT_REPORTING", ""), os.environ.get("LOSTWAX_SERVICE_KEY", "")
    if not url or not key:
        return Reports(why_not="LOSTWAX_AUDIT_REPORTING and LOSTWAX_SERVICE_KEY are not set")
    signer = ServiceSigner(json.loads(key)["kid"], key)
    return Reports(url, lambda: signer.token("reporting"))


def reports_of(stack: "Stack") -> "Reports":
    """Reporting of a local stack; nowhere when it, or Connect, was not started or cannot be."""
    from lostwax.audit.sources import Reports
    from lostwax.local.places import CONNECT_LIBS

    for name in ("connect", "reporting"):
        if stack.process(name).state == "stopped":
            return Reports(why_not=f"{name} does not run")
    if not CONNECT_LIBS.exists():
        return Reports(why_not="Kafka Connect is not installed")
    return Reports(stack.url("reporting"), lambda: stack.console_token("reporting"))


def databases_of(stack: "Stack") -> "Databases":
    """The read-only addresses of a local stack."""
    from lostwax.audit.sources import Databases

    dsns = stack.audit_dsns
    shards = tuple(dsns[name] for name in sorted(dsns) if name.startswith("shard-"))
    return Databases(
        partner_api=dsns["partner_api"],
        shop=dsns["shop"],
        mes=dsns["mes"],
        crm=dsns["crm"],
        shards=shards,
        reports=reports_of(stack),
    )


def redrive_all(stack: "Stack", report: "Report") -> int:
    """Ask channels to send what Orders lacks, and Orders to tell again what somebody sees differently."""
    import httpx

    from lostwax.audit.sources import CHANNELS
    from lostwax.audit.verdict import Kind

    def of(kind: Kind, what: str) -> list[str]:
        ids = {getattr(finding, what) for finding in report.findings if finding.kind is kind}
        return sorted(str(one) for one in ids if one is not None)

    done = 0
    with httpx.Client(timeout=30) as client:

        def post(service: str, path: str, body: dict[str, list[str]] | None = None) -> None:
            headers = {"Authorization": f"Bearer {stack.console_token(service)}"}
            client.post(f"{stack.url(service)}{path}", json=body, headers=headers).raise_for_status()

        for what, things in (("order_id", "orders"), ("quote_id", "quotes")):
            missing, differing = of(Kind.MISSING, what), of(Kind.DIFFERS, what)
            for start in range(0, len(missing), 1000):
                for channel in CHANNELS:  # each sends what it has of them
                    post(channel, "/v1/requests/resend", {f"{what}s": missing[start : start + 1000]})
            for one in differing:
                post("orders", f"/v1/{things}/{one}/republish")
            done += len(missing) + len(differing)
    return done


def show(report: "Report") -> None:
    """The report for people."""
    from rich.console import Console
    from rich.table import Table

    from lostwax.audit.sources import CHANNELS
    from lostwax.contracts.ids import short_code

    console = Console()
    statuses = ", ".join(f"{count} {status}" for status, count in report.by_status.items()) or "none"
    doors = ", ".join(f"{count} {CHANNELS[name]}" for name, count in report.by_channel.items()) or "none"
    console.print(
        f"{report.acknowledged} acknowledged to clients, {report.requested} requested through channels ({doors}),"
        f" {report.announced} announced ({report.expected} on their way), {report.orders} in Orders: {statuses};"
        f" {report.quotes} quotes",
        highlight=False,
    )
    if report.reported is None:
        console.print(f"[yellow]reports not compared[/]: {report.not_compared}", highlight=False)
    else:
        console.print(f"{report.reported} in reports, compared by status, version, times and amount", highlight=False)
    if report.clean:
        console.print(
            f"[bold green]audit clean[/]: every order once, alike everywhere, none stuck or dead ({report.seconds} s)"
        )
        return
    table = Table("", "order or quote", "code", "what", box=None, pad_edge=False)
    for finding in report.findings[:SHOWN]:
        code = short_code(finding.order_id) if finding.order_id else ""
        table.add_row(f"[red]{finding.kind}[/]", str(finding.order_id or finding.quote_id or ""), code, finding.detail)
    console.print(table)
    if len(report.findings) > SHOWN:
        console.print(f"and {len(report.findings) - SHOWN} more; --json has them all")
    console.print(f"[bold red]audit NOT clean[/]: {len(report.findings)} findings ({report.seconds} s)")
