"""`test`: every check and every test, as CI runs them."""

import subprocess
import sys
import time

import typer

CHECKS = (
    ("ruff", ("-m", "ruff", "check")),
    ("mypy", ("-m", "mypy")),
    ("import-linter", ("-c", "from importlinter.cli import lint_imports_command; lint_imports_command()")),
)


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    settings = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
    app.command(context_settings=settings)(test)


def test(context: typer.Context) -> None:
    """Lint, types, fences, tests. With arguments: pytest alone, with these."""
    from lostwax.local.places import PROJECT

    failed = []
    if not context.args:
        for name, command in CHECKS:
            began = time.monotonic()
            typer.echo(f"== {name}", err=True)
            if subprocess.run([sys.executable, *command], cwd=PROJECT, check=False).returncode != 0:
                failed.append(name)
            typer.echo(f"== {name}: {time.monotonic() - began:.1f} s", err=True)
    if subprocess.run([sys.executable, "-m", "pytest", *context.args], cwd=PROJECT, check=False).returncode != 0:
        failed.append("pytest")
    if failed:
        typer.echo(f"failed: {', '.join(failed)}", err=True)
        raise typer.Exit(1)
