"""Keeps staging empty: clears away what is in the model store or refused, and gives up what is never ordered. Forgets
old quotes, too."""

import asyncio
import logging
from datetime import timedelta

from lostwax.channel import models_store
from lostwax.channel.models import Models, staging_key
from lostwax.channel.models_store import Leftover
from lostwax.contracts import quotes
from lostwax.kit.objects import StorageAway
from lostwax.kit.postgres import UNREACHABLE, delete_older, session_lock

log = logging.getLogger(__name__)

_LOOK_EVERY_S = 3600.0
_AGAIN_S = 10.0
_BATCH = 100
_AWAY: tuple[type[BaseException], ...] = (StorageAway, *UNREACHABLE)


class Janitor:
    """Clears staging, and forgets quotes: at once when told that there is something to clear, else every hour; one
    process at a time."""

    def __init__(self, *, staging_days: int) -> None:
        self._kept = timedelta(days=staging_days)
        self._days = staging_days
        self._told = asyncio.Event()

    def look(self) -> None:
        """There is something to clear away."""
        self._told.set()

    async def run(self, models: Models) -> None:
        """Until cancelled. At rest it costs a query an hour."""
        while True:
            pause = _LOOK_EVERY_S
            self._told.clear()
            try:
                if not await self.clear(models):
                    pause = _AGAIN_S
            except _AWAY as error:
                log.warning("staging is not cleared", extra={"error": repr(error)})
                pause = _AGAIN_S
            try:
                async with asyncio.timeout(pause):
                    await self._told.wait()
            except TimeoutError:
                continue

    async def clear(self, models: Models) -> bool:
        """Do all that is to be done now; False when another process is at it. Raises StorageAway."""
        async with models.pool.acquire() as connection, session_lock(connection, models_store.JANITOR_LOCK) as mine:
            if not mine:
                return False
            while await self._expire(models):
                pass
            while await delete_older(connection, "quotes", "quote_id", models.now() - quotes.KEPT, _BATCH) == _BATCH:
                pass
            while found := await models_store.leftovers(connection, _BATCH):
                for leftover in found:
                    if leftover.multipart_id:
                        await models.staging.abort_multipart(leftover.key, leftover.multipart_id)
                    await models.staging.delete(leftover.key)
                # After the storage has done so: whoever dies in between does it again.
                await models_store.forget_leftovers(connection, found)
        return True

    async def _expire(self, models: Models) -> int:
        """Give up a batch of uploads that were never ordered; returns how many."""
        why = f"It was not ordered within {self._days} days of its registration."
        async with models.pool.acquire() as connection, connection.transaction():
            expired = await models_store.expire_uploads(connection, models.now() - self._kept, why, _BATCH)
            await models_store.add_leftovers(
                connection,
                [
                    Leftover(staging_key(client_id, row.sha256, row.upload), row.multipart_id or "")
                    for client_id, row in expired
                ],
            )
        if expired:
            log.info("uploads given up", extra={"models": len(expired)})
        return len(expired)
