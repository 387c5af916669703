"""What happens to old telemetry, on schedule: OpenSearch as it comes has no such schedule of its own."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from lostwax.telemetry import indices
from lostwax.telemetry.clients import BadQuery, OpenSearch, SearchAway
from lostwax.telemetry.indices import Stream

log = logging.getLogger(__name__)

EVERY_S = 3600.0
_AGAIN_S = 5.0


async def run(
    search: OpenSearch, kept: Sequence[tuple[Stream, timedelta]], *, replicas: int, now: Callable[[], datetime]
) -> None:
    """Prepare the streams, then tidy them every hour, until cancelled. Any number of processes may do so at once: each
    step asks OpenSearch for what is so already."""
    away = False
    while True:
        try:
            await search.prepare([stream for stream, _ in kept], replicas=replicas)
            for stream, age in kept:
                await tidy(search, stream, age, now())
        except (SearchAway, BadQuery) as error:
            if not away:
                log.warning("streams not tidied, trying again", extra={"error": str(error)})
            away = True
            await asyncio.sleep(_AGAIN_S)
        else:
            away = False
            await asyncio.sleep(EVERY_S)


async def tidy(search: OpenSearch, stream: Stream, kept: timedelta, now: datetime) -> list[str]:
    """A new backing index if it is time, and the removal of those that are past it; returns their names."""
    await search.roll_over(stream, indices.rollover_conditions(kept / timedelta(days=1)))
    removed = indices.outlived(await search.backing_indices(stream), kept, now)
    for name in removed:
        await search.delete(name)
        log.info("old telemetry removed", extra={"index": name})
    return removed
