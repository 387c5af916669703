"""The servers of a local stack: how each is started, made ready for the services, and stopped."""

from collections.abc import Mapping
from pathlib import Path

from lostwax.local.credentials import Credentials
from lostwax.local.processes import Program
from lostwax.local.servers import kafka, postgres, seaweedfs, valkey

PORTS = (*postgres.INSTANCES, "redis", "kafka", *kafka.OTHER_PORTS, "s3", *seaweedfs.OTHER_PORTS)
"""Every port that the servers of a stack listen on, by name."""


def all_servers(folder: Path, ports: Mapping[str, int], credentials: Credentials) -> list[Program]:
    """The programs of all servers of the stack in `folder`; none of them needs another to be started first."""
    return [
        *(postgres.program(name, folder, ports[name], credentials) for name in postgres.INSTANCES),
        valkey.program(folder, ports["redis"], credentials),
        kafka.program(folder, ports),
        seaweedfs.program(folder, ports, credentials),
    ]
