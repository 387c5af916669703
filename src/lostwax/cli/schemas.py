"""`schemas`: write out the contracts, as files that people and other programs read."""

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(schemas)


def schemas(
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail when it would change something.")] = False,
) -> None:
    """Generate schemas/: JSON Schemas of the messages, AsyncAPI, and OpenAPI of each service. Fails when a message
    type, or an HTTP API that programs call, breaks what the last commit, main or the last release has of it."""
    from lostwax.schemas import folder

    stale = folder.differences() if check else []
    for line in stale:
        typer.echo(f"schemas/{line}; run ./lostwax schemas", err=True)
    if not check:
        folder.write()
    today = folder.documents()
    broken = list(dict.fromkeys(s for base in folder.bases() for s in folder.broken_since(base, today)))
    for line in broken:
        typer.echo(f"breaks within one version: {line}", err=True)
    if broken:
        typer.echo("Make a new version beside the old one: docs/how-to/add-an-event.md", err=True)
    calls = list(dict.fromkeys(s for base in folder.bases() for s in folder.calls_broken_since(base, today)))
    for line in calls:
        typer.echo(f"breaks programs that call it: {line}", err=True)
    if stale or broken or calls:
        raise typer.Exit(1)
    typer.echo(f"{len(today)} files in schemas/ are as the contracts say")
