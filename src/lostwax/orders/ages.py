"""How long orders have been where they are: the longest in each status, measured on every shard."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import datetime

from asyncpg import UndefinedTableError

from lostwax.contracts.metrics import ORDERS_OLDEST
from lostwax.contracts.orders import Status
from lostwax.kit import metrics
from lostwax.kit.postgres import UNREACHABLE
from lostwax.kit.shards import Shard
from lostwax.orders import store

log = logging.getLogger(__name__)

EVERY_S = 15.0
_AWAY: tuple[type[BaseException], ...] = (UndefinedTableError, *UNREACHABLE)
_oldest = metrics.gauge(ORDERS_OLDEST)


async def run(shards: Sequence[Shard], now: Callable[[], datetime]) -> None:
    """Measure until cancelled. A shard that is away, or not migrated yet, is left out until it is back."""
    away: set[int] = set()
    while True:
        since: dict[Status, datetime] = {}
        for shard in shards:
            try:
                async with shard.pool.acquire() as connection:
                    found = await store.longest_in(connection)
            except _AWAY as error:
                if shard.number not in away:
                    log.warning("ages not measured", extra={"shard": shard.number, "error": repr(error)})
                away.add(shard.number)
                continue
            away.discard(shard.number)
            since |= {status: min(at, since.get(status, at)) for status, at in found.items()}
        at = now()
        for status in store.OPEN:
            seconds = (at - since[status]).total_seconds() if status in since else 0.0
            _oldest.set(max(0.0, seconds), status.value)
        await asyncio.sleep(EVERY_S)
