"""`capture`: change capture by Kafka Connect, looked at and set up by hand; Reporting keeps it going by itself."""

import os
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lostwax.reporting.capture_domain import Source

StackName = Annotated[
    str,
    typer.Option("--stack", help="Which local stack; with LOSTWAX_CONNECT_URL and LOSTWAX_CAPTURE_URLS set, those."),
]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    capture = typer.Typer(no_args_is_help=True)
    capture.command("register")(register_all)
    for command in (status, remove):
        capture.command()(command)
    app.add_typer(capture, name="capture", help="Change capture (Kafka Connect): how it does, set up, taken away.")


def status(stack: StackName = "dev") -> None:
    """Show whether every database's changes flow. Exit code 1 when one does not."""
    import asyncio

    from rich.console import Console
    from rich.table import Table

    from lostwax.reporting import capture

    url, watched = _where(stack)
    reports = asyncio.run(capture.report(url, watched))
    table = Table(box=None, pad_edge=False)
    table.add_column("source")
    table.add_column("state")
    for heading in ("WAL held MB", "behind MB", "lag s"):
        table.add_column(heading, justify="right")
    table.add_column("trouble", overflow="fold")
    for report in reports:
        table.add_row(
            report.source,
            f"[{'red' if report.trouble else 'green'}]{report.state}[/]",
            "" if report.held_bytes < 0 else f"{report.held_bytes / 1e6:.1f}",
            "" if report.behind_bytes < 0 else f"{report.behind_bytes / 1e6:.1f}",
            "" if report.lag_s < 0 else f"{report.lag_s:.0f}",
            (report.trouble or "").replace("[", r"\["),
        )
    Console().print(table)
    if any(report.trouble for report in reports):
        raise typer.Exit(1)


def register_all(stack: StackName = "dev") -> None:
    """Register the connectors, or bring their settings up to date, as Reporting does within seconds of its start."""
    import asyncio

    from lostwax.reporting import capture
    from lostwax.reporting.capture_clients import ConnectAway

    url, watched = _where(stack)
    try:
        asyncio.run(capture.register(url, watched))
    except ConnectAway as error:
        _give_up(f"Kafka Connect at {url}: {error}")
    typer.echo(f"{len(watched)} connectors registered; ./lostwax capture status")


def remove(
    yes: Annotated[bool, typer.Option("--yes", help="Really: what comes afterwards copies all anew.")] = False,
    stack: StackName = "dev",
) -> None:
    """Unregister the connectors and drop their slots; stop Reporting before, else it registers them again."""
    import asyncio

    from lostwax.reporting import capture
    from lostwax.reporting.capture_clients import DATABASE_AWAY, ConnectAway

    if not yes:
        _give_up("this ends change capture: say --yes")
    url, watched = _where(stack)
    try:
        asyncio.run(capture.remove(url, watched))
    except ConnectAway as error:
        _give_up(f"Kafka Connect at {url}: {error}")
    except DATABASE_AWAY as error:
        _give_up(f"a database does not let go of its slot: {error}")
    typer.echo(f"{len(watched)} connectors and their slots removed")


def _where(stack: str) -> "tuple[str, Sequence[Source]]":
    """Connect's address and what is captured: the environment's, else the local stack's."""
    from lostwax.local.places import STACKS
    from lostwax.local.stack import NotRunning, Stack
    from lostwax.reporting.capture_domain import sources

    names = ("LOSTWAX_CONNECT_URL", "LOSTWAX_CAPTURE_URLS")
    if all(name in os.environ for name in names):
        given = dict(os.environ)
    else:
        try:
            given = Stack.attach(STACKS / stack).env("reporting")
        except NotRunning as error:
            _give_up(f"{error}: ./lostwax up, or set {' and '.join(names)}", error)
    try:
        return given[names[0]], sources([url for url in given[names[1]].split(",") if url])
    except ValueError as error:
        _give_up(str(error), error)


def _give_up(why: str, cause: Exception | None = None) -> NoReturn:
    typer.echo(why, err=True)
    raise typer.Exit(2) from cause
