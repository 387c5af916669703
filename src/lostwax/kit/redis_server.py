"""Redis, asked by scripts on connections that know which run of the server they speak to.

A server that was restarted, or another one in its place, breaks its connections; a fresh one learns another run id.
What is written under a run id is therefore believed only by those who speak to that very run: an old snapshot,
restored, speaks for a run that is over.
"""

import asyncio
import hashlib
import re
from collections.abc import Sequence
from typing import Any

from redis.asyncio.connection import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError, ResponseError

_RUN_ID = re.compile(rb"^run_id:(\S+)", re.MULTILINE)

REDIS_AWAY: tuple[type[BaseException], ...] = (RedisError, OSError)
"""What Redis says, or does not, when it cannot do what it was asked (TimeoutError is an OSError)."""


class Script:
    """A Lua script. It is given the run id of the server as ARGV[1], before the caller's arguments."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


class RedisServer:
    """At most `most` connections to the server at `url`; each question is answered within `limit_s` seconds."""

    def __init__(self, url: str, scripts: Sequence[Script], *, limit_s: float = 0.4, most: int = 32) -> None:
        self._factory: Any = ConnectionPool.from_url(
            url, socket_timeout=None, socket_connect_timeout=limit_s, retry=Retry(NoBackoff(), 0), protocol=2
        )
        self._scripts = scripts
        self._limit_s = limit_s
        self._free = asyncio.Semaphore(most)
        self._idle: list[tuple[Any, str]] = []

    async def run(self, script: Script, keys: Sequence[str], *arguments: str | bytes | int) -> Any:
        """The script's answer. Raises REDIS_AWAY's errors, within the limit; what was asked may then be done still."""
        async with asyncio.timeout(self._limit_s), self._free:
            while self._idle:
                try:
                    return await self._ask(*self._idle.pop(), script, keys, arguments)
                except (NoScriptError, RedisError, OSError) as error:
                    if isinstance(error, ResponseError) and not isinstance(error, NoScriptError):
                        raise
                    # Broken while it was idle, and then so are the others: once more on a fresh one.
                    await self._drop_idle()
            return await self._ask(*await self._connect(), script, keys, arguments)

    async def run_id(self) -> str:
        """Which run of the server answers now. Raises REDIS_AWAY's errors."""
        async with asyncio.timeout(self._limit_s):
            connection, run_id = await self._connect()
            self._idle.append((connection, run_id))
            return run_id

    async def _ask(
        self, connection: Any, run_id: str, script: Script, keys: Sequence[str], arguments: Sequence[str | bytes | int]
    ) -> Any:
        whole = False
        try:
            await connection.send_command(
                "EVALSHA", script.digest, len(keys), *keys, run_id, *arguments, check_health=False
            )
            answer = await connection.read_response()
            whole = True
            return answer
        except ResponseError as error:
            whole = not isinstance(error, NoScriptError)
            raise
        finally:
            if whole:
                self._idle.append((connection, run_id))
            else:
                await connection.disconnect(nowait=True)

    async def _connect(self) -> tuple[Any, str]:
        connection = self._factory.make_connection()
        try:
            await connection.connect()
            await connection.send_command("INFO", "server", check_health=False)
            found = _RUN_ID.search(await connection.read_response())
            if found is None:
                raise RedisError("INFO server shows no run_id")
            run_id = found[1].decode()
            for script in self._scripts:
                await connection.send_command("SCRIPT", "LOAD", script.text, check_health=False)
                await connection.read_response()
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        return connection, run_id

    async def _drop_idle(self) -> None:
        idle, self._idle = self._idle, []
        for connection, _ in idle:
            await connection.disconnect(nowait=True)

    async def close(self) -> None:
        await self._drop_idle()
