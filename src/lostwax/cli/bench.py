"""`bench`: what is fast and how fast, each figure beside a ceiling or a peer of the same run."""

import importlib.util
import json
import os
import platform
import subprocess
import sys
import time
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(bench)


def bench(
    name: Annotated[str | None, typer.Argument(help="A file of bench/, e.g. intake.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Under a minute each.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="Every benchmark, one after the other.")] = False,
) -> None:
    """Run a benchmark: a table for people, and as its last line one JSON object."""
    from lostwax.local.places import PROJECT

    folder = PROJECT / "bench"
    names = sorted(p.stem for p in folder.glob("*.py") if not p.stem.startswith("_"))
    if everything:
        # Each in a process of its own, so that one leaves nothing warm for the next.
        failed = []
        for each in names:
            typer.echo(f"== {each}")
            command = [sys.executable, "-m", "lostwax", "bench", each, *(["--quick"] if quick else [])]
            if subprocess.run(command, check=False).returncode != 0:
                failed.append(each)
        if failed:
            typer.echo(f"failed: {', '.join(failed)}", err=True)
            raise typer.Exit(1)
        return
    if name is None or name.replace("-", "_") not in names:
        typer.echo(f"no benchmark {name or ''}: there are {', '.join(names)}", err=True)
        raise typer.Exit(2)
    sys.path.append(str(folder))  # last: a benchmark may have the name of a module
    spec = importlib.util.spec_from_file_location(f"bench_{name}", folder / f"{name.replace('-', '_')}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    began = time.monotonic()
    metrics = module.run(quick)
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=PROJECT, capture_output=True, text=True, check=False
    ).stdout.strip()
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    typer.echo(f"{time.monotonic() - began:.0f} s")
    typer.echo(json.dumps({"bench": name, "metrics": metrics, "machine": machine, "commit": commit}))
