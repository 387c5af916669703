"""Where the audit reads: each database by a cursor in the order of id, so that millions of orders need no memory."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from uuid import UUID

import asyncpg
import msgspec

from lostwax.audit.journal import Acknowledged
from lostwax.audit.verdict import InOrders, InView, Known
from lostwax.contracts.orders import Status
from lostwax.contracts.topics import Topic
from lostwax.kit.dead import Letter, read

_ORDERS = """
    SELECT o.order_id, o.version, o.status, o.status_since, md5(o.body::text) AS digest, h.steps, h.last_step,
           EXISTS (SELECT FROM bucket_owner b WHERE b.state = 'owned'
                   AND b.bucket = ('x' || right(o.order_id::text, 3))::bit(12)::int & 1023) AS owned
    FROM orders o
    CROSS JOIN LATERAL (SELECT count(*)::int AS steps, coalesce(max(version), 0) AS last_step
                        FROM order_history h WHERE h.order_id = o.order_id) h
"""
_CHANNEL = "SELECT o.order_id, o.version, o.status, md5(o.order_body::text) AS digest FROM requests o"
_READER = "SELECT o.order_id, o.version, o.status, md5(o.body::text) AS digest FROM orders o"


_VIEWS = {"the partner API": "partner_api", "the MES": "mes", "the CRM": "crm"}


class Databases(msgspec.Struct, frozen=True):
    """Read-only addresses of every database: the channel's, the MES', the CRM's, and each shard's."""

    partner_api: str
    mes: str
    crm: str
    shards: tuple[str, ...]


class _Source:
    """One sorted stream with its next row in hand."""

    def __init__(self, name: str, rows: AsyncIterator[asyncpg.Record]) -> None:
        self.name = name
        self._rows = rows
        self.row: asyncpg.Record | None = None

    async def advance(self) -> None:
        self.row = await anext(self._rows, None)


@asynccontextmanager
async def _reading(dsn: str, sql: str, only: Sequence[UUID] | None) -> AsyncIterator[AsyncIterator[asyncpg.Record]]:
    connection = await asyncpg.connect(dsn, timeout=5, server_settings={"application_name": "audit", "jit": "off"})
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            where = "" if only is None else " WHERE o.order_id = ANY($1)"
            arguments = () if only is None else (list(only),)
            yield aiter(connection.cursor(f"{sql}{where} ORDER BY o.order_id", *arguments, prefetch=2000))
    finally:
        await connection.close(timeout=5)


async def known_orders(
    databases: Databases, acknowledged: Mapping[UUID, Acknowledged], only: Sequence[UUID] | None = None
) -> AsyncIterator[Known]:
    """What is known of each order that anybody knows of, in the order of id; with `only`, of these orders.

    The databases are read one snapshot each, not at one instant: what is under way may look different in two of them.
    """
    wanted = sorted(acknowledged if only is None else set(only) & set(acknowledged))
    async with AsyncExitStack() as resources:
        shards = [
            _Source(f"shard-{number}", await resources.enter_async_context(_reading(dsn, _ORDERS, only)))
            for number, dsn in enumerate(databases.shards)
        ]
        channel = _Source(
            "partner_api", await resources.enter_async_context(_reading(databases.partner_api, _CHANNEL, only))
        )
        readers = [
            _Source(name, await resources.enter_async_context(_reading(dsn, _READER, only)))
            for name, dsn in (("mes", databases.mes), ("crm", databases.crm))
        ]
        sources = [*shards, channel, *readers]
        for source in sources:
            await source.advance()
        position = 0
        while True:
            heads = [s.row["order_id"].int for s in sources if s.row is not None]
            if position < len(wanted):
                heads.append(wanted[position].int)
            if not heads:
                return
            current = min(heads)
            here = {s.name: s.row for s in sources if s.row is not None and s.row["order_id"].int == current}
            told = position < len(wanted) and wanted[position].int == current
            position += told
            yield Known(
                order_id=UUID(int=current),
                acknowledged=told,
                requested="partner_api" in here,
                in_orders=[_in_orders(n, here[s.name]) for n, s in enumerate(shards) if s.name in here],
                views={name: _in_view(here.get(source)) for name, source in _VIEWS.items()},
            )
            for source in sources:
                if source.name in here:
                    await source.advance()


def _in_orders(shard: int, row: asyncpg.Record) -> InOrders:
    since: datetime = row["status_since"]
    return InOrders(
        shard=shard,
        owned=row["owned"],
        version=row["version"],
        status=Status(row["status"]),
        since=since,
        digest=row["digest"],
        steps=row["steps"],
        last_step=row["last_step"],
    )


def _in_view(row: asyncpg.Record | None) -> InView | None:
    return None if row is None else InView(row["version"], row["status"], row["digest"])


async def doubled_submissions(databases: Databases) -> list[tuple[str, list[UUID]]]:
    """Submissions of one client that became two orders. The channel's unique key forbids it; the audit looks."""
    connection = await asyncpg.connect(databases.partner_api, timeout=5)
    try:
        rows = await connection.fetch(
            "SELECT client_id::text || ' ' || idempotency_key AS submission, array_agg(order_id) AS ids"
            " FROM requests GROUP BY client_id, idempotency_key HAVING count(*) > 1"
        )
    finally:
        await connection.close()
    return [(r["submission"], [UUID(int=i.int) for i in r["ids"]]) for r in rows]


class Announced(msgspec.Struct, frozen=True):
    """Both sides' counts: what channels announced, and what Orders still expects, since when."""

    announced: int
    expected: int
    oldest: datetime | None


async def announcements(databases: Databases) -> Announced:
    """What was announced and what of it has not arrived. Orders forgets what has."""
    announced = await _one_row(databases.partner_api, "SELECT announced FROM announcing")
    expected, oldest = 0, []
    for dsn in databases.shards:
        row = await _one_row(
            dsn,
            "SELECT count(*) AS n, min(announced_at) AS oldest FROM announced a"
            " WHERE NOT EXISTS (SELECT FROM orders o WHERE o.order_id = a.order_id)",
        )
        expected += row["n"]
        oldest += [row["oldest"]] if row["n"] else []
    return Announced(announced["announced"], expected, min(oldest, default=None))


async def _one_row(dsn: str, sql: str) -> asyncpg.Record:
    connection = await asyncpg.connect(dsn, timeout=5)
    try:
        row = await connection.fetchrow(sql)
    finally:
        await connection.close()
    assert row is not None
    return row


async def unpublished(databases: Databases) -> dict[str, tuple[int, datetime]]:
    """Rows that wait in each database's outbox, and since when the oldest does."""
    waiting: dict[str, tuple[int, datetime]] = {}
    named = {"partner_api": databases.partner_api, "mes": databases.mes, "crm": databases.crm}
    named |= {f"shard-{n}": dsn for n, dsn in enumerate(databases.shards)}
    for name, dsn in named.items():
        row = await _one_row(dsn, "SELECT count(*) AS rows, min(created_at) AS oldest FROM outbox")
        if row["rows"]:
            waiting[name] = (row["rows"], row["oldest"])
    return waiting


class Parked(msgspec.Struct, frozen=True):
    """A dead-lettered command that holds up its order: the place it came from, since when, and how many commands of the
    order wait."""

    place: str
    order_id: UUID
    since: datetime
    waiting: int


async def parked(databases: Databases) -> list[Parked]:
    """What holds up orders, on all shards."""
    found: list[Parked] = []
    for dsn in databases.shards:
        connection = await asyncpg.connect(dsn, timeout=5)
        try:
            rows = await connection.fetch(
                "SELECT d.place, d.order_id, d.since,"
                " (SELECT count(*)::int FROM parked_commands p"
                "  WHERE p.order_id = d.order_id AND p.position > d.position) AS waiting"
                " FROM dead_commands d ORDER BY d.since"
            )
        finally:
            await connection.close()
        found += [Parked(r["place"], UUID(int=r["order_id"].int), r["since"], r["waiting"]) for r in rows]
    return found


def dead_letters(bootstrap: str, topics: Sequence[Topic]) -> list[Letter]:
    """Dead letters that nobody has replayed or discarded. Blocks; raises KafkaException when the broker does not
    answer."""
    return [letter for letters in read(bootstrap, topics).values() for letter in letters.open.values()]
