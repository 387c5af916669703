"""Kafka Connect with Debezium: change capture. Beside the stack, not in it: nothing that takes orders waits for it."""

import asyncio
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from lostwax.contracts.capture import ROLE, tables_of
from lostwax.local import places, setup
from lostwax.local.credentials import Credentials
from lostwax.local.processes import Program
from lostwax.local.servers import postgres

NAME = "connect"


def sources() -> dict[str, tuple[str, str]]:
    """What is captured, under the names of its connectors: which instance, and which of its databases."""
    found = {name: ("pg-main", name) for name in postgres.INSTANCES["pg-main"] if tables_of(name)}
    return found | {f"orders-{number}": (shard, "orders") for number, shard in enumerate(postgres.SHARDS)}


def password_variable(source: str) -> str:
    """Where Connect finds the password of a captured database, so that it stands in no connector's settings."""
    return f"CAPTURE_PASSWORD_{source.replace('-', '_').upper()}"


def program(folder: Path, ports: Mapping[str, int], credentials: Credentials) -> Program:
    """One worker, distributed: its connectors are registered over HTTP and remembered in Kafka."""
    properties = folder / "connect.properties"
    return Program(
        name=NAME,
        kind="server",
        port=ports[NAME],
        url=f"http://127.0.0.1:{ports[NAME]}",
        command=[
            *setup.kafka_command(archive="", libs=places.CONNECT_LIBS),
            "org.apache.kafka.connect.cli.ConnectDistributed",
            str(properties),
        ],
        prepare=partial(_prepare, properties, ports),
        environment={password_variable(source): credentials.passwords[ROLE] for source in sources()},
        settle=partial(_ready, ports[NAME]),
        check=partial(_ready, ports[NAME]),
        aside=True,
        nice=7,
    )


def _prepare(properties: Path, ports: Mapping[str, int]) -> None:
    if not places.CONNECT_LIBS.exists():
        raise places.Missing("no Kafka Connect: run ./lostwax once")
    text = (places.KAFKA_SOURCE / "connect.properties").read_text()
    for word, value in (("KAFKA", f"127.0.0.1:{ports['kafka']}"), ("PORT", ports[NAME])):
        text = text.replace(f"@{word}@", str(value))
    properties.write_text(text)


async def _ready(port: int) -> None:
    """Its own GET /health answers 200; raises ConnectionError when it answers something else."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        status = await reader.readline()
        if status.split(b" ")[1:2] != [b"200"]:
            raise ConnectionError(f"Connect answers {status.decode(errors='replace').strip()!r}")
    finally:
        writer.close()
