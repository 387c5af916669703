"""How fast each topic may be published: a token bucket for each topic, set through HTTP, kept in the database."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Annotated

import msgspec
from msgspec import Meta

from lostwax.kit.listening import follow
from lostwax.kit.postgres import OwnConnection, Pool


class Publishing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Limit of one topic. `rate_per_s` None is unlimited; `burst` messages may go at once; `paused` stops all."""

    rate_per_s: Annotated[float, Meta(gt=0, le=1_000_000)] | None = None
    burst: Annotated[int, Meta(ge=1, le=1_000_000)] = 1000
    paused: bool = False


UNLIMITED = Publishing()


class TokenBucket:
    """Grants messages at `rate_per_s`, at most `burst` saved up. `share` is this relay's part of the whole rate."""

    def __init__(self, limit: Publishing, share: float, now: float) -> None:
        self._limit = limit
        self._rate = None if limit.rate_per_s is None else limit.rate_per_s * share
        self._capacity = max(1.0, limit.burst * share)
        self._tokens = self._capacity
        self._at = now

    @property
    def limit(self) -> Publishing:
        return self._limit

    def available(self, now: float, most: int) -> int:
        """How many messages may be sent now, at most `most`."""
        if self._limit.paused:
            return 0
        if self._rate is None:
            return most
        self._tokens = min(self._capacity, self._tokens + (now - self._at) * self._rate)
        self._at = now
        return min(most, int(self._tokens))

    def spend(self, count: int) -> None:
        if self._rate is not None:
            self._tokens -= count

    def seconds_to_next(self) -> float | None:
        """Seconds until one more token, or None when only a change of the limit can bring one."""
        if self._limit.paused or self._rate is None:
            return None
        return max(0.0, (1 - self._tokens) / self._rate)


class PublishingLimits:
    """This process' copy of the limits, kept current by LISTEN; the last known ones hold while the database is away.

    `on_change` callbacks are called in the event loop and must not block.
    """

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._limits: dict[str, Publishing] = {}
        self._granted: dict[str, float | None] = {}
        self._callbacks: list[Callable[[], None]] = []
        self._known = asyncio.Event()

    async def known(self) -> None:
        """Wait until the limits have been read for the first time: until then nothing may be taken for unlimited."""
        await self._known.wait()

    def of(self, topic: str) -> Publishing:
        """The limit in force: what was set, and no faster than what the topic's reader has granted."""
        limit = self._limits.get(topic, UNLIMITED)
        granted = self._granted.get(topic)
        if granted is None or (limit.rate_per_s is not None and limit.rate_per_s <= granted):
            return limit
        return Publishing(rate_per_s=granted, burst=min(limit.burst, max(1, int(granted))), paused=limit.paused)

    def set_of(self, topic: str) -> Publishing:
        """The limit as it was set, whatever is granted."""
        return self._limits.get(topic, UNLIMITED)

    def grant(self, topic: str, rate_per_s: float | None) -> None:
        """How fast the topic's reader can take it now; None lifts the grant."""
        if self._granted.get(topic) != rate_per_s:
            self._granted[topic] = rate_per_s
            for callback in self._callbacks:
                callback()

    @property
    def all(self) -> Mapping[str, Publishing]:
        return self._limits

    def on_change(self, callback: Callable[[], None]) -> None:
        self._callbacks.append(callback)

    async def run(self) -> None:
        """Follow the table until cancelled."""
        await follow(self._dsn, "publishing", self._reload)

    async def _reload(self, connection: OwnConnection, _: object) -> None:
        rows = await connection.fetch("SELECT topic, rate_per_s, burst, paused FROM publishing")
        self._limits = {r["topic"]: Publishing(r["rate_per_s"], r["burst"], r["paused"]) for r in rows}
        self._known.set()
        for callback in self._callbacks:
            callback()


async def set_limit(pool: Pool, topic: str, limit: Publishing) -> None:
    """Store a topic's limit and tell every relay of this database."""
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(
            """
            INSERT INTO publishing (topic, rate_per_s, burst, paused) VALUES ($1, $2, $3, $4)
            ON CONFLICT (topic) DO UPDATE SET rate_per_s = $2, burst = $3, paused = $4, set_at = now()
            """,
            topic,
            limit.rate_per_s,
            limit.burst,
            limit.paused,
        )
        await connection.execute("NOTIFY publishing")
