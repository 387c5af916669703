"""Kafka: one broker that is its own controller (KRaft), from a formatted template, with its classes archived."""

import asyncio
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from lostwax.local import places, setup
from lostwax.local.processes import Program, copy_tree

OTHER_PORTS = ("kafka-controller",)


def program(folder: Path, ports: Mapping[str, int], *, reached_at: int) -> Program:
    """The one broker of a stack. Raises places.Missing when set-up has not been run.

    `reached_at`: the port that it tells its clients, which is another than its own when a proxy stands before it.
    """
    home = folder / "kafka"
    properties = home / "broker.properties"
    bootstrap = f"127.0.0.1:{ports['kafka']}"
    archive = f"-XX:SharedArchiveFile={places.KAFKA_ARCHIVE}" if places.KAFKA_ARCHIVE.exists() else ""
    return Program(
        name="kafka",
        kind="server",
        port=ports["kafka"],
        url=bootstrap,
        command=[*setup.kafka_command(archive=archive), "kafka.Kafka", str(properties)],
        prepare=partial(_prepare, home, ports, reached_at),
        settle=partial(_settle, bootstrap, ports["kafka"]),
        check=partial(_connect, ports["kafka"]),
        nice=5,
    )


def _prepare(home: Path, ports: Mapping[str, int], reached_at: int) -> None:
    if not places.KAFKA_FORMATTED.exists():
        raise places.Missing("no formatted Kafka storage: run ./lostwax once")
    home.mkdir(exist_ok=True)
    data = home / "data"
    copy_tree(places.KAFKA_FORMATTED, data)
    text = setup.broker_properties(port=ports["kafka"], controller_port=ports["kafka-controller"], data=data)
    own, told = (f"advertised.listeners=PLAINTEXT://127.0.0.1:{port}," for port in (ports["kafka"], reached_at))
    (home / "broker.properties").write_text(text.replace(own, told))


async def _connect(port: int) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.close()


async def _settle(bootstrap: str, port: int) -> None:
    """Make the topics of contracts.topics that are not there yet."""
    await _connect(port)
    await asyncio.to_thread(_ensure_topics, bootstrap)


def _ensure_topics(bootstrap: str) -> None:
    from lostwax.contracts import capture, topics
    from lostwax.kit.kafka import ensure_topics

    # a short limit: a thread cannot be cancelled, and the supervisor's end waits for it
    ensure_topics(bootstrap, (*topics.ALL, *topics.TELEMETRY, *capture.TOPICS), timeout_s=5)
