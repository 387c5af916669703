"""The servers of a local stack: how each is started, made ready for the services, and stopped."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from lostwax.local.credentials import Credentials
from lostwax.local.processes import Program
from lostwax.local.servers import connect, kafka, mailbox, opensearch, postgres, seaweedfs, toxiproxy, valkey

PORTS = (
    *postgres.INSTANCES,
    "redis",
    "kafka",
    *kafka.OTHER_PORTS,
    "s3",
    *seaweedfs.OTHER_PORTS,
    opensearch.NAME,
    *opensearch.OTHER_PORTS,
    connect.NAME,
    mailbox.NAME,
    *mailbox.OTHER_PORTS,
)
"""Every port that the servers of a stack listen on, by name."""

PROXIED = (*postgres.INSTANCES, "redis", "kafka", "s3")
"""The servers that a proxied stack has behind its proxy."""

CALLED = ("orders",)
"""The services that other services come to through the proxy, in a proxied stack."""

PORTS_WHEN_PROXIED = (*PORTS, *toxiproxy.ports(PROXIED, CALLED))

FOR: Mapping[str, str] = {opensearch.NAME: "telemetry", connect.NAME: "reporting"}
"""Servers that only one service has a use for: they are started when it is."""


def names() -> tuple[str, ...]:
    """Every server of a stack but the proxy and the mailbox, which only people and letters come to."""
    return tuple(dict.fromkeys((*PROXIED, *FOR)))


def of_none(services: Sequence[str]) -> set[str]:
    """The servers that none of these services has a use for."""
    return {server for server, service in FOR.items() if service not in services}


def all_servers(
    folder: Path, ports: Mapping[str, int], credentials: Credentials, *, proxied: bool = False
) -> list[Program]:
    """The programs of all servers of the stack in `folder`; none of them needs another to be started first.

    `proxied`: each listens on a port of its own behind the proxy that has its usual one.
    """
    own = {**ports, **{name: ports[toxiproxy.behind(name)] for name in PROXIED}} if proxied else ports
    programs = [
        *(postgres.program(name, folder, own[name], credentials) for name in postgres.INSTANCES),
        valkey.program(folder, own["redis"], credentials),
        kafka.program(folder, own, reached_at=ports["kafka"]),
        seaweedfs.program(folder, own, credentials),
        opensearch.program(folder, own),
        connect.program(folder, ports, credentials),
        mailbox.program(folder, ports),
    ]
    if not proxied:
        return programs
    seen = [
        replace(
            program,
            port=ports[program.name],
            url=program.url.replace(f":{own[program.name]}", f":{ports[program.name]}"),
        )
        for program in programs
    ]
    return [toxiproxy.program(ports, PROXIED, CALLED), *seen]
