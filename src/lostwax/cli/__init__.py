"""The command line, `./lostwax`. Each file here holds the commands of one subject.

To add commands: a file with a function `register(app: typer.Typer) -> None`, and its name in COMMANDS. Such a file
imports only the standard library and typer at its top, the rest inside its commands, so that --help stays quick.
"""

from importlib import import_module

import typer

COMMANDS = (
    "stack", "accounts", "partners", "demo", "chaos", "order", "quote", "trace", "top", "audit", "dead", "rebuild",
    "bench", "topics", "capture", "schemas", "run", "checks",
)  # fmt: skip
"""Files of this folder, in the order in which --help shows their commands."""


def application() -> typer.Typer:
    """The whole command line, every file of COMMANDS registered."""
    app = typer.Typer(
        name="lostwax",
        help="Lostwax, the order platform for made-to-order jewellers.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    for name in COMMANDS:
        import_module(f"{__name__}.{name}").register(app)
    return app


def main() -> None:
    """Run the command line; the entry point of the package."""
    application()(prog_name="./lostwax")
