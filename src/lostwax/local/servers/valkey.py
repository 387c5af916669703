"""Valkey as Redis: no persistence, and when memory is full it refuses writes instead of forgetting."""

import asyncio
from functools import partial
from pathlib import Path

from lostwax.local import places
from lostwax.local.credentials import Credentials
from lostwax.local.processes import Program
from lostwax.local.setup import write_private

SETTINGS = """\
bind 127.0.0.1
port {port}
requirepass {password}
dir {folder}
save ""
appendonly no
maxmemory 512mb
maxmemory-policy noeviction
"""


def program(folder: Path, port: int, credentials: Credentials) -> Program:
    """The one instance of a stack. Raises places.Missing when there is no binary."""
    home = folder / "redis"
    return Program(
        name="redis",
        kind="server",
        port=port,
        url=f"redis://127.0.0.1:{port}",
        command=[places.valkey_server(), str(home / "valkey.conf")],
        prepare=partial(_prepare, home, port, credentials),
        settle=partial(_ping, port, credentials),
        check=partial(_ping, port, credentials),
    )


def url(database: int, port: int, credentials: Credentials) -> str:
    """Where a service reaches its numbered database."""
    return f"redis://:{credentials.redis}@127.0.0.1:{port}/{database}"


def _prepare(home: Path, port: int, credentials: Credentials) -> None:
    home.mkdir(exist_ok=True)
    write_private(home / "valkey.conf", SETTINGS.format(port=port, password=credentials.redis, folder=home))


async def _ping(port: int, credentials: Credentials) -> None:
    """By hand: importing redis takes longer than Valkey takes to start."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"AUTH {credentials.redis}\r\nPING\r\n".encode())
        answer = [await reader.readline(), await reader.readline()]
        if answer != [b"+OK\r\n", b"+PONG\r\n"]:
            raise ConnectionError(f"redis answers {answer}")
    finally:
        writer.close()
