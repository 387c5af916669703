"""`test`: every check and every test, as CI runs them."""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

import typer

CHECKS = (
    ("ruff", ("-m", "ruff", "check")),
    ("mypy", ("-m", "mypy")),
    ("import-linter", ("-c", "from importlinter.cli import lint_imports_command; lint_imports_command()")),
    ("pytest, without servers", ("-m", "pytest", "-m", "pure")),
)
"""What is done beside the tests with servers, which wait more than they work."""

TWO_AT_A_TIME = ("-n", "2", "--dist", "loadscope", "--no-loadscope-reorder")
"""Tests with servers wait for them half of the time; tests/conftest.py says what stays together."""

TRIED_AGAIN_AT_MOST = 5
"""Failed tests; more of them are no accident (docs/decisions/0053)."""


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    settings = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
    app.command(context_settings=settings)(test)


def test(context: typer.Context) -> None:
    """Lint, types, fences, tests. With arguments: pytest alone, with these."""
    from lostwax.local import setup
    from lostwax.local.places import HOME, PROJECT

    try:
        setup.bring_browser()
    except setup.SetupFailed as failure:  # all but the tests of pages can go on
        typer.echo(f"no browser for the tests of pages: {failure}", err=True)
    if context.args:
        raise typer.Exit(subprocess.run([sys.executable, "-m", "pytest", *context.args], cwd=PROJECT).returncode)
    with ExitStack() as started:
        checks = [(name, started.enter_context(_begun(command, PROJECT))) for name, command in CHECKS]
        passed, unsteady = run_tests(["-m", "not pure"], TWO_AT_A_TIME, project=PROJECT, notes=HOME / "pytest")
        failed = [] if passed else ["pytest"]
        for name, (check, output) in checks:
            passed = check.wait() == 0
            output.seek(0)
            said = output.read().decode(errors="replace").rstrip()
            # Of what passed one line: the end is read first, and belongs to what failed.
            typer.echo(f"== {name}: {said.rpartition(chr(10))[2]}" if passed else f"== {name}\n{said}", err=True)
            failed += [] if passed else [name]
    for each in unsteady:
        typer.echo(f"unsteady, failed among the others and passed alone, to be mended: {each}", err=True)
    if failed:
        typer.echo(f"failed: {', '.join(failed)}", err=True)
        raise typer.Exit(1)


def run_tests(
    chosen: Sequence[str], together: Sequence[str], *, project: Path, notes: Path
) -> tuple[bool, Sequence[str]]:
    """Run the `chosen` tests `together`, and those that failed once more, alone and on servers of their own.

    Returns whether each passed in the end, and which needed the second try. `notes` is pytest's cache folder.
    """
    pytest = [sys.executable, "-m", "pytest", "-o", f"cache_dir={notes}", *chosen]
    first = subprocess.run([*pytest, "--cache-clear", *together], cwd=project).returncode
    if first != 1:  # passed, or broken in another way than by tests that failed
        return first == 0, ()
    failed = list(json.loads((notes / "v/cache/lastfailed").read_bytes()))
    if len(failed) > TRIED_AGAIN_AT_MOST:
        return False, ()
    typer.echo(f"tried again, alone: {', '.join(failed)}", err=True)
    again = subprocess.run([*pytest, "--last-failed", "--last-failed-no-failures=none"], cwd=project).returncode
    return again == 0, failed if again == 0 else ()


@contextmanager
def _begun(command: Sequence[str], project: Path) -> Iterator[tuple["subprocess.Popen[bytes]", IO[bytes]]]:
    """A check that has been started, and where what it says is kept; ended when it is not waited for."""
    with (
        TemporaryFile() as output,
        subprocess.Popen([sys.executable, *command], cwd=project, stdout=output, stderr=output) as check,
    ):
        try:
            yield check, output
        finally:
            check.kill()
