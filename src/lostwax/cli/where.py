"""Which Kafka a command speaks to."""

import os
from typing import Annotated

import typer

StackName = Annotated[
    str, typer.Option("--stack", help="Which local stack; with LOSTWAX_KAFKA_BOOTSTRAP set, that broker.")
]


def kafka_address(stack: str) -> str:
    """The environment's, else the local stack's. Ends the command with 2 when no such stack runs."""
    from lostwax.local.places import STACKS
    from lostwax.local.stack import NotRunning, Stack

    if "LOSTWAX_KAFKA_BOOTSTRAP" in os.environ:
        return os.environ["LOSTWAX_KAFKA_BOOTSTRAP"]
    try:
        return Stack.attach(STACKS / stack).env("orders")["LOSTWAX_KAFKA_BOOTSTRAP"]
    except NotRunning as error:
        typer.echo(f"no stack {stack} runs: ./lostwax up", err=True)
        raise typer.Exit(2) from error
