"""`bench`: what is fast and how fast, each figure beside a ceiling or a peer of the same run."""

import importlib.util
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

FOLDER = Path(__file__).parents[3] / "bench"
KEPT = FOLDER.parent / ".lostwax" / "bench"
"""The outcome of the last run of each benchmark, a file each; what docs/benchmarks.md is written from."""

QUICK_LIMIT_S, LIMIT_S = 400, 3600


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(bench)


def bench(
    names: Annotated[list[str] | None, typer.Argument(help="Files of bench/, e.g. intake.", show_default=False)] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Under a minute or so each.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="Every benchmark, one after the other.")] = False,
    write: Annotated[
        Path | None, typer.Option(help="Write the page of all figures beside floors and goals, from the last runs.")
    ] = None,
) -> None:
    """Run benchmarks: a table for people, and as the last line of each one JSON object. Several, or all, run one after
    the other, and one that fails does not stop the others; exit 1 when one failed."""
    known = sorted(_files())
    chosen = known if everything else [name.replace("_", "-") for name in names or []]
    unknown = [name for name in chosen if name not in known]
    if unknown or not (chosen or write):
        typer.echo(f"no benchmark {', '.join(unknown)}: there are {', '.join(known)}", err=True)
        raise typer.Exit(2)
    if len(chosen) == 1 and write is None:
        _run(chosen[0], quick)
        return
    failed = [name for name in chosen if not _run_apart(name, quick)]
    _tell(known, chosen, write)
    if failed:
        typer.echo(f"failed: {', '.join(failed)}", err=True)
        raise typer.Exit(1)


def _run(name: str, quick: bool) -> None:
    if str(FOLDER) not in sys.path:
        sys.path.append(str(FOLDER))
    spec = importlib.util.spec_from_file_location(f"bench_{name.replace('-', '_')}", _files()[name])
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    about = _about(name, quick)
    began = time.monotonic()
    metrics = module.run(quick)
    about["seconds"] = round(time.monotonic() - began, 1)
    outcome = {"bench": name, "metrics": metrics, **about}
    _keep(outcome)
    typer.echo(f"{about['seconds']:.0f} s")
    typer.echo(json.dumps(outcome))


def _files() -> dict[str, Path]:
    """The benchmarks by name. One that is called as a module of Python's own ends in an underscore, for the folder is
    first on the path of what is run from it."""
    return {p.stem.rstrip("_").replace("_", "-"): p for p in FOLDER.glob("*.py") if not p.stem.startswith("_")}


def _about(name: str, quick: bool) -> dict[str, Any]:
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    memory = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {memory} GiB, Python {platform.python_version()}",
        "commit": commit,
        "at": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
        "quick": quick,
        "load": round(os.getloadavg()[0], 2),
        "seconds": 0.0,
    }


def _keep(outcome: dict[str, Any]) -> None:
    KEPT.mkdir(parents=True, exist_ok=True)
    (KEPT / f"{outcome['bench']}.json").write_text(json.dumps(outcome))


def _run_apart(name: str, quick: bool) -> bool:
    """In a process of its own, so that one leaves nothing warm for the next; whether it did not fail."""
    typer.echo(f"== {name}")
    about = _about(name, quick)
    began = time.monotonic()
    command = [sys.executable, "-m", "lostwax", "bench", name, *(["--quick"] if quick else [])]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, errors="replace")
    try:
        _, said = process.communicate(timeout=QUICK_LIMIT_S if quick else LIMIT_S)
        why = "" if process.returncode == 0 else _last_line(said) or f"exit code {process.returncode}"
    except subprocess.TimeoutExpired:
        process.kill()  # what it started ends with it
        _, said = process.communicate()
        why = f"not done after {QUICK_LIMIT_S if quick else LIMIT_S} s"
    sys.stderr.write(said)
    if why:
        about["seconds"] = round(time.monotonic() - began, 1)
        _keep({"bench": name, "metrics": {}, **about, "failed": why})
        _clear_away(process.pid)
    return not why


def _last_line(said: str) -> str:
    """What a traceback ends with."""
    lines = [line.strip() for line in said.splitlines()]
    return next((line for line in reversed(lines) if line), "")[:300]


def _clear_away(pid: int) -> None:
    """The stack of a benchmark that ended without taking it down."""
    from lostwax.local.places import STACKS
    from lostwax.local.stack import Stack

    folder = STACKS / f"bench-{pid}"
    if folder.exists():
        Stack(folder).down(remove=True)


def _tell(known: Sequence[str], chosen: Sequence[str], write: Path | None) -> None:
    """The figures beside their floors and goals: of those that ran on the terminal, of all on the page."""
    import msgspec

    sys.path.append(str(FOLDER))
    pages: Any = import_module("_page")
    budgets: Any = import_module("_budgets")
    kept = {path.stem: msgspec.json.decode(path.read_bytes(), type=pages.Outcome) for path in KEPT.glob("*.json")}
    if chosen:
        ran = {name: kept[name] for name in chosen if name in kept}
        typer.echo("\n" + pages.summary(budgets.BUDGETS, ran, known))
    if write is not None:
        command = "./lostwax " + " ".join(sys.argv[1:])
        preface = (FOLDER / "_preface.md").read_text()
        write.write_text(pages.page(budgets.BUDGETS, kept, known, preface, command))
        typer.echo(f"wrote {write}")
