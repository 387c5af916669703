"""What the databases say while things break: how much is on its way, and whether new orders come through again."""

import asyncio
from collections.abc import Sequence
from uuid import UUID

import asyncpg
import msgspec

from lostwax.audit.sources import CHANNELS, Databases
from lostwax.contracts.orders import Status
from lostwax.demo.run import FINAL

ANSWER_LIMIT_S = 5.0

_THROUGH = """
    SELECT order_id, version FROM order_history
    WHERE order_id >= $1 AND status = 'MANUFACTURING_APPROVED' ORDER BY order_id, version LIMIT 1
"""
_CHANNELS = tuple(CHANNELS)
_KNOWN = "SELECT FROM requests WHERE order_id = $1 AND version >= $2"
_READERS = {
    "mes": "SELECT FROM orders WHERE order_id = $1 AND version >= $2",
    "crm": "SELECT FROM orders WHERE order_id = $1 AND version >= $2",
}


UNAPPROVED = (Status.SUBMITTED, Status.PRICE_CALCULATED, Status.PRICE_FAILED)


class Counted(msgspec.Struct, frozen=True):
    """Orders that Orders knows: how many in all, without a price yet, not approved yet, and finished for good."""

    known: int
    unpriced: int
    unapproved: int
    finished: int


def first_id_of(at: float) -> UUID:
    """The lowest id that an order can have which was accepted `at`, in seconds since 1970, or later."""
    return UUID(int=int(at * 1000) << 80)


async def _ask(dsn: str, sql: str, *arguments: object) -> list[asyncpg.Record]:
    async with asyncio.timeout(ANSWER_LIMIT_S):
        connection = await asyncpg.connect(dsn, timeout=ANSWER_LIMIT_S)
        try:
            return await connection.fetch(sql, *arguments)
        finally:
            connection.terminate()  # a polite end may hang on a connection that is hurt


async def count(shards: Sequence[str]) -> Counted:
    """Count on every shard. Raises the database's own error, or TimeoutError, when one is away."""
    by_status: dict[Status, int] = {}
    answers = await asyncio.gather(
        *(_ask(dsn, "SELECT status, count(*) AS n FROM orders GROUP BY status") for dsn in shards)
    )
    for row in (row for rows in answers for row in rows):
        status = Status(row["status"])
        by_status[status] = by_status.get(status, 0) + row["n"]
    return Counted(
        known=sum(by_status.values()),
        unpriced=by_status.get(Status.SUBMITTED, 0),
        unapproved=sum(by_status.get(status, 0) for status in UNAPPROVED),
        finished=sum(by_status.get(status, 0) for status in FINAL),
    )


async def newest_order(shard: str) -> UUID | None:
    """The order that the shard received last. Raises the database's own error, or TimeoutError."""
    rows = await _ask(shard, "SELECT order_id FROM orders ORDER BY order_id DESC LIMIT 1")
    return UUID(int=rows[0]["order_id"].int) if rows else None


async def comes_through(databases: Databases, since: float) -> bool:
    """Whether on every shard an order that was accepted after `since` is approved, and every reader knows that: the
    operators' database, the sellers' and the channel's. A database that is away is a no."""
    try:
        answers = await asyncio.gather(*(_ask(dsn, _THROUGH, first_id_of(since)) for dsn in databases.shards))
        if not all(answers):
            return False
        seen = await asyncio.gather(
            *(
                _ask(getattr(databases, reader), sql, row["order_id"], row["version"])
                for reader, sql in _READERS.items()
                for (row,) in answers
            )
        )
        of_a_channel = await asyncio.gather(
            *(
                _ask(getattr(databases, channel), _KNOWN, row["order_id"], row["version"])
                for (row,) in answers
                for channel in _CHANNELS
            )
        )
        width = len(_CHANNELS)
        by_its_channel = [any(of_a_channel[n : n + width]) for n in range(0, len(of_a_channel), width)]
        return all(seen) and all(by_its_channel)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return False
