"""The mail server of a stack: takes what services send and shows it on a page."""

import asyncio
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from lostwax.local.processes import Program

NAME = "mail"
"""Its page; what takes letters is one of OTHER_PORTS."""

SMTP = "mail-smtp"
OTHER_PORTS = (SMTP,)


def program(folder: Path, ports: Mapping[str, int]) -> Program:
    """The one mail server of a stack."""
    return Program(
        name=NAME,
        kind="server",
        port=ports[NAME],
        url=f"http://127.0.0.1:{ports[NAME]}",
        command=[
            *(sys.executable, "-m", "lostwax.local.mailbox", "--folder", str(folder / NAME)),
            *("--smtp-port", str(ports[SMTP]), "--http-port", str(ports[NAME])),
        ],
        settle=partial(_greeted, ports),
        check=partial(_greeted, ports),
        aside=True,
        nice=7,
    )


async def _greeted(ports: Mapping[str, int]) -> None:
    """It greets whoever comes with a letter, and its page is there."""
    reader, writer = await asyncio.open_connection("127.0.0.1", ports[SMTP])
    try:
        if not (await reader.readline()).startswith(b"220"):
            raise ConnectionError("no greeting by SMTP")
        writer.write(b"QUIT\r\n")
        await writer.drain()
    finally:
        writer.close()
    _, page = await asyncio.open_connection("127.0.0.1", ports[NAME])
    page.close()
