"""A channel's side of announcing: tells Orders which requests it has accepted, and obeys the rate that it is granted.

What was announced is remembered by a cursor over (transaction, id) that only moves over transactions that are surely
over, so that no request that commits late is passed over. Nothing in the path of an order waits for any of this.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from uuid import UUID

import asyncpg
import httpx
import msgspec

from lostwax.contracts.announcements import MOST, Announcement, Granted, digest_of
from lostwax.contracts.topics import ORDER_REQUESTS
from lostwax.kit.auth import ServiceSigner
from lostwax.kit.postgres import UNREACHABLE, Pool, let_go
from lostwax.kit.publishing import PublishingLimits

log = logging.getLogger(__name__)

_GATHER_S = 0.25
_UNSETTLED_S = 1.0
_ASK_AGAIN_S = 1.0
_LONGEST_PAUSE_S = 5.0


class NextBatch(msgspec.Struct, frozen=True):
    """Requests to be announced next. `more`: there are others, or transactions that are not over yet."""

    order_ids: list[UUID]
    cursor: tuple[int, UUID] | None
    more: bool


class Announcer:
    """Announces a channel's requests. `next_batch` reads on from the cursor, `move` stores the cursor and counts."""

    def __init__(
        self,
        pool: Pool,
        dsn: str,
        orders_url: str,
        signer: ServiceSigner,
        limits: PublishingLimits,
        *,
        next_batch: Callable[[Pool, int], Awaitable[NextBatch]],
        move: Callable[[Pool, NextBatch], Awaitable[None]],
    ) -> None:
        self._pool = pool
        self._dsn = dsn
        self._url = orders_url
        self._signer = signer
        self._limits = limits
        self._next_batch = next_batch
        self._move = move
        self._wake = asyncio.Event()
        self._granted: float | None = None

    async def run(self) -> None:
        """Announce until cancelled; database and Orders may come and go."""
        pause = 0.2
        async with httpx.AsyncClient(base_url=self._url, timeout=5) as http:
            while True:
                try:
                    connection = await asyncpg.connect(self._dsn, timeout=5)
                    try:
                        await connection.add_listener("outbox", lambda *_: self._wake.set())
                        connection.add_termination_listener(lambda *_: self._wake.set())
                        while not connection.is_closed():
                            await self._announce_all(http)
                            pause = 0.2
                            await self._rest()
                    finally:
                        await let_go(connection)
                except UNREACHABLE as error:
                    log.warning("announcing: database away", extra={"error": repr(error)})
                except (httpx.HTTPError, _NotTaken) as error:
                    # Intake and relay go on; Orders creates orders from the messages alone.
                    log.warning("announcing: Orders away", extra={"error": repr(error)})
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE_S)

    async def _announce_all(self, http: httpx.AsyncClient) -> None:
        while True:
            self._wake.clear()
            batch = await self._next_batch(self._pool, MOST)
            if batch.order_ids:
                await self._announce(http, batch)
            if not batch.more:
                return
            await asyncio.sleep(_GATHER_S if batch.order_ids else _UNSETTLED_S)

    async def _announce(self, http: httpx.AsyncClient, batch: NextBatch) -> None:
        body = Announcement(batch.order_ids, len(batch.order_ids), digest_of(batch.order_ids))
        response = await http.post(
            "/v1/announcements",
            content=msgspec.json.encode(body),
            headers={"Authorization": f"Bearer {self._signer.token('orders')}", "Content-Type": "application/json"},
        )
        if response.status_code != 202:
            raise _NotTaken(f"{response.status_code} {response.text[:200]}")
        self._granted = msgspec.json.decode(response.content, type=Granted).rate_per_s
        self._limits.grant(ORDER_REQUESTS.name, self._granted)
        await self._move(self._pool, batch)

    async def _rest(self) -> None:
        """Until there is something new; while slowed, ask again soon, for only Orders can lift that."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if self._granted is None else _ASK_AGAIN_S):
                await self._wake.wait()
        if self._granted is not None and not self._wake.is_set():
            self._granted = None
            self._limits.grant(ORDER_REQUESTS.name, None)
        await asyncio.sleep(_GATHER_S)


class _NotTaken(Exception):
    """Orders answered something else than 202."""
