"""Change capture, decided: what a connector shall be, what ails it, and how far behind it is. No I/O."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from enum import Enum
from urllib.parse import unquote, urlsplit

import msgspec

from lostwax.contracts.capture import PUBLICATION, tables_of

STUCK_AFTER = timedelta(seconds=45)
"""Connect's own retries come first: a task that neither streams nor copies for so long is started anew."""

HEARTBEAT = "SELECT pg_logical_emit_message(false, 'heartbeat', '')"
"""Written into a database's WAL by its connector, so that there is something to read and to be done with."""

TRANSACTION = "SELECT pg_logical_emit_message(true, 'heartbeat', '')"
"""The like with a commit of its own: a connector that was started anew reads on until it has seen a commit later than
the last that it stored, and only then hands on anything, its heartbeats included."""

FIRST_DELAY, LONGEST_DELAY = timedelta(seconds=5), timedelta(minutes=5)


class Source(msgspec.Struct, frozen=True):
    """One captured database. `name` is the connector's: the database's, with `-N` for a shard."""

    name: str
    dsn: str

    @property
    def database(self) -> str:
        """As contracts.capture calls it."""
        return self.name.partition("-")[0]

    @property
    def connector(self) -> str:
        return f"capture-{self.name}"

    @property
    def slot(self) -> str:
        return f"capture_{self.name.replace('-', '_')}"


def sources(urls: Sequence[str]) -> tuple[Source, ...]:
    """From `name=dsn` of the settings. Raises ValueError for a database of which contracts.capture lists nothing."""
    found = tuple(Source(name, dsn) for name, _, dsn in (url.partition("=") for url in urls))
    for source in found:
        if not source.dsn or not tables_of(source.database):
            raise ValueError(f"LOSTWAX_CAPTURE_URLS: {source.name!r} is not name=DSN of a captured database")
    if len({source.name for source in found}) < len(found):
        raise ValueError("LOSTWAX_CAPTURE_URLS names a source twice")
    return found


def connector_config(source: Source) -> dict[str, str]:
    """Settings of the source's connector. The password stands in Connect's environment alone, whatever the DSN says."""
    where = urlsplit(source.dsn)
    tables = tables_of(source.database)
    return {
        "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
        "tasks.max": "1",
        # not required, which it once was: a broker that was killed can leave a transaction without an end
        "exactly.once.support": "requested",
        "database.hostname": where.hostname or "",
        "database.port": str(where.port or 5432),
        "database.user": unquote(where.username or ""),
        "database.password": f"${{env:CAPTURE_PASSWORD_{source.name.replace('-', '_').upper()}}}",
        "database.dbname": where.path.removeprefix("/"),
        "topic.prefix": source.name,
        "plugin.name": "pgoutput",
        "slot.name": source.slot,
        "slot.retry.delay.ms": "1000",
        "retriable.restart.connector.wait.ms": "3000",
        "publication.name": PUBLICATION,
        "publication.autocreate.mode": "disabled",
        "table.include.list": ",".join(f"public.{table.table}" for table in tables),
        "column.include.list": ",".join(f"public.{table.table}.{c}" for table in tables for c in table.columns),
        # a slot that is not there, or has gone on without us, is made up for by a new copy of all tables
        "snapshot.mode": "when_needed",
        "snapshot.locking.mode": "none",
        "snapshot.fetch.size": "2000",
        "poll.interval.ms": "500",
        "max.batch.size": "8192",
        "max.queue.size": "16384",
        "max.queue.size.in.bytes": "16777216",
        # written by the heartbeat itself, so that the slot of a database at rest moves on with its neighbours' WAL
        "heartbeat.interval.ms": "5000",
        "heartbeat.action.query": HEARTBEAT,
        "message.prefix.exclude.list": "heartbeat",
        "extended.headers.enabled": "false",
        "tombstones.on.delete": "false",
        "decimal.handling.mode": "string",
        "time.precision.mode": "isostring",
        "topic.creation.default.replication.factor": "-1",
        "topic.creation.default.partitions": "1",
        # both shards write into the same topics; heartbeats stay apart by their prefix
        "transforms": "route",
        "transforms.route.type": "org.apache.kafka.connect.transforms.RegexRouter",
        "transforms.route.regex": r"[^.]+\.public\.(.+)",
        "transforms.route.replacement": f"cdc.{source.database}.$1",
    }


class Slot(msgspec.Struct, frozen=True):
    """A replication slot as pg_replication_slots tells of it, and whether the capturing role is copying tables."""

    active: bool
    lost: bool
    held_bytes: int
    behind_bytes: int
    confirmed: int
    copying: bool = False


class Seen(msgspec.Struct, frozen=True):
    """What Connect and the database say of a source. `slot` is None when there is none."""

    config: Mapping[str, str] | None
    state: str | None
    """Connect's: RUNNING, FAILED, PAUSED, STOPPED ..; of connector or task, whichever is worse; None when unknown."""
    trace: str
    slot: Slot | None
    written: int
    """Where the database writes now (LSN)."""
    at: datetime
    copying: bool = False


class Deed(Enum):
    """What the watcher does about it."""

    NOTHING = "nothing"
    REGISTER = "registered"
    RESTART = "restarted"
    COPY_ANEW = "copied anew"


class Care(msgspec.Struct, frozen=True):
    """What the watcher remembers of a source between two looks."""

    idle_since: datetime | None = None
    tried: int = 0
    again_at: datetime | None = None
    confirmed: int = -1
    """How far Kafka had it (LSN)."""
    samples: tuple[tuple[datetime, int], ...] = ()
    """Where the database wrote, and when: the lag in seconds comes from these."""


def decide(wanted: Mapping[str, str], seen: Seen, care: Care) -> tuple[Deed, Care]:
    """What to do now, and what to remember. A deed that did not help is repeated later and later.

    Paused or stopped by a person is left alone.
    """
    samples = (*care.samples, (seen.at, seen.written))[-720:]
    confirmed = -1 if seen.slot is None else seen.slot.confirmed
    care = msgspec.structs.replace(care, samples=samples, confirmed=confirmed)
    if seen.config is None or any(seen.config.get(name) != value for name, value in wanted.items()):
        return Deed.REGISTER, care
    if seen.state in ("PAUSED", "STOPPED"):
        return Deed.NOTHING, msgspec.structs.replace(care, idle_since=None)
    lost = seen.slot is not None and seen.slot.lost
    # With a lost slot, what looks like copying is Debezium's transaction in which it waits for the slot to be valid.
    if not lost and ((seen.slot is not None and seen.slot.active) or seen.copying):
        return Deed.NOTHING, msgspec.structs.replace(care, idle_since=None, tried=0, again_at=None)
    since = care.idle_since or seen.at
    care = msgspec.structs.replace(care, idle_since=since)
    if not (lost or seen.state == "FAILED" or seen.at - since >= STUCK_AFTER):
        return Deed.NOTHING, care
    if care.again_at is not None and seen.at < care.again_at:
        return Deed.NOTHING, care
    delay = min(FIRST_DELAY * 2**care.tried, LONGEST_DELAY)
    care = msgspec.structs.replace(care, tried=min(care.tried + 1, 10), again_at=seen.at + delay, idle_since=seen.at)
    return (Deed.COPY_ANEW if lost else Deed.RESTART), care


def stands_still(seen: Seen, before: Care) -> bool:
    """Whether a slot that streams has not moved since the last look although the database has written: perhaps its
    connector was started anew and looks for a commit, which from a database at rest never comes (see TRANSACTION)."""
    slot = seen.slot
    return slot is not None and slot.active and slot.behind_bytes > 0 and slot.confirmed == before.confirmed


def lag(seen: Seen, care: Care) -> timedelta | None:
    """How old the newest change is that Kafka certainly has; None when nothing is known (no slot, or older than what is
    remembered)."""
    if seen.slot is None:
        return None
    known = [at for at, position in care.samples if position <= seen.slot.confirmed]
    if known and max(known) == seen.at:
        return timedelta(0)
    return seen.at - max(known) if known else None


def trouble(seen: Seen) -> str | None:
    """In words, what is wrong with a source; None when it streams or copies. RUNNING alone is not streaming."""
    if seen.config is None:
        return "not registered"
    if seen.slot is not None and seen.slot.lost:
        return "its slot was invalidated: a new copy of all tables is coming"
    if seen.state in ("PAUSED", "STOPPED"):  # a paused one keeps its slot active, and hands nothing on
        return f"{seen.state.lower()} by hand"
    if seen.copying or (seen.slot is not None and seen.slot.active):
        return None
    if seen.state == "FAILED":
        return f"failed: {seen.trace.partition(chr(10))[0][:200] or 'Connect does not say why'}"
    return f"Connect says {seen.state or 'nothing'}, but its slot {'is idle' if seen.slot else 'does not exist'}"
