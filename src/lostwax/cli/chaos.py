"""`chaos`: break everything under load, and show that nothing is lost."""

import time
from pathlib import Path
from typing import Annotated

import typer

ASIDE_LIMIT_S = 120


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
    spine: Annotated[
        bool, typer.Option("--spine", help="Only what stands in an order's way, and nothing else beside it.")
    ] = False,
    report: Annotated[
        Path | None, typer.Option(help="Where the report goes; *.json: as JSON. Else it is printed.")
    ] = None,
    write_docs: Annotated[bool, typer.Option("--write-docs", help="Write the report to docs/chaos.md.")] = False,
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
    from lostwax.local.places import PROJECT, STACKS, Missing
    from lostwax.local.servers import postgres, toxiproxy
    from lostwax.local.services import SPINE
    from lostwax.local.stack import AS_IN_PRODUCTION, NotRunning, Stack, StackFailed
    from lostwax.local.supervisor import remove_data

    may_fill = os.geteuid() == 0
    small: tuple[str, ...] = (next(iter(postgres.INSTANCES)), postgres.SHARDS[-1]) if may_fill else ()
    proxied = (*servers.PROXIED, *map(toxiproxy.before, servers.CALLED))
    services = SPINE if spine else tuple(SERVICES)
    there = [name for name in servers.names() if name not in servers.of_none(services)]
    everything = faults.matrix(services, there, proxied, small)
    left_out = [] if may_fill else ["full disk: only root may mount a small disk"]
    chosen = faults.only(everything, only or [])
    if not chosen:
        typer.echo(f"no such fault: there are {', '.join(dict.fromkeys(f.name for f in everything))}", err=True)
        raise typer.Exit(2)
    seconds = None if minutes is None else minutes * 60
    if seconds is not None and hold is None and (hold := faults.hold_that_fits(chosen, seconds)) is not None:
        if hold < faults.SHORTEST_HOLD_S:
            hold = faults.SHORTEST_HOLD_S
            typer.echo(f"{minutes:g} minutes are too short for one fault of each kind: some are left out", err=True)
        else:
            typer.echo(f"no fault is held longer than {hold:g} s, so that one of each kind fits", err=True)
    if hold is not None:
        chosen = faults.shortened(chosen, hold)
    chosen = faults.plan(chosen, seed, seconds, faults.around_s(hold))
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
    disks: dict[str, SmallDisk] = {}
    began, load_before = time.monotonic(), os.getloadavg()[0]
    try:
        toxiproxy.install()
        folder.mkdir(parents=True, exist_ok=True)
        remove_data(folder)
        for fault in [fault for fault in chosen if fault.kind is faults.Kind.FULL]:
            try:
                disks[fault.target] = SmallDisk(folder, fault.target)
            except OSError as error:
                left_out.append(f"{fault.name}: {error}")
                chosen.remove(fault)
        stack = Stack.start(
            folder, owned=True, fresh=False, services=services, proxied=True, overrides=AS_IN_PRODUCTION
        )
    except (StackFailed, Missing, setup.SetupFailed) as failure:
        for disk in disks.values():
            disk.remove()
        typer.echo(str(failure), err=True)
        raise typer.Exit(2) from failure
    try:
        with stack:
            typer.echo(
                f"servers and services are up after {time.monotonic() - began:.1f} s; {len(chosen)} faults", err=True
            )
            for name in sorted({fault.target for fault in chosen} & {p.name for p in stack.status() if p.aside}):
                try:
                    stack.wait_ready(name, ASIDE_LIMIT_S)  # nothing else waits for what stands aside
                except StackFailed as failure:
                    left_out.append(f"all faults of {name}: {str(failure).splitlines()[0]}")
                    chosen = [fault for fault in chosen if fault.target != name]
            try:
                result = asyncio.run(
                    run.run(
                        stack,
                        databases_of(stack),
                        chosen,
                        folder / "chaos",
                        rate=rate,
                        seed=seed,
                        disks=disks,
                        left_out=left_out,
                        show=lambda line: typer.echo(line, err=True),
                    )
                )
            except Exception as failure:
                try:
                    stack.state()
                except NotRunning:
                    said = f"the stack {stack_name} has gone while it was being hurt; nothing was audited"
                    typer.echo(said, err=True)
                    raise typer.Exit(2) from failure
                raise
    finally:
        for disk in disks.values():
            disk.remove()
    memory = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)
    machine = (
        f"{os.cpu_count()} cores, {memory} GiB, {platform.machine()}, Python {platform.python_version()}"
        f" (load average before: {load_before:.1f})"
    )
    command = shlex.join(["./lostwax", *sys.argv[1:]])
    if write_docs:
        report = PROJECT / "docs" / "chaos.md"
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
