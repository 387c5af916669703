"""LISTEN: hear of a change in the database at once, for as long as the process lives."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

import asyncpg

from lostwax.kit.postgres import UNREACHABLE, OwnConnection, let_go

log = logging.getLogger(__name__)

Heard = Callable[[OwnConnection, Sequence[str] | None], Awaitable[None]]
"""Gets the connection that listens, and the payloads that came; None right after connecting, when anything may have
changed unheard."""


async def follow(dsn: str, channel: str, heard: Heard) -> None:
    """Call `heard` after connecting and after notifications, until cancelled; the database may come and go."""
    pause = 0.2
    while True:
        try:
            connection = await asyncpg.connect(dsn, timeout=5)
            try:
                payloads: list[str] = []
                something = asyncio.Event()

                def note(
                    *notification: object,
                    payloads: list[str] = payloads,
                    something: asyncio.Event = something,
                ) -> None:
                    payloads.append(str(notification[3]))
                    something.set()

                connection.add_termination_listener(lambda *_, something=something: something.set())
                await connection.add_listener(channel, note)
                await heard(connection, None)
                pause = 0.2
                while True:
                    await something.wait()
                    something.clear()
                    if connection.is_closed():
                        break
                    taken = payloads[:]
                    payloads.clear()
                    await heard(connection, taken)
            finally:
                await let_go(connection)
        except UNREACHABLE as error:
            log.warning("listening: database away", extra={"channel": channel, "error": repr(error)})
        await asyncio.sleep(pause)
        pause = min(pause * 2, 5)
