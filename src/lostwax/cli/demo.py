"""`demo`: the main job before one's eyes."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import RenderableType

    from lostwax.demo.run import Cast, Progress
    from lostwax.local.stack import Stack


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(demo)


def demo(
    orders: Annotated[int, typer.Option("--orders", min=1, max=100_000, help="How many orders.")] = 60,
    leave: Annotated[bool, typer.Option("--exit", help="End when the audit is done.")] = False,
    seed: Annotated[int, typer.Option(help="The same seed gives the same models and wishes.")] = 0,
) -> None:
    """Start everything afresh, ship orders through every status, audit them. Exit code 0: the audit is clean."""
    import asyncio

    from rich.console import Console
    from rich.live import Live

    from lostwax.cli.audit import databases_of, show
    from lostwax.demo.robots import RobotFailed
    from lostwax.demo.run import ship_orders
    from lostwax.local.places import STACKS, Missing
    from lostwax.local.stack import Stack, StackFailed

    console = Console()
    began = time.monotonic()
    try:
        with console.status("starting PostgreSQL, Redis, Kafka, S3 and the services"):
            stack = Stack.start(STACKS / "demo", owned=True, fresh=True, preferred_ports=True)
    except (StackFailed, Missing) as failure:
        console.print(str(failure), style="red", markup=False, highlight=False)
        raise typer.Exit(2) from failure
    with stack:
        console.print(f"servers and services are up after {time.monotonic() - began:.1f} s", style="dim")
        progress = _Display(console)
        try:
            with Live(console=console, get_renderable=progress.render, refresh_per_second=4) as live:
                live.auto_refresh = console.is_terminal
                cast, report = asyncio.run(
                    ship_orders(
                        stack,
                        databases_of(stack),
                        orders,
                        stack.folder / "demo",
                        seed=seed,
                        show=progress.update,
                        limit_s=60 + orders,
                        eventful=True,
                    )
                )
        except* RobotFailed as failures:
            for told in failures.exceptions:
                console.print(f"a robot was told: {told}", style="red", markup=False)
            raise typer.Exit(1) from failures
        console.print()
        done = cast.events
        console.print(
            f"{done.layouts_sent} layouts sent, {done.layouts_approved} approved, {done.layouts_remarked} remarked on;"
            f" {done.messages} messages of the seller, {done.answers} answered; {done.confirmed} addresses confirmed",
            highlight=False,
        )
        show(report)
        if not leave:
            _invite(console, stack, cast)
            try:
                while True:
                    time.sleep(3600)
            except KeyboardInterrupt:
                console.print("stopping", style="dim")
    if not report.clean:
        raise typer.Exit(1)


class _Display:
    """The live table; off a terminal a line whenever the picture has moved and a second has passed."""

    def __init__(self, console: "object") -> None:
        from rich.console import Console

        assert isinstance(console, Console)
        self._console = console
        self._now: Progress | None = None
        self._printed = 0.0

    def update(self, progress: "Progress") -> None:
        self._now = progress
        if not self._console.is_terminal and time.monotonic() - self._printed >= 1:
            self._printed = time.monotonic()
            counts = ", ".join(f"{n} {s}" for s, n in sorted(progress.standing.by_status.items()))
            self._console.print(
                f"{progress.seconds:5.1f} s  {progress.accepted}/{progress.wanted} accepted; {counts}", highlight=False
            )

    def render(self) -> "RenderableType":
        from rich.table import Table
        from rich.text import Text

        from lostwax.contracts.orders import Status

        now = self._now
        if now is None:
            return Text("")
        table = Table(
            title=f"{now.accepted} of {now.wanted} orders accepted, {now.seconds:.1f} s", title_justify="left"
        )
        table.add_column("status")
        for name in ("orders now", "came here", "a second", "p50 ms", "p99 ms"):
            table.add_column(name, justify="right")
        for status in Status:
            hop = now.standing.hops.get(status)
            if hop is None:
                continue
            table.add_row(
                status.value,
                str(now.standing.by_status.get(status, 0) or ""),
                str(hop.count),
                f"{hop.count / max(now.seconds, 0.1):.1f}",
                f"{hop.p50_s * 1000:.0f}",
                f"{hop.p99_s * 1000:.0f}",
            )
        table.caption = (
            f"times since the status before, robots' own pauses included; {now.claims_won} claims won,"
            f" {now.claims_lost} lost to a colleague; {now.events.mended} failed prices mended,"
            f" {now.events.reworked} pieces reworked, {now.events.cancelled} orders cancelled,"
            f" {now.events.held} holds ({now.events.held_unpriced} before the price),"
            f" {now.events.quoted} ordered by a quote, {now.events.closed} orders closed,"
            f" {now.events.refused} commands refused"
        )
        table.caption_justify = "left"
        return table


def _invite(console: "object", stack: "Stack", cast: "Cast") -> None:
    from rich.console import Console

    assert isinstance(console, Console)
    console.print(
        f"""
operators' page  {stack.url("mes")}/   sign in with badge {cast.badge}
CRM              {stack.url("crm")}/openapi.json   POST /v1/sign-in with badge {cast.seller_badge}
internet shop    {stack.url("shop")}/   as a guest, or sign up
partner API      {stack.url("partner_api")}/openapi.json   Authorization: Bearer {cast.key}
Orders           {stack.url("orders")}/openapi.json   (for services)
pricing          {stack.url("pricing")}/health/ready
telemetry        {stack.url("telemetry")}/   sign in with badge {cast.administrator_badge}
mail             {stack.url("mail")}/   every letter that was sent; links in them work
reports          {stack.url("reporting")}/   sign in with badge {cast.administrator_badge}
more             ./lostwax status --stack demo; ./lostwax logs orders --stack demo; ./lostwax audit --stack demo

Ctrl-C ends it all.""",
        highlight=False,
    )
