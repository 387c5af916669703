"""The rate limiter on the real Redis: shared by processes, leased in blocks, and alone when Redis is away."""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import redis.asyncio
from tests.builders import wait_for

from lostwax.contracts.ids import new_id
from lostwax.kit.rate_limit import Limit, RateLimiter
from lostwax.local.stack import Stack


@pytest.fixture
def url(stack: Stack) -> str:
    return stack.env("partner_api")["LOSTWAX_REDIS_URL"]


@pytest.fixture
async def limiter(url: str) -> AsyncIterator[RateLimiter]:
    made = RateLimiter(url, f"test:{new_id()}:", wait_s=5)
    yield made
    await made.close()


@pytest.fixture
async def server(url: str) -> AsyncIterator[Any]:
    client = redis.asyncio.from_url(url)
    yield client
    await client.aclose()


async def allowed(limiter: RateLimiter, name: str, limit: Limit, times: int) -> int:
    return sum([(await limiter.take(name, limit)).allowed for _ in range(times)])


async def test_the_burst_may_go_at_once_and_no_more(limiter: RateLimiter) -> None:
    limit = Limit(rate_per_s=0.1, burst=7)
    assert await allowed(limiter, "a", limit, 20) == 7
    assert await allowed(limiter, "b", limit, 3) == 3
    refused = await limiter.take("a", limit)
    assert 0 < refused.retry_in_s <= 10


async def test_two_processes_share_one_limit(url: str) -> None:
    prefix, limit = f"test:{new_id()}:", Limit(rate_per_s=200, burst=200)
    async with AsyncExitStack() as resources:
        began = time.monotonic()

        async def press() -> int:
            limiter = RateLimiter(url, prefix, wait_s=5)  # a busy machine is no Redis away
            resources.push_async_callback(limiter.close)
            passed = 0
            while time.monotonic() < began + 1.2:
                verdict = await limiter.take("a", limit)
                passed += verdict.allowed
                if not verdict.allowed:
                    await asyncio.sleep(min(verdict.retry_in_s, 0.02))
            return passed

        passed = await asyncio.gather(press(), press())
        most = limit.burst + limit.rate_per_s * (time.monotonic() - began)
    assert 0.9 * most <= sum(passed) <= most + 1
    assert min(passed) > 0


async def test_many_at_once_wait_for_one_lease(limiter: RateLimiter) -> None:
    verdicts = await asyncio.gather(*(limiter.take("a", Limit(0.1, 50)) for _ in range(60)))
    assert sum(v.allowed for v in verdicts) == 50
    # The second finds out that there is nothing left.
    assert limiter.leases <= 2


async def test_blocks_grow_with_what_is_asked(limiter: RateLimiter) -> None:
    limit = Limit(rate_per_s=100_000, burst=100_000)
    assert await allowed(limiter, "a", limit, 5_000) == 5_000
    assert limiter.leases < 1_000


async def test_refusals_cost_redis_nothing(limiter: RateLimiter) -> None:
    limit = Limit(rate_per_s=0.01, burst=1)
    await limiter.take("a", limit)
    assert not (await limiter.take("a", limit)).allowed
    before = limiter.leases
    assert await allowed(limiter, "a", limit, 200) == 0
    assert limiter.leases <= before + 1


async def test_leased_tokens_are_forgotten_when_they_are_not_used(url: str, server: Any) -> None:
    prefix, limit = f"test:{new_id()}:", Limit(rate_per_s=10, burst=100)
    hoarder = RateLimiter(url, prefix)
    try:
        await asyncio.gather(*(hoarder.take("a", limit) for _ in range(5)))
        bucket = hoarder._buckets["a"]
        bucket.held, bucket.held_until = 50, time.monotonic() + 0.05
        await asyncio.sleep(0.06)
        before = hoarder.leases
        assert (await hoarder.take("a", limit)).allowed
        assert hoarder.leases == before + 1
        assert bucket.held < 50
    finally:
        await hoarder.close()


async def test_a_flushed_redis_has_full_buckets(url: str, server: Any, limiter: RateLimiter) -> None:
    limit = Limit(rate_per_s=2, burst=3)
    assert await allowed(limiter, "a", limit, 6) == 3
    for key in await server.keys("test:*"):
        await server.delete(key)
    await server.script_flush()

    async def again() -> bool:
        return (await limiter.take("a", limit)).allowed

    await wait_for(again, 5)


async def test_a_bucket_does_not_stay_in_redis_for_ever(server: Any, limiter: RateLimiter) -> None:
    await limiter.take("a", Limit(rate_per_s=10, burst=20))
    (ttl,) = [await server.pttl(key) for key in await server.keys(limiter._prefix + "*")]
    assert 0 < ttl <= 3_100


async def test_another_limit_holds_at_once(limiter: RateLimiter) -> None:
    assert await allowed(limiter, "a", Limit(0.1, 2), 3) == 2
    assert await allowed(limiter, "b", Limit(1_000_000, 50), 10) == 10
    assert await allowed(limiter, "b", Limit(0.1, 1), 10) <= 1


@asynccontextmanager
async def a_way_to_redis(url: str) -> AsyncIterator[Any]:
    """A port that leads to Redis; while `way.blocked`, it takes everything and answers nothing."""

    class Way:
        blocked = False
        asked = 0

    way: Any = Way()
    target = re.search(r"@([\d.]+):(\d+)/", url)
    assert target is not None
    writers: list[asyncio.StreamWriter] = []

    async def lead(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(target[1], int(target[2]))
        writers.extend((writer, back))

        async def forward() -> None:
            while data := await there.read(65536):
                writer.write(data)

        task = asyncio.create_task(forward())
        while data := await reader.read(65536):
            way.asked += b"EVALSHA" in data
            if not way.blocked:
                back.write(data)
        task.cancel()

    listening = await asyncio.start_server(lead, "127.0.0.1", 0)
    way.url = url.replace(target[2], str(listening.sockets[0].getsockname()[1]))
    yield way
    listening.close()
    for writer in writers:
        writer.close()


async def test_a_redis_that_does_not_answer_is_waited_for_once_and_taken_up_again(
    url: str, server: Any, caplog: pytest.LogCaptureFixture
) -> None:
    limit = Limit(rate_per_s=1_000, burst=1_000)
    async with a_way_to_redis(url) as way:
        limiter = RateLimiter(way.url, f"test:{new_id()}:")
        try:
            assert (await limiter.take("a", limit)).allowed
            way.blocked = True
            await asyncio.gather(*(limiter.take("a", limit) for _ in range(20)))
            asked = way.asked
            assert await allowed(limiter, "a", limit, 300) == 300
            assert await allowed(limiter, "b", limit, 300) == 300
            assert way.asked <= asked + 1
            way.blocked = False

            async def back() -> bool:
                await limiter.take("c", limit)
                return bool(await server.exists(limiter._prefix + "c"))

            await wait_for(back, 10)
        finally:
            await limiter.close()
    said = [r.message for r in caplog.records if r.name == "lostwax.kit.rate_limit"]
    assert said.count("rate limits: Redis away, each process goes by itself") == 1


async def test_what_was_given_without_redis_is_not_given_again_when_it_is_back(url: str) -> None:
    limit = Limit(rate_per_s=0.1, burst=100)
    async with a_way_to_redis(url) as way:
        limiter = RateLimiter(way.url, f"test:{new_id()}:")
        try:
            way.blocked = True
            assert await allowed(limiter, "a", limit, 70) == 70
            way.blocked = False
            passed = 70

            async def shared_again() -> bool:
                nonlocal passed
                before = way.asked
                await allowed(limiter, "b", limit, 1)
                passed += (await limiter.take("a", limit)).allowed
                return limiter._away_until is None and way.asked > before

            await wait_for(shared_again, 10)
            passed += await allowed(limiter, "a", limit, 200)
            assert passed <= 102
        finally:
            await limiter.close()


async def test_without_redis_the_full_rate_holds_all_the_same() -> None:
    limiter = RateLimiter("redis://127.0.0.1:1/0", "test:")  # nobody listens there
    try:
        assert await allowed(limiter, "a", Limit(rate_per_s=0.1, burst=40), 100) == 40
        assert limiter.leases <= 3
    finally:
        await limiter.close()


async def test_whoever_leaves_while_a_lease_is_under_way_takes_nobody_along(limiter: RateLimiter) -> None:
    limit = Limit(rate_per_s=0.1, burst=10)
    leaving, staying = [asyncio.create_task(limiter.take("a", limit)) for _ in range(2)]
    await asyncio.sleep(0)
    leaving.cancel()
    assert (await staying).allowed
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert await allowed(limiter, "a", limit, 20) == 9


async def test_the_headers_are_structured_fields(limiter: RateLimiter) -> None:
    limit = Limit(rate_per_s=2, burst=10)
    first = dict((await limiter.take("a", limit)).headers)
    assert first[b"ratelimit-policy"] == b'"client";q=10;w=5'
    seen = [first]
    for _ in range(14):
        seen.append(dict((await limiter.take("a", limit)).headers))
    states = [re.fullmatch(rb'"client";r=(\d+);t=(\d+)', s[b"ratelimit"]) for s in seen]
    assert all(states)
    remaining = [int(s[1]) for s in states if s]
    assert remaining[0] == 9
    assert remaining == sorted(remaining, reverse=True)
    assert remaining[-1] == 0
    assert [int(s[2]) for s in states if s][-1] == 5
