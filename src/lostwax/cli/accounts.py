"""`staff add, list, withdraw`: who may come in. Badges are shown once."""

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
    staff = typer.Typer(no_args_is_help=True)
    staff.command("add")(add_staff)
    staff.command("list")(list_staff)
    staff.command("withdraw")(withdraw_staff)
    app.add_typer(staff, name="staff", help="Sellers, operators, supervisors and administrators, and their badges.")


def add_staff(
    name: str,
    role: Annotated[str, typer.Option(help="seller, operator, supervisor or administrator.")],
    stack: StackName = "dev",
) -> None:
    """Let somebody of the staff in; prints the badge that they sign in with."""
    from lostwax.contracts.staff import Role
    from lostwax.crm import handlers
    from lostwax.kit.clock import utc_now

    if role not in list(Role):
        typer.echo(f"no role {role}: there are {', '.join(Role)}", err=True)
        raise typer.Exit(2)
    if not name.strip() or len(name) > 100:
        typer.echo("a name has 1 to 100 characters", err=True)
        raise typer.Exit(2)
    row, badge = in_database(
        "crm", stack, lambda connection: handlers.add_staff(connection, name, Role(role), utc_now())
    )
    typer.echo(f"{role:8} {row.staff_id}\nbadge    {badge}")


def list_staff(
    everybody: Annotated[bool, typer.Option("--all", help="Also those who were withdrawn.")] = False,
    stack: StackName = "dev",
) -> None:
    """Show who works here."""
    from lostwax.crm import store

    async def read(connection: "Connection") -> "list[store.StaffRow]":
        rows: list[store.StaffRow] = []
        while page := await store.staff_page(connection, rows[-1].staff_id if rows else None, 200):
            rows += page
        return rows

    for row in in_database("crm", stack, read):
        if row.withdrawn_at is None or everybody:
            ended = "" if row.withdrawn_at is None else f"  withdrawn {row.withdrawn_at:%Y-%m-%d %H:%M} UTC"
            typer.echo(f"{row.staff_id}  {row.role:13}  {row.name}{ended}")


def withdraw_staff(staff_id: str, stack: StackName = "dev") -> None:
    """End an account, for ever; whoever is signed in by it is refused at once."""
    from uuid import UUID

    from lostwax.crm import handlers
    from lostwax.kit.clock import utc_now
    from lostwax.kit.problems import Problem

    try:
        wanted = UUID(staff_id)
        row = in_database("crm", stack, lambda connection: handlers.withdraw_staff(connection, wanted, utc_now()))
    except (ValueError, Problem) as error:
        typer.echo(f"no such member of the staff: {staff_id}; see staff list", err=True)
        raise typer.Exit(1) from error
    typer.echo(f"withdrawn: {row.name}, {row.role}")


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
