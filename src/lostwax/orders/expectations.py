"""What channels have announced and Orders expects: takes announcements, grants rates, asks again for what is missing.

An order is created from its message alone; an announcement only lets Orders notice that a message is missing.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from uuid import UUID

import httpx

from lostwax.contracts.ids import bucket_of
from lostwax.kit.auth import ServiceSigner
from lostwax.kit.postgres import UNREACHABLE
from lostwax.kit.shards import Shard, ShardMap
from lostwax.orders import store

log = logging.getLogger(__name__)

_LOOK_EVERY_S = 2.0
_OVERDUE_S = 5.0
_ASK_AGAIN_S = 20.0
_MOST = 1000

UNHURRIED_S = 2.0
"""Below this delay of the requests' topic, channels may publish as fast as they can, and what is announced and has not
arrived counts as missing rather than as being on its way."""

SLOWEST_PER_S = 20.0


class Expectations:
    """`delay_s` is the age of the oldest request that has come and is not done; `handled` counts messages done."""

    def __init__(
        self,
        shards: ShardMap,
        channels: Mapping[str, str],
        signer: ServiceSigner,
        *,
        delay_s: Callable[[], float],
        handled: Callable[[], int],
    ) -> None:
        self._shards = shards
        self._channels = channels
        self._signer = signer
        self._delay_s = delay_s
        self._handled = handled
        self._seen = (time.monotonic(), 0)
        self._rate = 0.0
        self._look = asyncio.Event()
        self._look.set()

    async def announce(self, channel: str, order_ids: Sequence[UUID]) -> float | None:
        """Expect these orders of a channel; returns the rate a second that it may publish at, None for no limit.

        A shard that is away expects nothing: its orders wait in Kafka in any case.
        """
        by_shard: dict[int, list[UUID]] = {}
        for order_id in order_ids:
            by_shard.setdefault(self._shards.of(bucket_of(order_id)).number, []).append(order_id)
        for number, ids in by_shard.items():
            try:
                async with self._shards.shards[number].pool.acquire() as connection:
                    await store.announce(connection, ids, channel)
            except UNREACHABLE as error:
                log.warning("announced to a shard that is away", extra={"shard": number, "error": repr(error)})
        self._look.set()
        return self.granted()

    def granted(self) -> float | None:
        """No limit while requests are done as they come, else nearly what was done lately: then the delay shrinks."""
        now, handled = time.monotonic(), self._handled()
        since, before = self._seen
        if now - since >= 1.0:
            self._rate = (handled - before) / (now - since)
            self._seen = (now, handled)
        return None if self._delay_s() < UNHURRIED_S else max(SLOWEST_PER_S, 0.8 * self._rate)

    async def run(self) -> None:
        """While anything is expected, look for what does not come and ask its channel to send it again."""
        async with httpx.AsyncClient(timeout=10) as http:
            while True:
                await self._look.wait()
                self._look.clear()
                await asyncio.sleep(_LOOK_EVERY_S)
                for shard in self._shards.shards:
                    try:
                        if await self._look_at(shard, http):
                            self._look.set()
                    except UNREACHABLE as error:
                        log.warning("shard away", extra={"shard": shard.number, "error": repr(error)})
                        self._look.set()

    async def _look_at(self, shard: Shard, http: httpx.AsyncClient) -> bool:
        """Ask for what is overdue on a shard; whether anything is expected there still."""
        patient = self._delay_s() >= UNHURRIED_S
        async with shard.pool.acquire() as connection:
            overdue = await store.overdue(connection, _OVERDUE_S, _ASK_AGAIN_S, 0 if patient else _MOST)
            expecting = await store.expects_any(connection)
        for channel, order_ids in overdue.items():
            log.warning("announced and not arrived", extra={"channel": channel, "orders": len(order_ids)})
            url = self._channels.get(channel)
            if url is None:
                log.error("no address of a channel", extra={"channel": channel})
                continue
            try:
                response = await http.post(
                    f"{url}/v1/requests/resend",
                    json={"order_ids": [str(i) for i in order_ids]},
                    headers={"Authorization": f"Bearer {self._signer.token(channel)}"},
                )
                response.raise_for_status()
            except httpx.HTTPError as error:
                # Asked again after a while: asked_at says when.
                log.warning("channel away", extra={"channel": channel, "error": repr(error)})
        return expecting
