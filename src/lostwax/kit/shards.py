"""Shards: which PostgreSQL owns which buckets. The truth stands in `bucket_owner` on each shard and is checked in
every write; processes keep a copy of the map."""

import logging
from collections.abc import Iterable, Sequence

from lostwax.contracts.ids import BUCKETS, PARTITIONS, partition_of
from lostwax.kit.postgres import UNREACHABLE, Connection, Pool

log = logging.getLogger(__name__)


class NotOwner(Exception):
    """The shard does not own these buckets (any more): reload the map and try again."""


class Shard:
    def __init__(self, number: int, dsn: str, pool: Pool) -> None:
        self.number, self.dsn, self.pool = number, dsn, pool


def first_owner(bucket: int, shards: int) -> int:
    """Number of the shard that owns a bucket before any was moved: whole partitions, in order."""
    return partition_of(bucket) * shards // PARTITIONS


async def assign_first_buckets(connection: Connection, number: int, shards: int) -> None:
    """Fill `bucket_owner` of a fresh shard; does nothing on one that has been assigned."""
    await connection.execute(
        """
        INSERT INTO bucket_owner (bucket, state)
        SELECT b.bucket, CASE WHEN b.owner = $2 THEN 'owned' ELSE 'away' END
        FROM unnest($1::int[], $3::int[]) AS b(bucket, owner)
        WHERE NOT EXISTS (SELECT FROM bucket_owner)
        """,
        list(range(BUCKETS)),
        number,
        [first_owner(b, shards) for b in range(BUCKETS)],
    )


async def check_owned(connection: Connection, buckets: Iterable[int]) -> None:
    """Within the transaction that writes: raises NotOwner unless this shard owns every one of `buckets`."""
    wanted = sorted(set(buckets))
    owned = await connection.fetchval(
        "SELECT count(*) FROM bucket_owner WHERE bucket = ANY($1) AND state = 'owned'", wanted
    )
    if owned != len(wanted):
        raise NotOwner(f"{len(wanted) - owned} of the buckets {wanted[:8]} are not owned here")


class ShardMap:
    """This process' copy of the map. A shard that is away keeps the buckets it had, or those it had at first."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        self.shards = tuple(shards)
        self._owner = [first_owner(b, len(shards)) for b in range(BUCKETS)]

    def of(self, bucket: int) -> Shard:
        return self.shards[self._owner[bucket]]

    async def reload(self, only: Shard | None = None) -> None:
        """Ask every shard (or one) which buckets it owns."""
        for shard in self.shards if only is None else (only,):
            try:
                rows = await shard.pool.fetch("SELECT bucket FROM bucket_owner WHERE state = 'owned'")
            except UNREACHABLE as error:
                log.warning("shard away", extra={"shard": shard.number, "error": repr(error)})
                continue
            for row in rows:
                self._owner[row["bucket"]] = shard.number
