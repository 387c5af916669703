"""Where the audit reads: each database by a cursor in the order of id, so that millions of orders need no memory."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import msgspec

from lostwax.audit.journal import Acknowledged
from lostwax.audit.verdict import InOrders, InReports, InView, Known, KnownQuote, QuoteInOrders
from lostwax.contracts.orders import Status
from lostwax.contracts.topics import Topic
from lostwax.kit.dead import Letter, read

_ORDERS = """
    SELECT o.order_id AS id, o.version, o.status, o.channel, o.status_since, md5(o.body::text) AS digest, h.steps,
           h.last_step, o.submitted_at, (o.body->>'approved_at')::timestamptz AS approved_at,
           ((o.body->'quote'->>'amount')::numeric * 100)::bigint AS amount_minor,
           o.body->'quote'->>'currency' AS currency,
           EXISTS (SELECT FROM bucket_owner b WHERE b.state = 'owned'
                   AND b.bucket = ('x' || right(o.order_id::text, 3))::bit(12)::int & 1023) AS owned
    FROM orders o
    CROSS JOIN LATERAL (SELECT count(*)::int AS steps, coalesce(max(version), 0) AS last_step
                        FROM order_history h WHERE h.order_id = o.order_id) h
"""
_CHANNEL = "SELECT o.order_id AS id, o.version, o.status, md5(o.order_body::text) AS digest FROM requests o"
_READER = "SELECT o.order_id AS id, o.version, o.status, md5(o.body::text) AS digest FROM orders o"
_QUOTES = "SELECT o.quote_id AS id, o.version, o.state, o.requested_at, md5(o.body::text) AS digest FROM quotes o"
_ASKED = "SELECT o.quote_id AS id, o.version, md5(o.quote_body::text) AS digest FROM quotes o"

_TOLD = "acknowledged"
_REPORTS_TURNS = 20


class ReportsAway(Exception):
    """Reporting does not answer, in words."""


CHANNELS = {"partner_api": "the partner API", "shop": "the shop", "crm": "the sellers' door"}
"""What they are called, by the names of their databases."""

_VIEWS = {"the MES": "view of mes", "the CRM": "view of crm"}


class Reports(msgspec.Struct, frozen=True):
    """Where reports are compared: Reporting's address and what signs a call to it. Without an address they are not,
    `why_not`."""

    url: str = ""
    token: Callable[[], str] = str
    why_not: str = "no address of Reporting was given"


class Databases(msgspec.Struct, frozen=True):
    """Read-only addresses of every database: the channels', the MES', the CRM's, and each shard's; and of reports."""

    partner_api: str
    shop: str
    mes: str
    crm: str
    shards: tuple[str, ...]
    reports: Reports = Reports()

    @property
    def channels(self) -> dict[str, str]:
        """The doors that orders come through."""
        return {name: getattr(self, name) for name in CHANNELS}


_Row = asyncpg.Record | Mapping[str, Any]


@asynccontextmanager
async def _reading(
    dsn: str, sql: str, key: str, only: Sequence[UUID] | None
) -> AsyncIterator[AsyncIterator[asyncpg.Record]]:
    connection = await asyncpg.connect(dsn, timeout=5, server_settings={"application_name": "audit", "jit": "off"})
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            where = "" if only is None else f" WHERE o.{key} = ANY($1)"
            arguments = () if only is None else (list(only),)
            yield aiter(connection.cursor(f"{sql}{where} ORDER BY o.{key}", *arguments, prefetch=2000))
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
        sources = {_TOLD: _listed(wanted)}
        for name, (dsn, sql) in {
            **{f"shard-{number}": (dsn, _ORDERS) for number, dsn in enumerate(databases.shards)},
            **{name: (dsn, _CHANNEL) for name, dsn in databases.channels.items()},
            **{f"view of {name}": (dsn, _READER) for name, dsn in (("mes", databases.mes), ("crm", databases.crm))},
        }.items():
            sources[name] = await resources.enter_async_context(_reading(dsn, sql, "order_id", only))
        if databases.reports.url:
            client = await resources.enter_async_context(httpx.AsyncClient(base_url=databases.reports.url, timeout=30))
            sources["reporting"] = _reported(client, databases.reports.token, only)
        async for order_id, here in _merged(sources):
            yield Known(
                order_id=order_id,
                acknowledged=_TOLD in here,
                channels=[name for name in CHANNELS if name in here],
                in_orders=[_in_orders(n, row) for n, row in _on_shards(databases, here)],
                views={name: _in_view(here.get(source)) for name, source in _seen_by(here).items()},
                compared="reporting" in sources,
                reported=_in_reports(here.get("reporting")),
            )


async def known_quotes(databases: Databases, only: Sequence[UUID] | None = None) -> AsyncIterator[KnownQuote]:
    """What is known of each quote that anybody knows of, in the order of id; with `only`, of these quotes."""
    async with AsyncExitStack() as resources:
        sources = {}
        for name, (dsn, sql) in {
            **{f"shard-{number}": (dsn, _QUOTES) for number, dsn in enumerate(databases.shards)},
            **{name: (dsn, _ASKED) for name, dsn in databases.channels.items()},
        }.items():
            sources[name] = await resources.enter_async_context(_reading(dsn, sql, "quote_id", only))
        async for quote_id, here in _merged(sources):
            yield KnownQuote(
                quote_id=quote_id,
                views={CHANNELS[n]: InView(here[n]["version"], "", here[n]["digest"]) for n in CHANNELS if n in here},
                in_orders=[
                    QuoteInOrders(n, row["version"], row["state"], row["requested_at"], row["digest"])
                    for n, row in _on_shards(databases, here)
                ],
            )


async def _merged(sources: Mapping[str, AsyncIterator[_Row]]) -> AsyncIterator[tuple[UUID, dict[str, _Row]]]:
    """Each id that stands anywhere, with the rows of those that have it. Every source is sorted by id."""
    heads = {name: await anext(rows, None) for name, rows in sources.items()}
    while any(row is not None for row in heads.values()):
        current = min(row["id"].int for row in heads.values() if row is not None)
        here = {name: row for name, row in heads.items() if row is not None and row["id"].int == current}
        yield UUID(int=current), here
        for name in here:
            heads[name] = await anext(sources[name], None)


async def _listed(ids: Sequence[UUID]) -> AsyncIterator[_Row]:
    for one in ids:
        yield {"id": one}


def _on_shards(databases: Databases, here: Mapping[str, _Row]) -> list[tuple[int, _Row]]:
    return [(n, here[f"shard-{n}"]) for n in range(len(databases.shards)) if f"shard-{n}" in here]


def _seen_by(here: Mapping[str, _Row]) -> dict[str, str]:
    """Who must know of an order: its own channel, and all who see every order."""
    told = next((row["channel"] for name, row in here.items() if name.startswith("shard-")), None)
    own = told if told in CHANNELS else next((name for name in CHANNELS if name in here), "partner_api")
    return {CHANNELS[own]: own, **_VIEWS}


async def _reported(
    client: httpx.AsyncClient, token: Callable[[], str], only: Sequence[UUID] | None
) -> AsyncIterator[_Row]:
    """Orders as reports have them; with `only`, of these orders. Raises ReportsAway."""
    wanted = None if only is None else set(only)
    bounds = {} if not only else {"until": str(max(only)), "after": str(UUID(int=max(min(only).int - 1, 0)))}
    while wanted is None or wanted:
        page = await _page(client, token, bounds)
        for order in page["orders"]:
            order_id = UUID(order["order_id"])
            if wanted is None or order_id in wanted:
                yield {**order, "id": order_id}
        if page["next"] is None:
            return
        bounds = {**bounds, "after": page["next"]}


async def _page(client: httpx.AsyncClient, token: Callable[[], str], bounds: Mapping[str, str]) -> Any:
    # Reporting may be starting anew just now: it stands in no order's way, so it is let down now and then.
    for patience in range(_REPORTS_TURNS, -1, -1):
        try:
            headers = {"Authorization": f"Bearer {token()}"}
            response = await client.get("/v1/orders-known", params=bounds, headers=headers)
            if response.status_code == 200:
                return response.json()
            why = f"{response.status_code} {response.text[:300]}"
            if response.status_code < 500:
                raise ReportsAway(why)
        except httpx.HTTPError as error:
            why = f"{type(error).__name__}: {error}"
        if patience:
            await asyncio.sleep(1)
    raise ReportsAway(why)


async def reports_answer(databases: Databases) -> None:
    """Fine when reports are not compared. Raises ReportsAway."""
    if databases.reports.url:
        async with httpx.AsyncClient(base_url=databases.reports.url, timeout=30) as client:
            await _page(client, databases.reports.token, {"limit": "1"})


def _in_orders(shard: int, row: _Row) -> InOrders:
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
        submitted_at=row["submitted_at"],
        approved_at=row["approved_at"],
        amount_minor=row["amount_minor"],
        currency=row["currency"],
    )


def _in_reports(row: _Row | None) -> InReports | None:
    return None if row is None else msgspec.convert({**row, "since": row["status_since"]}, InReports)


def _in_view(row: _Row | None) -> InView | None:
    return None if row is None else InView(row["version"], row["status"], row["digest"])


async def doubled_submissions(databases: Databases) -> list[tuple[str, list[UUID]]]:
    """Submissions of one client that became two orders. The channel's unique key forbids it; the audit looks."""
    found: list[tuple[str, list[UUID]]] = []
    for dsn in databases.channels.values():
        connection = await asyncpg.connect(dsn, timeout=5)
        try:
            rows = await connection.fetch(
                "SELECT client_id::text || ' ' || idempotency_key AS submission, array_agg(order_id) AS ids"
                " FROM requests GROUP BY client_id, idempotency_key HAVING count(*) > 1"
            )
        finally:
            await connection.close()
        found += [(r["submission"], [UUID(int=i.int) for i in r["ids"]]) for r in rows]
    return found


class Announced(msgspec.Struct, frozen=True):
    """Both sides' counts: what channels announced, and what Orders still expects, since when."""

    announced: int
    expected: int
    oldest: datetime | None


async def announcements(databases: Databases) -> Announced:
    """What was announced and what of it has not arrived. Orders forgets what has."""
    announced = 0
    for dsn in databases.channels.values():
        announced += (await _one_row(dsn, "SELECT announced FROM announcing"))["announced"]
    expected, oldest = 0, []
    for dsn in databases.shards:
        row = await _one_row(
            dsn,
            "SELECT count(*) AS n, min(announced_at) AS oldest FROM announced a"
            " WHERE NOT EXISTS (SELECT FROM orders o WHERE o.order_id = a.order_id)",
        )
        expected += row["n"]
        oldest += [row["oldest"]] if row["n"] else []
    return Announced(announced, expected, min(oldest, default=None))


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
    named = {**databases.channels, "mes": databases.mes, "crm": databases.crm}
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
