"""Claims that are held too long go back to the queue by themselves."""

import asyncio
import logging
from datetime import timedelta

from lostwax.kit.postgres import UNREACHABLE
from lostwax.mes import handlers
from lostwax.mes.handlers import Workshop

log = logging.getLogger(__name__)

LOOK_EVERY = timedelta(minutes=1)


async def run(workshop: Workshop, limit: timedelta) -> None:
    """Look for such claims every minute, or more often under a short `limit` (0: never), until cancelled. Several
    processes may do so at once."""
    if not limit:
        await asyncio.Event().wait()
    every = min(LOOK_EVERY, limit / 4)
    while True:
        await asyncio.sleep(every.total_seconds())
        try:
            count = await handlers.expire_claims(workshop, limit)
        except UNREACHABLE as error:
            log.warning("claim expiry: database away", extra={"error": repr(error)})
            continue
        if count:
            log.info("claims held too long", extra={"claims": count})
