"""Lists and entries in Redis, copied from a service's database: when they may be believed, and what mends them.

A *generation* is one whole copy. Its record in Redis names it and the run of the Redis server that it was built on,
and every script looks at that record first: flushed, restarted and restored servers have no record that fits, and what
they hold is not read. Two generations may be in force: the current one, which is read, and the one that is being built
beside it; every change goes to both. One process at a time builds, by an advisory lock of the database; all adopt the
result.

A change that Redis did not take is put into the table `unshown`. As long as a process knows of any such row, or cannot
know (its LISTEN is broken), it reads from the database; every process shows such changes and deletes the rows.

What Redis and database show of an entry carries a rank, and an older one never replaces a newer one, so showing twice,
late or out of order is harmless.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from lostwax.contracts.ids import new_id
from lostwax.kit import generation_scripts as scripts
from lostwax.kit.postgres import UNREACHABLE, Connection, OwnConnection, Pool, let_go
from lostwax.kit.redis_server import REDIS_AWAY, RedisServer, Script

log = logging.getLogger(__name__)

SETTLES_WITHIN_S = 0.8
"""Within this time after its commit a change is in Redis, or in `unshown`; longer than Redis is ever waited for."""

_LOOK_AGAIN_S = 0.25
_LONGEST_PAUSE_S = 10.0
_AT_ONCE = 250
_LOCK = 7_310
_HEAD_BYTES = 255


class Untrusted(Exception):
    """Redis is away, or what it holds is not to be believed now: ask the database."""


class Overtaken(Exception):
    """What was being built has gone from Redis: it was flushed or restarted, or another process builds."""


class Entry(msgspec.Struct, frozen=True):
    """What lists show of one thing. `places`: its lists and its member on each, which ends in the id; lists are ordered
    by member. An entry on no list is remembered for `keep_s` seconds (0: as long as its generation), long enough for
    its rank to outlive late, older views. The whole of `places` is at most 240 bytes."""

    id: UUID
    rank: int
    places: tuple[tuple[str, str], ...]
    body: bytes
    keep_s: int = 0


_LATER: tuple[type[BaseException], ...] = (*REDIS_AWAY, *UNREACHABLE, Overtaken)


class Source(msgspec.Struct, frozen=True):
    """Where entries come from. `everything` and `count` (those from the floor upwards) are called in one snapshot;
    `some` are those of these ids as the database has them now. Entries with ids below `floor()` are not kept at all; it
    is asked once for each generation."""

    everything: Callable[[Connection, UUID], AsyncIterator[Entry]]
    some: Callable[[Connection, Sequence[UUID]], Awaitable[Sequence[Entry]]]
    count: Callable[[Connection, UUID], Awaitable[int]]
    floor: Callable[[], UUID] = lambda: UUID(int=0)


class Page(msgspec.Struct, frozen=True):
    """Bodies in the order of the list. Nothing below `floor` is in Redis; `marked`: the member asked for is there."""

    bodies: list[bytes]
    floor: UUID
    marked: bool


class Progress(msgspec.Struct, frozen=True):
    """Of a rebuild: entries built so far, of how many, in how many seconds."""

    done: int
    total: int
    seconds: float


class Standing(msgspec.Struct, frozen=True):
    """How things stand: since when the lists in force are right (None: there are none), and what is being built."""

    built_at: datetime | None
    progress: Progress | None
    redis: str | None
    """What is wrong with Redis, when it does not answer."""


_progress = msgspec.json.Decoder(Progress)


class Generations:
    """One service's lists in Redis. `name` is the prefix of its keys, and tells it apart in its database.

    `run` keeps them right until cancelled; without it nothing is ever trusted.
    """

    def __init__(
        self,
        name: str,
        url: str,
        dsn: str,
        pool: Pool,
        source: Source,
        *,
        renewed_after_s: float | None = None,
        limit_s: float = 0.4,
    ) -> None:
        """`renewed_after_s`: build anew when the current generation is that old, for its floor to rise."""
        self._name, self._dsn, self._pool, self._source = name, dsn, pool, source
        self._renewed_after_s = renewed_after_s
        self._redis = RedisServer(url, scripts.ALL, limit_s=limit_s)
        self._keys = (f"{name}:current", f"{name}:building", f"{name}:progress")
        # Redis is trusted when all of these are well, and no page came from the database just now.
        self._listening = False
        self._answers = True
        self._present = False
        self._all_shown = False
        self._read_elsewhere_at = float("-inf")
        # Ids of entries that neither Redis nor `unshown` has taken.
        self._owed: set[UUID] = set()
        self._noting_fails = False
        self._notices = 0
        self._wake = asyncio.Event()
        self._rebuild_wanted = asyncio.Event()
        self._rebuild_wanted.set()
        # What is in force must have been built from the database as it was at this time or later; None: as it will be
        # when the rebuild begins, for what a crash may have left unshown.
        self._wished_at: float | None = None
        self.rebuilds = 0

    @property
    def trusted(self) -> bool:
        return (
            self._listening
            and self._answers
            and self._present
            and self._all_shown
            and asyncio.get_running_loop().time() >= self._read_elsewhere_at + SETTLES_WITHIN_S
        )

    # -- showing ------------------------------------------------------------------------------------------------------

    async def push(self, entries: Sequence[Entry]) -> None:
        """Show these entries as the database has them, after the commit. Never fails, and waits for Redis no longer
        than its limit, once: what it does not take is made good, and not read from it until then."""
        if not entries:
            return
        if self._answers:
            try:
                await self._put(entries)
                return
            except REDIS_AWAY as error:
                self._lose_redis(f"a change could not be shown: {error!r}")
        self._notices += 1
        self._all_shown = False
        self._owed.update(entry.id for entry in entries)
        await self._note_owed()
        self._wake.set()

    async def read_elsewhere(self, entries: Sequence[Entry]) -> None:
        """Entries that were read from the database and are about to be seen: so that nobody who has seen them sees an
        older view of them in Redis later. Never fails."""
        if self._answers and self._present:
            try:
                await self._put(entries)
                return
            except REDIS_AWAY as error:
                self._lose_redis(repr(error))
        self._read_elsewhere_at = asyncio.get_running_loop().time()

    async def _put(self, entries: Sequence[Entry], *, fill: str = "") -> None:
        """Raises REDIS_AWAY's errors; Overtaken when the generation to `fill` is not being built any more."""
        for start in range(0, len(entries), _AT_ONCE):
            arguments: list[str | bytes | int] = []
            for entry in entries[start : start + _AT_ONCE]:
                places = " ".join([f"{name}={member}" for name, member in entry.places])
                assert len(places) < _HEAD_BYTES - 14, places
                arguments += (str(entry.id), entry.rank, places, entry.body, 0 if entry.places else entry.keep_s)
            takers = await self._run(scripts.PUSH, fill, *arguments)
            if takers < 0:
                raise Overtaken
            if takers == 0 and self._present:
                self._lose_generation()

    async def _run(self, script: Script, *arguments: str | bytes | int) -> Any:
        return await self._redis.run(script, self._keys, self._name, *arguments)

    async def _note_owed(self) -> None:
        """Put what is owed into `unshown`, where every process sees it; what the database does not take stays owed, and
        is tried again with the next push or look."""
        owed = list(self._owed)
        try:
            async with self._pool.acquire() as connection:
                await connection.execute(
                    "WITH noted AS (INSERT INTO unshown (view, entry_id) SELECT $1, * FROM unnest($2::uuid[]))"
                    " SELECT pg_notify($3, 'unshown')",
                    self._name,
                    owed,
                    self._channel,
                )
        except UNREACHABLE as error:
            if not self._noting_fails:
                log.warning("what Redis lacks cannot be noted", extra={"view": self._name, "error": repr(error)})
            self._noting_fails = True
        else:
            self._owed.difference_update(owed)
            self._noting_fails = False

    @property
    def _channel(self) -> str:
        return f"generations_{self._name}"

    def _lose_redis(self, why: str) -> None:
        if self._answers:
            log.warning("read from the database now", extra={"view": self._name, "why": why})
        self._answers = False
        self._wake.set()

    def _lose_generation(self) -> None:
        if self._present:
            log.warning("the generation is gone from Redis", extra={"view": self._name})
        self._present = False
        self._wake.set()

    # -- reading ------------------------------------------------------------------------------------------------------

    async def page(
        self,
        list_name: str,
        after: str | None,
        limit: int,
        *,
        last_first: bool = False,
        mark: tuple[str, str] = ("", ""),
    ) -> Page:
        """At most `limit` entries of a list from behind the member `after`. Raises Untrusted."""
        found = await self._read(scripts.PAGE, list_name, after or "", limit, "1" if last_first else "0", *mark)
        return Page(found[2:], UUID(found[0].decode()), bool(found[1]))

    async def entry(self, entry_id: UUID) -> tuple[set[str], bytes] | None:
        """Which lists an entry is on, and its body; None when Redis has none. Raises Untrusted."""
        found = (await self._read(scripts.ENTRY, str(entry_id)))[1:]
        if not found or not found[0]:
            return None
        head, _, body = found[0].partition(b"\n")
        return {place.partition("=")[0] for place in head.decode().split(" ")[1:]}, body

    async def _read(self, script: Script, *arguments: str | bytes | int) -> list[bytes]:
        if not self.trusted:
            raise Untrusted
        try:
            found = await self._run(script, *arguments)
        except REDIS_AWAY as error:
            self._lose_redis(repr(error))
            raise Untrusted(repr(error)) from error
        if not isinstance(found, list):
            self._lose_generation()
            raise Untrusted("the generation is gone")
        if not self.trusted:  # known only since the question was sent
            raise Untrusted
        return found

    # -- keeping ------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep what is shown right, and rebuild whenever that is wanted, until cancelled; once at the start always."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep())
            tasks.create_task(self._rebuild_when_wanted())

    async def _keep(self) -> None:
        pause = 0.2
        while True:
            try:
                connection = await asyncpg.connect(self._dsn, timeout=5)
                try:
                    lost = asyncio.Event()
                    connection.add_termination_listener(lambda *_, lost=lost: self._stop_listening(lost))
                    await connection.add_listener(self._channel, self._notice)
                    self._all_shown, self._listening = False, True
                    pause = 0.2
                    while not lost.is_set():
                        self._wake.clear()
                        look_again_s = await self._tend(connection)
                        if self._answers:
                            await self._rest(look_again_s)
                        else:
                            await asyncio.sleep(_LOOK_AGAIN_S)  # whatever is pushed meanwhile
                finally:
                    self._listening = False
                    await let_go(connection)
            except UNREACHABLE as error:
                log.warning("database away", extra={"view": self._name, "error": repr(error)})
            await asyncio.sleep(pause)
            pause = min(pause * 2, 5)

    def _stop_listening(self, lost: asyncio.Event) -> None:
        self._listening = False
        lost.set()
        self._wake.set()

    def _notice(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        if payload == "unshown":
            self._notices += 1
            self._all_shown = False
        self._wake.set()

    async def _rest(self, seconds: float | None) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            pass

    async def _tend(self, connection: OwnConnection) -> float | None:
        """See how things stand and mend what can be mended here; returns in how many seconds to look again."""
        if self._owed:
            await self._note_owed()
        notices = self._notices
        try:
            if not self._answers:
                await self._redis.run_id()  # by a fresh connection
            built_at, _, _ = await self._look()
            self._answers = True
            await self._show_unshown(connection)
        except REDIS_AWAY as error:
            self._lose_redis(repr(error))
            return None
        if built_at is None:
            self._present = False
            self._rebuild_wanted.set()
            return _LOOK_AGAIN_S
        if self._notices == notices and not self._owed:
            self._all_shown = True
        if not self._present and self._all_shown:
            log.info("read from Redis now", extra={"view": self._name})
        self._present = True
        if self._owed:
            return _LOOK_AGAIN_S
        if self._renewed_after_s is None:
            return None
        rest_s = built_at + self._renewed_after_s - datetime.now(UTC).timestamp()
        if rest_s <= 0:
            self._rebuild_wanted.set()
            return 60
        return rest_s

    async def _look(self, progress: str = "") -> tuple[float | None, str, bytes]:
        """When the current generation was built (None: there is none), which one is being built, and how far it is."""
        found = await self._run(scripts.LOOK, progress)
        assert isinstance(found, list)
        current, building = found[0].decode().split(), found[1].decode().split()
        return float(current[3]) if current else None, building[0] if building else "", found[2]

    async def _show_unshown(self, connection: OwnConnection) -> None:
        """Show what was left unshown, by whomever. Raises REDIS_AWAY's errors."""
        while rows := await connection.fetch(
            "SELECT number, entry_id FROM unshown WHERE view = $1 ORDER BY number LIMIT $2", self._name, _AT_ONCE
        ):
            ids = sorted({UUID(int=row["entry_id"].int) for row in rows})
            await self._put(await self._source.some(connection, ids))
            await connection.execute("DELETE FROM unshown WHERE number = ANY($1)", [row["number"] for row in rows])

    # -- rebuilding ---------------------------------------------------------------------------------------------------

    async def ask_for_rebuild(self) -> datetime:
        """Have everything built anew; returns the time from which on it will be right. Raises UNREACHABLE's errors."""
        async with self._pool.acquire() as connection:
            wished_at = await _now(connection)
        self._wished_at = wished_at
        self._rebuild_wanted.set()
        return datetime.fromtimestamp(wished_at, UTC)

    async def standing(self) -> Standing:
        try:
            built_at, building, progress = await self._look()
        except REDIS_AWAY as error:
            return Standing(None, None, repr(error))
        return Standing(
            None if built_at is None else datetime.fromtimestamp(built_at, UTC),
            _progress.decode(progress) if building and progress else None,
            None,
        )

    async def _rebuild_when_wanted(self) -> None:
        pause = _LOOK_AGAIN_S
        while True:
            await self._rebuild_wanted.wait()
            self._rebuild_wanted.clear()
            try:
                await self._rebuild_if_needed()
                pause = _LOOK_AGAIN_S
            except _LATER as error:
                log.warning("cannot be rebuilt now", extra={"view": self._name, "error": repr(error)})
                self._rebuild_wanted.set()
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE_S)

    async def _rebuild_if_needed(self) -> None:
        """Build, unless another process has built what is wanted while it was waited for."""
        await self._redis.run_id()  # else there is nothing to build on
        connection = await asyncpg.connect(self._dsn, timeout=5)
        try:
            if self._wished_at is None:
                self._wished_at = await _now(connection)
            await connection.execute("SELECT pg_advisory_lock($1, hashtext($2))", _LOCK, self._name)
            built_at, _, _ = await self._look()
            now = await _now(connection)
            outdated = built_at is not None and now - built_at >= (self._renewed_after_s or float("inf"))
            if built_at is None or built_at < self._wished_at or outdated:
                generation = str(new_id())
                try:
                    await self._rebuild(generation, connection, now)
                except BaseException:
                    try:  # half of it would only take up room
                        await self._run(scripts.ABANDON, generation)
                        await self._sweep()
                    except REDIS_AWAY:
                        pass
                    raise
                await self._sweep()
            self._wake.set()
        finally:
            await let_go(connection)

    async def _rebuild(self, generation: str, connection: OwnConnection, built_at: float) -> None:
        """Build a generation from the database while changes go to it too, then swap it in."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        floor, done = self._source.floor(), 0
        # The record first, the snapshot after it: a change that finds no record to go to is in the snapshot.
        await self._run(scripts.BEGIN, generation, str(floor), f"{built_at:.6f}")
        async with (
            self._pool.acquire() as reading,
            reading.transaction(isolation="repeatable_read", readonly=True),
        ):
            in_snapshot = await reading.fetch("SELECT number FROM unshown WHERE view = $1", self._name)
            total = await self._source.count(reading, floor)
            chunk: list[Entry] = []

            async def fill() -> None:
                nonlocal done, chunk
                await self._put(chunk, fill=generation)
                done, chunk = done + len(chunk), []
                told = Progress(done, max(done, total), round(loop.time() - started, 3))
                await self._look(msgspec.json.encode(told).decode())

            async for entry in self._source.everything(reading, floor):
                chunk.append(entry)
                if len(chunk) == _AT_ONCE:
                    await fill()
            await fill()
        if not await self._run(scripts.SWAP, generation):
            raise Overtaken
        self.rebuilds += 1
        seconds = round(loop.time() - started, 3)
        log.info("rebuilt", extra={"view": self._name, "entries": done, "seconds": seconds})
        await connection.execute("DELETE FROM unshown WHERE number = ANY($1)", [row["number"] for row in in_snapshot])
        await connection.execute("SELECT pg_notify($1, 'rebuilt')", self._channel)

    async def _sweep(self) -> None:
        """Drop the generation before, and what was written to lost or unfinished ones: nothing else would ever."""
        cursor = "0"
        while True:
            cursor = (await self._run(scripts.SWEEP, cursor)).decode()
            if cursor == "0":
                break

    async def close(self) -> None:
        await self._redis.close()


async def _now(connection: Connection) -> float:
    """The database's clock, which all processes of a service share; seconds since 1970."""
    return float(await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())"))
