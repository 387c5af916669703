"""`operator add`: who may work in the workshop. Badges are shown once."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

if TYPE_CHECKING:
    from lostwax.kit.postgres import Connection

T = TypeVar("T")

StackName = Annotated[
    str, typer.Option("--stack", help="Which local stack; with LOSTWAX_DATABASE_URL set, that database.")
]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    operator = typer.Typer(no_args_is_help=True)
    operator.command("add")(add_operator)
    app.add_typer(operator, name="operator", help="Operators and their badges.")


def add_operator(name: str, stack: StackName = "dev") -> None:
    """Let an operator in; prints the badge that they sign in with."""
    from lostwax.mes import handlers

    operator, badge = in_database("mes", stack, lambda connection: handlers.add_operator(connection, name))
    typer.echo(f"operator {operator.operator_id}\nbadge    {badge}")


def in_database(service: str, stack: str, work: "Callable[[Connection], Awaitable[T]]") -> T:
    """Run `work` on the service's database: LOSTWAX_DATABASE_URL's, else the local stack's."""
    import asyncpg

    from lostwax.local.places import STACKS
    from lostwax.local.stack import NotRunning, Stack

    dsn = os.environ.get("LOSTWAX_DATABASE_URL")
    if dsn is None:
        try:
            dsn = Stack.attach(STACKS / stack).env(service)["LOSTWAX_DATABASE_URL"]
        except NotRunning as error:
            typer.echo(f"no stack {stack} runs: ./lostwax up", err=True)
            raise typer.Exit(1) from error

    async def run() -> T:
        connection = await asyncpg.connect(dsn, timeout=5)
        try:
            return await work(connection)
        finally:
            await connection.close()

    return asyncio.run(run())
