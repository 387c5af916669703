"""`topics`: make the Kafka topics, as production does before the services start."""

import os
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(topics)


def topics(
    replication: Annotated[int, typer.Option(min=1, help="Copies of each partition.")] = 3,
    bootstrap: Annotated[str | None, typer.Option(help="Default: LOSTWAX_KAFKA_BOOTSTRAP.")] = None,
) -> None:
    """Create what is missing of the topics and their dead-letter topics; leaves those that exist as they are."""
    from lostwax.contracts import capture
    from lostwax.contracts.topics import ALL, TELEMETRY
    from lostwax.kit.kafka import ensure_topics

    address = bootstrap or os.environ.get("LOSTWAX_KAFKA_BOOTSTRAP")
    if address is None:
        typer.echo("give --bootstrap or set LOSTWAX_KAFKA_BOOTSTRAP", err=True)
        raise typer.Exit(2)
    wanted = (*ALL, *TELEMETRY, *capture.TOPICS)
    ensure_topics(address, wanted, replication=replication)
    typer.echo(f"{len(wanted)} topics, each with its dead-letter topic")
