"""What is read from Redis is what the database says, or is not read at all: flushed, killed, restored from an old
snapshot, stopped, or cut off from one process only. Two users of one Redis and one database are as two processes."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest
import redis.asyncio
from tests.builders import wait_for
from tests.conftest import NewDatabase
from tests.own_valkey import OwnValkey

from lostwax.contracts.ids import new_id
from lostwax.kit.generations import Entry, Generations, Source, Untrusted
from lostwax.kit.postgres import Connection, Pool, open_pool


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[OwnValkey]:
    server = OwnValkey(tmp_path)
    server.start()
    yield server
    server.end()


def entry(thing_id: UUID, rank: int, place: str | None) -> Entry:
    places = () if place is None else ((place, str(thing_id)),)
    return Entry(thing_id, rank, places, f"{thing_id} {rank}".encode(), keep_s=60)


class Things:
    """A table of things that stand on lists, and as many users of its copy in Redis as are asked for."""

    def __init__(self, pool: Pool, dsn: str, url: str) -> None:
        self.pool, self.dsn, self.url = pool, dsn, url
        self.users: list[Generations] = []
        self._running: list[asyncio.Task[None]] = []
        self.midway: Callable[[], Any] | None = None

    async def user(self, url: str | None = None, *, trusted: bool = True) -> Generations:
        async def everything(connection: Connection, _: UUID) -> AsyncIterator[Entry]:
            async for row in connection.cursor("SELECT * FROM things WHERE place IS NOT NULL"):
                if self.midway is not None:
                    midway, self.midway = self.midway, None
                    await midway()
                yield entry(UUID(int=row["id"].int), row["rank"], row["place"])

        async def some(connection: Connection, ids: Sequence[UUID]) -> Sequence[Entry]:
            rows = await connection.fetch("SELECT * FROM things WHERE id = ANY($1)", list(ids))
            return [entry(UUID(int=row["id"].int), row["rank"], row["place"]) for row in rows]

        async def count(connection: Connection, _: UUID) -> int:
            return int(await connection.fetchval("SELECT count(*) FROM things WHERE place IS NOT NULL"))

        made = Generations("things", url or self.url, self.dsn, self.pool, Source(everything, some, count))
        self.users.append(made)
        self._running.append(asyncio.create_task(made.run()))
        if trusted:
            await wait_for(lambda: made.rebuilds and made.trusted)
        return made

    async def put(self, user: Generations, thing_id: UUID, rank: int, place: str | None = "shelf") -> None:
        await self.pool.execute(
            "INSERT INTO things VALUES ($1, $2, $3) ON CONFLICT (id) DO UPDATE SET rank = $2, place = $3",
            thing_id,
            rank,
            place,
        )
        await user.push([entry(thing_id, rank, place)])

    async def unshown(self) -> int:
        return int(await self.pool.fetchval("SELECT count(*) FROM unshown"))

    async def end(self) -> None:
        assert not any(task.done() for task in self._running)
        for task in self._running:
            task.cancel()
        for user in self.users:
            await user.close()


@pytest.fixture
async def things(new_database: NewDatabase, valkey: OwnValkey) -> AsyncIterator[Things]:
    dsn = await new_database(None)
    pool = await open_pool(dsn, name="test", size=8)
    await pool.execute("CREATE TABLE things (id uuid PRIMARY KEY, rank integer NOT NULL, place text)")
    made = Things(pool, dsn, valkey.url)
    yield made
    await made.end()
    await pool.close()


async def shown(user: Generations, place: str = "shelf") -> dict[UUID, int] | None:
    """Id and rank of everything on a list; None when it is not to be believed."""
    try:
        page = await user.page(place, None, 1000)
    except Untrusted:
        return None
    return {UUID(body.decode().split()[0]): int(body.decode().split()[1]) for body in page.bodies}


async def until_shown(user: Generations, wanted: dict[UUID, int], never: Callable[[dict[UUID, int]], bool]) -> None:
    """Read again and again until it is `wanted`; what is believed meanwhile must not be what it may `never` be."""
    deadline = time.monotonic() + 10
    while (found := await shown(user)) != wanted:
        assert found is None or not never(found), found
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.01)


async def test_two_users_share_a_generation_and_rest(things: Things, valkey: OwnValkey) -> None:
    one, other = await things.user(), await things.user()
    thing = new_id()
    await things.put(one, thing, 1)
    assert await shown(other) == await shown(one) == {thing: 1}
    before = one.rebuilds + other.rebuilds
    await asyncio.sleep(1)
    assert one.rebuilds + other.rebuilds == before
    valkey.flush()
    assert await shown(one) is None
    assert await shown(other) is None
    await wait_for(lambda: one.trusted and other.trusted)
    assert one.rebuilds + other.rebuilds == before + 1
    assert await shown(other) == await shown(one) == {thing: 1}


async def test_older_views_never_replace_newer_ones(things: Things) -> None:
    user, thing = await things.user(), new_id()
    await things.put(user, thing, 5)
    await user.push([entry(thing, 4, "floor"), entry(thing, 3, None)])
    assert (await shown(user), await shown(user, "floor")) == ({thing: 5}, {})
    await things.put(user, thing, 6, None)
    await user.push([entry(thing, 5, "shelf")])
    assert await shown(user) == {}
    await things.put(user, thing, 7, "floor")
    assert (await shown(user), await shown(user, "floor")) == ({}, {thing: 7})


async def test_an_old_snapshot_is_not_believed(things: Things, valkey: OwnValkey) -> None:
    one, other = await things.user(), await things.user()
    thing, gone = new_id(), new_id()
    await things.put(one, thing, 1)
    await things.put(one, gone, 1)
    valkey.save()
    await things.put(one, thing, 2)
    await things.put(one, gone, 2, None)
    assert await shown(other) == {thing: 2}
    valkey.kill()
    valkey.start()  # with the generation that is still believed in, as it was
    client: Any = redis.asyncio.from_url(valkey.url)
    assert await client.exists("things:current")
    await client.aclose()
    for user in (one, other):
        await until_shown(user, {thing: 2}, lambda found: found != {thing: 2})


async def test_what_a_stopped_redis_did_not_take_is_read_from_nowhere_else(things: Things, valkey: OwnValkey) -> None:
    one, other = await things.user(), await things.user()
    thing = new_id()
    await things.put(one, thing, 1)
    valkey.signal(signal.SIGSTOP)
    began = time.monotonic()
    await things.put(one, thing, 2)
    assert time.monotonic() - began < 0.9
    valkey.signal(signal.SIGCONT)
    await asyncio.sleep(0.1)  # a notice is on its way
    await until_shown(one, {thing: 2}, lambda found: found != {thing: 2})
    await until_shown(other, {thing: 2}, lambda found: found != {thing: 2})
    assert await things.unshown() == 0


async def test_pushes_do_not_wait_for_a_redis_that_is_known_to_be_away(things: Things, valkey: OwnValkey) -> None:
    user, ids = await things.user(), [new_id() for _ in range(50)]
    valkey.signal(signal.SIGSTOP)
    await things.put(user, ids[0], 1)
    began = time.monotonic()
    for thing in ids:
        await things.put(user, thing, 2)
    assert time.monotonic() - began < 2  # fifty waits of 0.4 s are 20 s
    assert await things.unshown() >= 50
    valkey.kill()
    valkey.start()
    await until_shown(user, dict.fromkeys(ids, 2), lambda found: found != dict.fromkeys(ids, 2))
    assert await things.unshown() == 0


async def test_a_full_disk_is_tried_again_but_not_without_pause(things: Things, valkey: OwnValkey) -> None:
    """What Redis lacks cannot be noted then, and is not read from Redis until it could be."""
    user, thing = await things.user(), new_id()
    await things.put(user, thing, 1)
    await things.pool.execute(
        "CREATE SEQUENCE tries;"
        "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$"
        "BEGIN PERFORM nextval('tries'); RAISE EXCEPTION 'no space left' USING ERRCODE = '53100'; END $$;"
        "CREATE TRIGGER full_disk BEFORE INSERT ON unshown FOR EACH ROW EXECUTE FUNCTION full_disk()"
    )
    valkey.signal(signal.SIGSTOP)
    await things.put(user, thing, 2)
    valkey.signal(signal.SIGCONT)
    before = await things.pool.fetchval("SELECT last_value FROM tries")
    await asyncio.sleep(2)
    assert 2 <= await things.pool.fetchval("SELECT last_value FROM tries") - before <= 12
    assert await shown(user) is None
    await things.pool.execute("DROP TRIGGER full_disk ON unshown")
    await until_shown(user, {thing: 2}, lambda found: found != {thing: 2})


async def test_what_one_user_cannot_show_another_shows(things: Things) -> None:
    well = await things.user()
    cut_off = await things.user("redis://127.0.0.1:9/0", trusted=False)
    thing = new_id()
    for rank in (1, 2, 3):
        await things.put(cut_off, thing, rank)
        assert await shown(cut_off) is None
        await asyncio.sleep(0.05)
        await until_shown(well, {thing: rank}, lambda found, rank=rank: found.get(thing, rank) != rank)  # type: ignore[misc]
    assert await things.unshown() == 0


async def test_without_hearing_of_the_others_nothing_is_believed(things: Things) -> None:
    user = await things.user()
    assert await shown(user) == {}
    connection = await asyncpg.connect(things.dsn)
    await connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name <> 'test'"
    )
    await connection.close()
    await wait_for(lambda: not user.trusted, 1)
    await wait_for(lambda: user.trusted)


async def test_a_rebuild_that_is_flushed_away_halfway_is_begun_again(things: Things, valkey: OwnValkey) -> None:
    user, ids = await things.user(), [new_id() for _ in range(600)]
    for thing in ids:
        await things.put(user, thing, 1)

    async def flush_and_change() -> None:
        valkey.flush()
        await things.put(user, ids[0], 2)

    things.midway = flush_and_change
    asked_at = await user.ask_for_rebuild()

    async def rebuilt() -> bool:
        standing = await user.standing()
        return standing.built_at is not None and standing.built_at >= asked_at and user.trusted

    await wait_for(rebuilt)
    assert await shown(user) == {thing: 2 if thing == ids[0] else 1 for thing in ids}


async def test_nothing_is_left_of_generations_that_are_over(things: Things, valkey: OwnValkey) -> None:
    user, ids = await things.user(), [new_id() for _ in range(700)]
    for thing in ids:
        await things.put(user, thing, 1)
    for _ in range(2):
        rebuilds = user.rebuilds
        await user.ask_for_rebuild()
        await wait_for(lambda n=rebuilds: user.rebuilds > n)
    client: Any = redis.asyncio.from_url(valkey.url)

    async def one_generation() -> bool:
        keys = [key.decode() async for key in client.scan_iter(count=1000)]
        return len(keys) == 702  # entries, their list, the record

    await wait_for(one_generation)
    await client.aclose()
