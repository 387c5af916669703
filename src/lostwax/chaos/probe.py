"""What the APIs answer while a disk is full: a small write each, again and again. Done, or not now; nothing else."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from hashlib import sha256
from uuid import UUID

import asyncpg
import httpx

from lostwax.chaos.eyes import ANSWER_LIMIT_S, newest_order
from lostwax.contracts.ids import new_id

EVERY_S = 0.25

_NEEDS_ROOM = "SELECT count(*) FROM (SELECT n FROM generate_series(1, 50000) AS n ORDER BY md5(n::text)) AS spilt"
"""Sorts some megabytes with little memory, so in a file, as one may who only reads."""


class Probe:
    """Asks Orders to tell an order of one shard again, and the partner API to register a model.

    `answers` counts them by who answered and status (`no answer`: none within 5 s); `wrong` holds, in words, each that
    is neither done nor a 503 problem with Retry-After, `refused` how many were 503; `felt` is set as soon as the
    database itself found no room. (The APIs may find room for small writes for long: in pages that are free again, in
    WAL that was made before.)
    """

    def __init__(self, full: str, shard: str, urls: Mapping[str, str], tokens: Mapping[str, str]) -> None:
        """`full` and `shard`: the addresses of a database on the full disk and of the shard; `urls` and `tokens` of
        `orders` and `partner_api`."""
        self._full, self._shard, self._urls, self._tokens = full, shard, urls, tokens
        self.answers: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.felt = asyncio.Event()
        self.refused = 0

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[None]:
        """Ask for as long as this is entered, the database by a connection that is there already: on a full disk it may
        have no room for another one."""
        database = await self._connected()
        task = asyncio.create_task(self._run(database))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            if database is not None:
                database.terminate()

    async def _connected(self) -> "asyncpg.Connection[asyncpg.Record] | None":
        try:
            return await asyncpg.connect(self._full, timeout=ANSWER_LIMIT_S)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return None  # then nobody can say that it is full, and the run says that

    async def _run(self, database: "asyncpg.Connection[asyncpg.Record] | None") -> None:
        order_id = await self._an_order()
        async with httpx.AsyncClient(timeout=ANSWER_LIMIT_S) as http:
            while True:
                if database is not None and not self.felt.is_set():
                    await self._need_room(database)
                asked: list[Coroutine[object, object, None]] = [self._register_model(http)]
                if order_id is not None:
                    asked.append(self._tell_again(http, order_id))
                await asyncio.gather(*asked)
                await asyncio.sleep(EVERY_S)

    async def _an_order(self) -> UUID | None:
        try:
            return await newest_order(self._shard)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return None

    async def _need_room(self, database: "asyncpg.Connection[asyncpg.Record]") -> None:
        try:
            await database.execute("SET work_mem = '64kB'")
            await database.execute(_NEEDS_ROOM, timeout=ANSWER_LIMIT_S)
        except asyncpg.DiskFullError:
            self.answers["the database: no room"] += 1
            self.felt.set()
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return  # away for another reason, or busy; asked again

    async def _tell_again(self, http: httpx.AsyncClient, order_id: UUID) -> None:
        await self._ask(http, "orders", f"/v1/orders/{order_id}/republish", None)

    async def _register_model(self, http: httpx.AsyncClient) -> None:
        body = {"name": "ring.stl", "size_bytes": 84_000, "sha256": sha256(new_id().bytes).hexdigest()}
        await self._ask(http, "partner_api", "/v1/models", body)

    async def _ask(self, http: httpx.AsyncClient, service: str, path: str, body: object) -> None:
        headers = {"Authorization": f"Bearer {self._tokens[service]}"}
        try:
            answer = await http.post(self._urls[service] + path, json=body, headers=headers)
        except httpx.TransportError:
            self.answers[f"{service}: no answer"] += 1
            return
        self.answers[f"{service}: {answer.status_code}"] += 1
        self.refused += answer.status_code == 503
        is_problem = answer.headers.get("content-type") == "application/problem+json"
        if answer.status_code >= 300 and not (
            answer.status_code == 503 and is_problem and "retry-after" in answer.headers
        ):
            self.wrong.append(f"{service} answers {answer.status_code} {answer.text[:200]}")
