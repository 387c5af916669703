"""`chaos`: break everything under load, and show that nothing is lost."""

import time
from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(chaos)


def chaos(
    minutes: Annotated[
        float | None, typer.Option(help="About so long: a choice by the seed, one of each kind first.")
    ] = None,
    rate: Annotated[float, typer.Option(min=1, max=1000, help="Orders a second.")] = 50,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="FAULT", help="Faults with this in their name, e.g. 'kill pg'."),
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same faults, models and wishes.")] = 0,
    hold: Annotated[float | None, typer.Option(min=0.1, help="Hold no fault longer than this, in seconds.")] = None,
    report: Annotated[
        Path | None, typer.Option(help="Where the report goes; *.json: as JSON. Else it is printed.")
    ] = None,
    show_list: Annotated[bool, typer.Option("--list", help="Say which faults a run would make, and end.")] = False,
    stack_name: Annotated[str, typer.Option("--stack", help="The stack's name; what it holds is forgotten.")] = "chaos",
) -> None:
    """Kill, stop, slow, cut and fill everything under load, one after the other; measure recovery; audit at the end.

    Exit 1 when the audit is not clean, a fault met fewer than 50 unfinished orders, or something did not recover.
    """
    import asyncio
    import os
    import platform
    import shlex
    import sys

    from lostwax.chaos import faults, run
    from lostwax.chaos.disk import SmallDisk
    from lostwax.chaos.report import as_json, as_markdown
    from lostwax.cli.audit import databases_of
    from lostwax.local import servers, setup
    from lostwax.local.credentials import SERVICES
    from lostwax.local.places import STACKS, Missing
    from lostwax.local.servers import postgres, toxiproxy
    from lostwax.local.stack import NotRunning, Stack, StackFailed
    from lostwax.local.supervisor import remove_data

    may_fill = os.geteuid() == 0
    everything = faults.matrix(SERVICES, servers.PROXIED, postgres.SHARDS[-1] if may_fill else None)
    left_out = [] if may_fill else ["full disk: only root may mount a small disk"]
    chosen = faults.only(everything, only or [])
    if not chosen:
        typer.echo(f"no such fault: there are {', '.join(dict.fromkeys(f.name for f in everything))}", err=True)
        raise typer.Exit(2)
    if hold is not None:
        chosen = faults.shortened(chosen, hold)
    around_s = faults.AROUND_A_FAULT_S if hold is None else min(faults.AROUND_A_FAULT_S, 3 + hold)
    chosen = faults.plan(chosen, seed, None if minutes is None else minutes * 60, around_s)
    if show_list:
        for fault in chosen:
            typer.echo(f"{fault.name:24} {fault.seconds:4.0f} s")
        return
    folder = STACKS / stack_name
    try:
        Stack.attach(folder)
    except NotRunning:
        pass
    else:
        typer.echo(f"a stack {stack_name} runs: ./lostwax down --stack {stack_name}", err=True)
        raise typer.Exit(2)
    disk = None
    began = time.monotonic()
    try:
        toxiproxy.install()
        folder.mkdir(parents=True, exist_ok=True)
        remove_data(folder)
        if any(fault.kind is faults.Kind.FULL for fault in chosen):
            try:
                disk = SmallDisk(folder, postgres.SHARDS[-1])
            except OSError as error:
                left_out.append(f"full disk: {error}")
                chosen = [fault for fault in chosen if fault.kind is not faults.Kind.FULL]
        stack = Stack.start(folder, owned=True, fresh=False, proxied=True)
    except (StackFailed, Missing, setup.SetupFailed) as failure:
        typer.echo(str(failure), err=True)
        raise typer.Exit(2) from failure
    try:
        with stack:
            typer.echo(
                f"servers and services are up after {time.monotonic() - began:.1f} s; {len(chosen)} faults", err=True
            )
            result = asyncio.run(
                run.run(
                    stack,
                    databases_of(stack),
                    chosen,
                    folder / "chaos",
                    rate=rate,
                    seed=seed,
                    disk=disk,
                    left_out=left_out,
                    show=lambda line: typer.echo(line, err=True),
                )
            )
    finally:
        if disk is not None:
            disk.remove()
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    command = shlex.join(["./lostwax", *sys.argv[1:]])
    page = as_json(result) if report is not None and report.suffix == ".json" else as_markdown(result, machine, command)
    if report is None:
        typer.echo(page)
    else:
        report.write_text(page)
    for short in result.shortfalls():
        typer.echo(short, err=True)
    if result.shortfalls():
        raise typer.Exit(1)
    typer.echo("audit clean: every order once, alike everywhere, none lost", err=True)
