"""The servers of a local stack: how each is started, made ready for the services, and stopped."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from lostwax.local.credentials import Credentials
from lostwax.local.processes import Program
from lostwax.local.servers import kafka, postgres, seaweedfs, toxiproxy, valkey

PORTS = (*postgres.INSTANCES, "redis", "kafka", *kafka.OTHER_PORTS, "s3", *seaweedfs.OTHER_PORTS)
"""Every port that the servers of a stack listen on, by name."""

PROXIED = (*postgres.INSTANCES, "redis", "kafka", "s3")
"""The servers that a proxied stack has behind its proxy."""

PORTS_WHEN_PROXIED = (*PORTS, *toxiproxy.ports(PROXIED))


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
    return [toxiproxy.program(ports, PROXIED), *seen]
