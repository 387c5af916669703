"""Rate limits that several processes share, at the price of a few microseconds a request.

The bucket of each name stands in Redis. A process leases tokens from it in blocks of about 100 ms' worth of what is
asked of it and spends them by itself, so Redis is asked ten times a second at most, not for each request. Without
Redis each process goes on alone at the full rate: a limit protects the service and must not be what stops it.
"""

import asyncio
import logging
import math
import time
from collections.abc import Sequence
from typing import Any

import msgspec
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

log = logging.getLogger(__name__)

_BLOCK_S = 0.1
_KEPT_S = 1.0
_TURNS = 5
_LEFT_ALONE_S = 1.0
_ASK_AGAIN_S = 1.0

# Takes up to `wanted` whole tokens from a bucket that fills at `rate` a second up to `burst`. A bucket that is not
# there is full. Times are the server's, so that processes' clocks do not matter. `most` are left by the
# reckoning of a process that went by itself. KEYS: bucket. ARGV: rate, burst, wanted, most. Returns tokens granted, and
# what is left (as text, it is a fraction).
_LEASE = """
local rate, burst, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1000000
local left = burst
local old = redis.call('GET', KEYS[1])
if old then
    local tokens, at = string.match(old, '^(%S+) (%S+)$')
    left = math.min(burst, tonumber(tokens) + math.max(0, now - tonumber(at)) * rate)
end
left = math.min(left, tonumber(ARGV[4]))
local granted = math.min(wanted, math.floor(left))
left = left - granted
local full_in_ms = math.ceil((burst - left) / rate * 1000) + 1000
redis.call('SET', KEYS[1], string.format('%.6f %.6f', left, now), 'PX', string.format('%.0f', full_in_ms))
return {granted, string.format('%.6f', left)}
"""


class Limit(msgspec.Struct, frozen=True):
    """`rate_per_s` in the long run, at most `burst` at once."""

    rate_per_s: float
    burst: int


class Verdict(msgspec.Struct, frozen=True):
    """Whether a request may go on. Refused: there is a token for it in `retry_in_s` seconds. `headers`: what the
    answer says of the limit."""

    allowed: bool
    headers: Sequence[tuple[bytes, bytes]]
    retry_in_s: float = 0.0


class _Bucket:
    """A process' part of a limit: the tokens that it holds, and what it knows of the shared bucket.

    `left` tokens were in the shared bucket at `left_at`; nothing is to be had before `empty_until`. `alone`: tokens
    were given without Redis, which has yet to be told.
    """

    __slots__ = (
        "_last_block",
        "_policy",
        "alone",
        "asked",
        "asked_since",
        "empty_until",
        "held",
        "held_until",
        "leasing",
        "left",
        "left_at",
        "limit",
        "waiting",
    )

    def __init__(self, limit: Limit, now: float) -> None:
        self.limit = limit
        self.held, self.held_until = 0, 0.0
        self.left, self.left_at = float(limit.burst), now
        self.asked, self.asked_since = 0, now
        self.waiting, self._last_block = 0, 1
        self.empty_until = 0.0
        self.alone = False
        self.leasing: asyncio.Task[None] | None = None
        window_s = max(1, round(limit.burst / limit.rate_per_s))
        self._policy = (b"ratelimit-policy", f'"client";q={limit.burst};w={window_s}'.encode())

    def left_now(self, now: float) -> float:
        return min(float(self.limit.burst), self.left + (now - self.left_at) * self.limit.rate_per_s)

    def block(self, now: float) -> int:
        """How many tokens to lease: for those who wait, and for what 100 ms will bring if it goes on as it did. Not
        much more than last time, for one quick pair of requests is no flood, and never so much that it is missed when
        it is forgotten."""
        wished = round(self.asked / max(1e-6, now - self.asked_since) * _BLOCK_S)
        most = max(self.limit.burst // 8, round(self.limit.rate_per_s * _BLOCK_S))
        self.asked, self.asked_since = 0, now
        self._last_block = max(1, self.waiting, min(wished, 2 * self._last_block, most))
        return min(self.limit.burst, self._last_block)

    def take_lease(self, wanted: int, granted: int, left: float, now: float) -> None:
        self.held = granted + (self.held if now < self.held_until else 0)
        self.held_until = now + _KEPT_S
        self.left, self.left_at = left, now
        if granted < wanted:
            self.empty_until = now + min(_ASK_AGAIN_S, max(0.0, 1.0 - left) / self.limit.rate_per_s)

    def verdict(self, allowed: bool, now: float) -> Verdict:
        rate, burst = self.limit.rate_per_s, self.limit.burst
        left = self.left_now(now)
        remaining = min(burst, self.held + int(left)) if allowed else 0
        full_in_s = math.ceil((burst - remaining) / rate)
        state = (b"ratelimit", b'"client";r=%d;t=%d' % (remaining, full_in_s))
        retry_in_s = 0.0 if allowed else max(self.empty_until - now, (1.0 - left) / rate, 0.0)
        return Verdict(allowed, (self._policy, state), retry_in_s)


class RateLimiter:
    """Limits by name. `prefix` is that of its keys in Redis. A request waits `wait_s` for Redis at most. Close it with
    `close`."""

    def __init__(self, url: str, prefix: str, *, wait_s: float = 0.05, most: int = 10_000) -> None:
        self._redis: Any = redis.asyncio.from_url(
            url, socket_connect_timeout=0.5, socket_timeout=0.5, max_connections=16, retry=Retry(NoBackoff(), 0)
        )
        self._script = self._redis.register_script(_LEASE)
        self._prefix, self._wait_s, self._most = prefix, wait_s, most
        self._buckets: dict[str, _Bucket] = {}
        self._away_until: float | None = None
        self.leases = 0

    async def take(self, name: str, limit: Limit) -> Verdict:
        """Take one token. Waits for Redis at most `wait_s`, and not again for a second after it did not answer."""
        now = time.monotonic()
        bucket = self._buckets.get(name)
        if bucket is None or bucket.limit != limit:
            bucket = self._new_bucket(name, limit, now)
        bucket.asked += 1
        if bucket.held <= 0 or now >= bucket.held_until:
            bucket.waiting += 1
            try:
                while True:
                    if bucket.held > 0 and now < bucket.held_until:
                        break
                    if now < bucket.empty_until:
                        return bucket.verdict(False, now)
                    if bucket.leasing is None:
                        bucket.leasing = asyncio.create_task(self._lease(name, bucket))
                    # Not awaited itself: whoever leaves meanwhile must not take the others' lease along.
                    await asyncio.wait([bucket.leasing])
                    now = time.monotonic()
            finally:
                bucket.waiting -= 1
        bucket.held -= 1
        return bucket.verdict(True, now)

    def _new_bucket(self, name: str, limit: Limit, now: float) -> _Bucket:
        if len(self._buckets) >= self._most:
            self._buckets = {n: b for n, b in self._buckets.items() if b.leasing is not None or b.held_until > now}
        bucket = self._buckets[name] = _Bucket(limit, now)
        return bucket

    async def _lease(self, name: str, bucket: _Bucket) -> None:
        try:
            now = time.monotonic()
            wanted = bucket.block(now)
            answer = None
            if self._away_until is None or now >= self._away_until:
                if self._away_until is not None:
                    self._away_until = now + _LEFT_ALONE_S  # one asks whether it is back, the others do not wait
                answer = await self._ask(name, bucket, wanted)
                now = time.monotonic()
            if answer is None:
                left = bucket.left_now(now)
                granted = min(wanted, int(left))
                bucket.alone = True
                answer = granted, left - granted
            bucket.take_lease(wanted, *answer, now)
        finally:
            bucket.leasing = None

    async def _ask(self, name: str, bucket: _Bucket, wanted: int) -> tuple[int, float] | None:
        """Tokens granted and left; None: Redis does not answer."""
        self.leases += 1
        limit = bucket.limit
        most = bucket.left_now(time.monotonic()) if bucket.alone else limit.burst
        arguments: list[str | int] = [repr(limit.rate_per_s), limit.burst, wanted, f"{most:.6f}"]
        call = asyncio.ensure_future(self._script(keys=[self._prefix + name], args=arguments))
        call.add_done_callback(
            lambda done: done.cancelled() or done.exception()
        )  # it may fail when nobody waits any more
        try:
            await asyncio.wait([call], timeout=self._wait_s)
            for _ in range(_TURNS):
                # The answer may be here already, and it was this process that was slow.
                if not call.done():
                    await asyncio.sleep(0)
            if not call.done():
                call.cancel()
                await asyncio.wait([call], timeout=self._wait_s)
                raise TimeoutError(f"no answer within {self._wait_s:g} s")
            granted, left = call.result()
        except (RedisError, OSError) as error:
            if self._away_until is None:
                log.warning("rate limits: Redis away, each process goes by itself", extra={"error": repr(error)})
            self._away_until = time.monotonic() + _LEFT_ALONE_S
            return None
        if self._away_until is not None:
            log.info("rate limits: Redis is back")
            self._away_until = None
        bucket.alone = False
        return int(granted), float(left)

    async def close(self) -> None:
        await self._redis.aclose()
