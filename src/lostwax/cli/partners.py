"""`partner ..`: who may come in by the partner API, with which keys, and how fast. Keys are shown once."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, TypeVar
from uuid import UUID

import typer

from lostwax.cli.accounts import StackName, in_database

if TYPE_CHECKING:
    from lostwax.kit.postgres import Connection
    from lostwax.partner_api.keys_store import ClientRow

T = TypeVar("T")

Who = Annotated[str, typer.Argument(help="The partner's name, or their client id where several have that name.")]
KeyId = Annotated[UUID, typer.Argument(help="As `partner key list` shows it; never the key itself.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    partner, key = typer.Typer(no_args_is_help=True), typer.Typer(no_args_is_help=True)
    for command in (add, suspend, limit):
        partner.command()(command)
    partner.command("list")(list_partners)
    key.command("add")(add_key)
    key.command("list")(list_keys)
    key.command()(rotate)
    key.command()(withdraw)
    partner.add_typer(key, name="key", help="A partner's API keys.")
    app.add_typer(partner, name="partner", help="Partners, their API keys and limits.")


def add(
    name: str,
    unlimited: Annotated[bool, typer.Option(help="Without a limit on their requests.")] = False,
    stack: StackName = "dev",
) -> None:
    """Let a partner in; prints their client id and first API key, which may do everything."""
    from lostwax.partner_api.keys import add_client

    client, key = in_database("partner_api", stack, lambda c: add_client(c, name, unlimited=unlimited))
    typer.echo(f"client {client.client_id}\nkey    {key}")


def list_partners(stack: StackName = "dev") -> None:
    """Who is let in."""
    from lostwax.partner_api import keys_store

    for row in in_database("partner_api", stack, keys_store.clients):
        suspended = f"  suspended {row.suspended_at:%Y-%m-%d %H:%M}" if row.suspended_at else ""
        typer.echo(f"{row.client.client_id}  {row.client.name}  {_limit_of(row)}{suspended}")


def suspend(
    name: Who, lift: Annotated[bool, typer.Option(help="Let them in again.")] = False, stack: StackName = "dev"
) -> None:
    """Let a partner in no more, at once. Their orders go on, and their web hooks are told of them."""
    from lostwax.partner_api import keys_store

    async def work(connection: "Connection") -> None:
        row = await _client(connection, name)
        await keys_store.suspend_client(connection, row.client.client_id, suspended=not lift)

    in_database("partner_api", stack, work)


def limit(
    name: Who,
    rate: Annotated[float | None, typer.Option(min=0.001, help="Requests a second in the long run.")] = None,
    burst: Annotated[int | None, typer.Option(min=1, help="Requests at once; four seconds' worth if left out.")] = None,
    unlimited: Annotated[bool, typer.Option(help="No limit.")] = False,
    default: Annotated[bool, typer.Option(help="What the settings of the partner API say.")] = False,
    stack: StackName = "dev",
) -> None:
    """Set how fast a partner may send requests; in force at once. Without options: shows it."""
    from lostwax.kit.rate_limit import Limit
    from lostwax.partner_api import keys_store

    if (rate is not None) + unlimited + default > 1 or (burst is not None and rate is None):
        raise typer.BadParameter("give --rate (with or without --burst), or --unlimited, or --default")
    own: Limit | None = None if rate is None else Limit(rate, max(1, round(4 * rate)) if burst is None else burst)

    async def work(connection: "Connection") -> "ClientRow":
        row = await _client(connection, name)
        if own is not None or unlimited or default:
            await keys_store.set_limit(connection, row.client.client_id, own=not default, limit=own)
        return await _client(connection, name)

    typer.echo(_limit_of(in_database("partner_api", stack, work)))


def _limit_of(row: "ClientRow") -> str:
    if not row.own_limit:
        return "the usual limit"
    return "no limit" if row.limit is None else f"{row.limit.rate_per_s:g}/s, {row.limit.burst} at once"


def add_key(
    name: Who,
    key_name: Annotated[str, typer.Option("--name", help="What it is for.")] = "by the workshop",
    scope: Annotated[list[str] | None, typer.Option(help="What it may do; again for more. Left out: all.")] = None,
    days: Annotated[int | None, typer.Option(min=1, help="It ends after so many days.")] = None,
    stack: StackName = "dev",
) -> None:
    """One more key for a partner."""
    from lostwax.kit.clock import utc_now
    from lostwax.partner_api import keys
    from lostwax.partner_api.domain import ALL_SCOPES

    for wanted in scope or ():
        if wanted not in ALL_SCOPES:
            raise typer.BadParameter(f"no scope {wanted}; there are {', '.join(ALL_SCOPES)}")
    expires_at = None if days is None else utc_now() + timedelta(days=days)

    async def work(connection: "Connection") -> tuple[UUID, str]:
        client_id = (await _client(connection, name)).client.client_id
        scopes = tuple(dict.fromkeys(scope or ALL_SCOPES))
        row, key = await keys.add_key(
            connection, client_id, key_name, scopes, expires_at, utc_now(), may_grant=keys.anything
        )
        return row.key_id, key

    key_id, key = _done(stack, work)
    typer.echo(f"key id {key_id}\nkey    {key}")


def list_keys(name: Who, stack: StackName = "dev") -> None:
    """A partner's keys, without those that ended more than 30 days ago."""
    from lostwax.kit.clock import utc_now
    from lostwax.partner_api import keys_store
    from lostwax.partner_api.domain import Key, why_ended

    async def work(connection: "Connection") -> "list[Key]":
        return await keys_store.keys_of(connection, (await _client(connection, name)).client.client_id)

    for key in in_database("partner_api", stack, work):
        ended = why_ended(key, utc_now())
        end = "works" if key.expires_at is None else f"until {key.expires_at:%Y-%m-%d %H:%M}"
        used = "never used" if key.last_used_at is None else f"used {key.last_used_at:%Y-%m-%d %H:%M}"
        typer.echo(f"{key.key_id}  {key.name}  {ended or end}, {used}\n    {', '.join(key.scopes)}")


def rotate(
    key_id: KeyId,
    grace: Annotated[float, typer.Option(min=0, max=168, help="Hours that the old key goes on.")] = 24,
    stack: StackName = "dev",
) -> None:
    """A new key in place of this one, which ends after the grace."""
    from lostwax.kit.clock import utc_now
    from lostwax.partner_api import keys

    async def work(connection: "Connection") -> tuple[UUID, str]:
        client_id = await _client_of_key(connection, key_id)
        _, new, key = await keys.rotate_key(
            connection, client_id, key_id, timedelta(hours=grace), utc_now(), may_grant=keys.anything
        )
        return new.key_id, key

    new_id, key = _done(stack, work)
    typer.echo(f"key id {new_id}\nkey    {key}")


def withdraw(
    key_id: KeyId,
    even_last: Annotated[bool, typer.Option(help="Even if nobody can manage their keys then.")] = False,
    stack: StackName = "dev",
) -> None:
    """End a key at once."""
    from lostwax.kit.clock import utc_now
    from lostwax.partner_api import keys

    async def work(connection: "Connection") -> None:
        client_id = await _client_of_key(connection, key_id)
        await keys.withdraw_key(connection, client_id, key_id, utc_now(), even_last=even_last)

    _done(stack, work)


def _done(stack: str, work: "Callable[[Connection], Awaitable[T]]") -> T:
    """`work` in the database; what it refuses is said as the API would say it."""
    from lostwax.kit.problems import Problem

    try:
        return in_database("partner_api", stack, work)
    except Problem as problem:
        typer.echo(f"{problem.title}. {problem.detail or ''}", err=True)
        raise typer.Exit(1) from problem


async def _client(connection: "Connection", name: str) -> "ClientRow":
    from lostwax.partner_api import keys_store

    found = [c for c in await keys_store.clients(connection) if name in (c.client.name, str(c.client.client_id))]
    if len(found) == 1:
        return found[0]
    if found:
        typer.echo(f"several partners are called {name}, give a client id:", err=True)
        for row in found:
            typer.echo(f"  {row.client.client_id}  since {row.created_at:%Y-%m-%d %H:%M}", err=True)
    else:
        typer.echo(f"no partner is called {name}; see `lostwax partner list`", err=True)
    raise typer.Exit(1)


async def _client_of_key(connection: "Connection", key_id: UUID) -> UUID:
    from lostwax.partner_api import keys_store

    client_id = await keys_store.client_of_key(connection, key_id)
    if client_id is None:
        typer.echo("no key has this id; see `lostwax partner key list`", err=True)
        raise typer.Exit(1)
    return client_id
