"""Where orders stand, and how long each hop took, read from Orders' own history by the audit's read-only role."""

from collections.abc import Sequence
from datetime import datetime

import asyncpg
import msgspec

from lostwax.contracts.orders import Status

# Seconds from the version before (for the first: from the channel's acceptance) to each version.
_HOPS = """
    SELECT status, at,
           extract(epoch FROM at - coalesce(lag(at) OVER (PARTITION BY order_id ORDER BY version),
                                            (body ->> 'submitted_at')::timestamptz))::float8 AS seconds
    FROM order_history
"""


class Hop(msgspec.Struct, frozen=True):
    """One hop: into which status, how often, times in seconds."""

    into: Status
    count: int
    p50_s: float
    p99_s: float


class Standing(msgspec.Struct, frozen=True):
    """Orders by status, hops by the status that they lead into, and the span of time of all of it."""

    by_status: dict[Status, int]
    hops: dict[Status, Hop]
    first: datetime | None
    last: datetime | None


def percentile(ordered: Sequence[float], share: float) -> float:
    """The nearest-rank percentile of sorted values."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


async def standing(shards: Sequence[str]) -> Standing:
    """Read all shards. Raises the database's own error when one is away."""
    by_status: dict[Status, int] = {}
    seconds: dict[Status, list[float]] = {}
    times: list[datetime] = []
    for dsn in shards:
        connection = await asyncpg.connect(dsn, timeout=5)
        try:
            for row in await connection.fetch("SELECT status, count(*) AS n FROM orders GROUP BY status"):
                status = Status(row["status"])
                by_status[status] = by_status.get(status, 0) + row["n"]
            for row in await connection.fetch(_HOPS):
                seconds.setdefault(Status(row["status"]), []).append(row["seconds"])
                times.append(row["at"])
        finally:
            await connection.close()
    hops = {}
    for status, values in seconds.items():
        values.sort()
        hops[status] = Hop(status, len(values), percentile(values, 0.5), percentile(values, 0.99))
    return Standing(by_status, hops, min(times, default=None), max(times, default=None))
