"""Redis as the MES uses it: the operators' lists, rebuilt from the database whenever they are not to be trusted.

One generation of keys is current; its name stands under `mes:generation`. A Redis that lost it (flushed, restarted)
is not to be trusted: `page` says so by raising Untrusted, and a new generation is built beside and then swapped in.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
import redis.asyncio
from redis.exceptions import RedisError

from lostwax.contracts.ids import new_id
from lostwax.kit.postgres import UNREACHABLE
from lostwax.mes.domain import Card, ListName, Placed

log = logging.getLogger(__name__)

REDIS_AWAY: tuple[type[BaseException], ...] = (RedisError, OSError)
_GENERATION = "mes:generation"
_OFF_LIST_S = 24 * 3600

# Put an order's card on the list where it belongs, unless a newer view of it is there already.
# KEYS: card, the lists. ARGV: order id, rank, index of its list in KEYS (0: none), score, card as JSON, seconds to
# remember an order that is on no list (its rank must outlive late, older views).
_PLACE = """
local old = redis.call('GET', KEYS[1])
if old and tonumber(string.match(old, '^%d+')) >= tonumber(ARGV[2]) then return 0 end
local target = tonumber(ARGV[3])
for i = 2, #KEYS do
    if i == target then redis.call('ZADD', KEYS[i], ARGV[4], ARGV[1]) else redis.call('ZREM', KEYS[i], ARGV[1]) end
end
if target > 0 then redis.call('SET', KEYS[1], ARGV[2] .. '|' .. ARGV[5])
else redis.call('SET', KEYS[1], ARGV[2] .. '|', 'EX', ARGV[6]) end
return 1
"""

_card = msgspec.json.Decoder(Card)
_encode = msgspec.json.Encoder().encode
Snapshot = Callable[[], AbstractAsyncContextManager[AsyncIterator[Placed]]]


class Untrusted(Exception):
    """Redis is away or does not hold the current generation: ask the database."""


def _score(due_at: datetime) -> int:
    """Milliseconds since 1970: exact in the doubles that Redis keeps."""
    return int(due_at.astimezone(UTC).timestamp() * 1000)


class Lists:
    """The lists in Redis. `snapshot` opens all orders on lists, from the database, for a rebuild."""

    def __init__(self, url: str, snapshot: Snapshot) -> None:
        self._redis: Any = redis.asyncio.from_url(
            url, socket_timeout=0.5, socket_connect_timeout=0.5, max_connections=64, decode_responses=False
        )
        self._place = self._redis.register_script(_PLACE)
        self._snapshot = snapshot
        self._current: str | None = None
        self._building: str | None = None
        self._rebuild_wanted = asyncio.Event()
        self._rebuild_wanted.set()
        self.rebuilds = 0

    @property
    def trusted(self) -> bool:
        return self._current is not None

    async def push(self, orders: Sequence[Placed]) -> None:
        """Show these orders where they stand now. Never fails: what Redis does not take is made good by a rebuild."""
        generations = [g for g in (self._current, self._building) if g is not None]
        if not orders or not generations:
            # Before the first generation there is nothing to update; its snapshot is taken after this commit.
            return
        try:
            async with asyncio.timeout(2):
                for generation in generations:
                    await self._put(generation, orders)
        except REDIS_AWAY as error:
            self._distrust(f"a change could not be shown: {error!r}")

    async def _put(self, generation: str, orders: Sequence[Placed]) -> None:
        async with self._redis.pipeline(transaction=False) as pipe:
            lists = [_list_key(generation, name) for name in ListName]
            for placed in orders:
                target = 0 if placed.list is None else 2 + list(ListName).index(ListName(placed.list))
                await self._place(
                    keys=[f"mes:{generation}:card:{placed.card.order_id}", *lists],
                    args=[
                        str(placed.card.order_id),
                        placed.rank,
                        target,
                        _score(placed.card.due_at),
                        _encode(placed.card),
                        _OFF_LIST_S,
                    ],
                    client=pipe,
                )
            await pipe.execute()

    async def page(self, list_name: ListName, after: tuple[datetime, UUID] | None, limit: int) -> list[Card]:
        """Cards of a list by due date, from above `after`. Raises Untrusted."""
        generation = self._current
        if generation is None:
            raise Untrusted("being rebuilt")
        try:
            return await self._page(generation, list_name, after, limit)
        except REDIS_AWAY as error:
            self._distrust(repr(error))
            raise Untrusted(repr(error)) from error

    async def _page(
        self, generation: str, list_name: ListName, after: tuple[datetime, UUID] | None, limit: int
    ) -> list[Card]:
        key = _list_key(generation, list_name)
        low = _score(after[0]) if after else "-inf"
        last = str(after[1]) if after else ""
        # Equal scores are ordered by member, so what is at `low` up to `last` was on the page before.
        members: list[tuple[bytes, float]] = []
        offset = 0
        while len(members) < limit:
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.get(_GENERATION)
                pipe.zrange(key, low, "+inf", byscore=True, offset=offset, num=limit + 1, withscores=True)
                known, found = await pipe.execute()
            if known is None or known.decode() != generation:
                self._distrust("the generation is gone")
                raise Untrusted("the generation is gone")
            members += [(m, score) for m, score in found if not (after and score == low and m.decode() <= last)]
            if len(found) < limit + 1:
                break
            offset += len(found)
        members = members[:limit]
        if not members:
            return []
        values = await self._redis.mget([f"mes:{generation}:card:{m.decode()}" for m, _ in members])
        # A card that left the list between the two trips has no body any more: it is not shown, and the page is filled
        # up from after the last one, as a page that is not full says that it is the last.
        bodies = [v.split(b"|", 1)[1] for v in values if v is not None]
        cards = [_card.decode(b) for b in bodies if b]
        if len(cards) < len(members) == limit:
            member, score = members[-1]
            end = (datetime.fromtimestamp(score / 1000, UTC), UUID(member.decode()))
            cards += await self._page(generation, list_name, end, limit - len(cards))
        return cards

    def _distrust(self, why: str) -> None:
        if self._current is not None:
            log.warning("lists come from the database now", extra={"why": why})
        self._current = None
        self._rebuild_wanted.set()

    async def run(self) -> None:
        """Rebuild whenever it is wanted, until cancelled; at start always, for what a crash may have left unshown."""
        while True:
            await self._rebuild_wanted.wait()
            self._rebuild_wanted.clear()
            try:
                await self._rebuild()
            except (*REDIS_AWAY, *UNREACHABLE) as error:
                log.warning("lists cannot be rebuilt now", extra={"error": repr(error)})
                self._rebuild_wanted.set()
                await asyncio.sleep(0.5)

    async def _rebuild(self) -> None:
        """Build a generation from the database while live changes go to it too, then swap it in."""
        started = asyncio.get_running_loop().time()
        generation = str(new_id())
        count = 0
        self._building = generation
        try:
            async with self._snapshot() as orders:
                chunk: list[Placed] = []
                async for placed in orders:
                    chunk.append(placed)
                    count += 1
                    if len(chunk) == 500:
                        await self._put(generation, chunk)
                        chunk = []
                if chunk:
                    await self._put(generation, chunk)
            if self._rebuild_wanted.is_set():
                return  # a change could not be shown meanwhile: once more
            await self._redis.set(_GENERATION, generation)
            self._current = generation
        finally:
            self._building = None
        self.rebuilds += 1
        seconds = round(asyncio.get_running_loop().time() - started, 3)
        log.info("lists rebuilt", extra={"orders": count, "seconds": seconds})
        await self._drop_others(generation)

    async def _drop_others(self, generation: str) -> None:
        """Drop the generation before, and what was written to lost or unfinished ones: nothing else would ever."""
        keep = (_GENERATION.encode(), f"mes:{generation}:".encode())
        async for key in self._redis.scan_iter(match="mes:*", count=1000):
            if not key.startswith(keep):
                await self._redis.unlink(key)

    async def close(self) -> None:
        await self._redis.aclose()


def _list_key(generation: str, name: ListName) -> str:
    return f"mes:{generation}:list:{name}"
