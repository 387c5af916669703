"""`run`: one service, in the foreground, with its settings from the environment."""

from importlib import import_module
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(run)


def run(service: Annotated[str, typer.Argument(help="E.g. orders; a wrong name lists all.")]) -> None:
    """Run one service until SIGTERM; the stack and production both start it by this."""
    from lostwax.local.credentials import SERVICES

    if service not in SERVICES:
        typer.echo(f"no service {service}: there are {', '.join(SERVICES)}", err=True)
        raise typer.Exit(2)
    import_module(f"lostwax.{service}.main").main()
