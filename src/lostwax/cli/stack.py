"""`up`, `down`, `status`, `logs`: the local stack that people work with."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from lostwax.local.state import ProcessStatus


StackName = Annotated[str, typer.Option("--stack", help="Which stack: a folder under .lostwax/stacks/.")]

_COLOURS = {"ready": "green", "stopped": "dim", "starting": "yellow", "unready": "red", "waiting": "red"}


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    for command in (up, down, status, logs):
        app.command()(command)


def up(
    stack: StackName = "dev",
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget everything that was stored before.")] = False,
    only_servers: Annotated[bool, typer.Option("--only-servers", help="Start no service.")] = False,
) -> None:
    """Start the servers and services, in the background, until `down`."""
    from rich.console import Console

    from lostwax.local.places import STACKS, Missing
    from lostwax.local.stack import Stack, StackFailed

    console = Console(stderr=True)
    began = time.monotonic()
    try:
        with console.status("starting"):
            started = Stack.start(
                STACKS / stack,
                owned=False,
                fresh=fresh,
                services=() if only_servers else None,
                preferred_ports=True,
            )
    except (StackFailed, Missing) as failure:
        typer.echo(str(failure), err=True)
        raise typer.Exit(1) from failure
    for process in started.status():
        if (process.kind == "service" or process.name == "mail") and process.state != "stopped":
            typer.echo(f"{process.name:12} {process.url}")
    console.print(f"up in {time.monotonic() - began:.1f} s; ./lostwax status, logs NAME, down", style="dim")


def down(
    stack: StackName = "dev",
    remove: Annotated[bool, typer.Option("--remove", help="And forget everything that was stored.")] = False,
) -> None:
    """Stop everything; nothing to stop is fine."""
    from lostwax.local.places import STACKS
    from lostwax.local.stack import Stack

    Stack(STACKS / stack).down(remove=remove)


def status(stack: StackName = "dev") -> None:
    """Show what runs. Exit code 1 when something is down."""
    from rich.console import Console
    from rich.table import Table

    from lostwax.local.places import STACKS
    from lostwax.local.stack import NotRunning, Stack

    try:
        attached = Stack.attach(STACKS / stack)
        processes = attached.status()
    except NotRunning as absent:
        typer.echo(str(absent), err=True)
        raise typer.Exit(1) from absent
    table = Table(box=None, pad_edge=False)
    for heading, side in (("name", "left"), ("state", "left"), ("pid", "right"), ("port", "right")):
        table.add_column(heading, justify="right" if side == "right" else "left")
    table.add_column("restarts", justify="right")
    table.add_column("MB", justify="right")
    table.add_column("trouble")
    for process in processes:
        table.add_row(
            process.name,
            f"[{_COLOURS[process.state]}]{process.state}[/]",
            str(process.pid or ""),
            str(process.port),
            str(process.restarts),
            memory_mb(process),
            process.trouble.replace("[", r"\["),
        )
    Console().print(table)
    if any(process.name == "kafka" and process.state == "ready" for process in processes):
        for topic, letters in unsettled(attached.env("orders")["LOSTWAX_KAFKA_BOOTSTRAP"]).items():
            typer.echo(f"{letters} dead letters of {topic}: ./lostwax dead list", err=True)
    if any(process.state != "ready" for process in processes):
        raise typer.Exit(1)


def unsettled(bootstrap: str) -> dict[str, int]:
    """How many dead letters of each topic nobody has replayed or discarded; none are told while Kafka is away."""
    from confluent_kafka import KafkaException

    from lostwax.contracts.topics import ALL
    from lostwax.kit.dead import read

    try:
        return {topic.name: len(letters.open) for topic, letters in read(bootstrap, ALL).items() if letters.open}
    except KafkaException:
        return {}


def memory_mb(process: "ProcessStatus") -> str:
    """Memory of a process and its children, pages that they share counted once where the system tells; '' when it does
    not run."""
    import psutil

    if process.pid is None:
        return ""
    total = 0
    try:
        leader = psutil.Process(process.pid)
        members = [leader, *leader.children(recursive=True)]
    except psutil.NoSuchProcess:
        return ""
    for member in members:
        try:
            total += member.memory_full_info().pss
        except psutil.NoSuchProcess:
            continue
        except psutil.AccessDenied:
            total += member.memory_info().rss
    return f"{total / 2**20:.0f}"


def logs(
    name: Annotated[str, typer.Argument(help="A server, a service, or `supervisor`.")],
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on showing what comes.")] = False,
    lines: Annotated[int, typer.Option("-n", "--lines", help="How many lines from the end.")] = 50,
    stack: StackName = "dev",
) -> None:
    """Show the log of one process."""
    from collections import deque

    from lostwax.local.places import STACKS

    folder = STACKS / stack / "logs"
    path = folder / f"{name}.log"
    if not path.is_file():
        there = ", ".join(sorted(log.stem for log in folder.glob("*.log"))) or "none yet"
        typer.echo(f"no log of {name}: there are {there}", err=True)
        raise typer.Exit(1)
    with path.open(errors="replace") as log:
        for line in deque(log, lines):
            typer.echo(line, nl=False)
        try:
            while follow:
                if line := log.readline():
                    typer.echo(line, nl=False)
                else:
                    time.sleep(0.2)
        except KeyboardInterrupt:
            return
