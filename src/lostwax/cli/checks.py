"""`test`: every check and every test, as CI runs them."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
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


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    settings = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
    app.command(context_settings=settings)(test)


def test(context: typer.Context) -> None:
    """Lint, types, fences, tests. With arguments: pytest alone, with these."""
    from lostwax.local import setup
    from lostwax.local.places import PROJECT

    try:
        setup.bring_browser()
    except setup.SetupFailed as failure:  # all but the tests of pages can go on
        typer.echo(f"no browser for the tests of pages: {failure}", err=True)
    with ExitStack() as started:
        checks = [] if context.args else [(name, started.enter_context(_begun(command))) for name, command in CHECKS]
        chosen = context.args or ["-m", "not pure", *TWO_AT_A_TIME]
        tests = subprocess.run([sys.executable, "-m", "pytest", *chosen], cwd=PROJECT, check=False)
        failed = [] if tests.returncode == 0 else ["pytest"]
        for name, (check, output) in checks:
            passed = check.wait() == 0
            output.seek(0)
            said = output.read().decode(errors="replace").rstrip()
            # Of what passed one line: the end is read first, and belongs to what failed.
            typer.echo(f"== {name}: {said.rpartition(chr(10))[2]}" if passed else f"== {name}\n{said}", err=True)
            failed += [] if passed else [name]
    if failed:
        typer.echo(f"failed: {', '.join(failed)}", err=True)
        raise typer.Exit(1)


@contextmanager
def _begun(command: Sequence[str]) -> Iterator[tuple["subprocess.Popen[bytes]", IO[bytes]]]:
    """A check that has been started, and where what it says is kept; ended when it is not waited for."""
    from lostwax.local.places import PROJECT

    with (
        TemporaryFile() as output,
        subprocess.Popen([sys.executable, *command], cwd=PROJECT, stdout=output, stderr=output) as check,
    ):
        try:
            yield check, output
        finally:
            check.kill()
