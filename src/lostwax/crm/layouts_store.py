"""SQL of layouts. Every function takes a connection and works in its caller's transaction."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import asyncpg
import msgspec

from lostwax.contracts.orders import ModelRef
from lostwax.crm.domain import OVER
from lostwax.kit.postgres import Connection


class Remark(msgspec.Struct, frozen=True):
    """`place`: where on the model, mm as it is drawn; null: of the whole. `by_customer`: through the link."""

    remark_id: UUID
    layout_id: UUID
    author: str
    by_customer: bool
    text: str
    place: tuple[float, float, float] | None
    at: datetime


class Layout(msgspec.Struct, frozen=True):
    """A revision. `state`: draft, sent, approved, answered (the customer wants it otherwise) or superseded."""

    layout_id: UUID
    order_id: UUID
    revision: int
    sha256: str
    name: str
    size_bytes: int
    note: str
    state: str
    by: str
    at: datetime
    answered_by: str | None
    answered_at: datetime | None


class Link(msgspec.Struct, frozen=True):
    link_id: UUID
    layout_id: UUID
    expires_at: datetime
    revoked_at: datetime | None
    answered_at: datetime | None


class Wait(msgspec.Struct, frozen=True):
    """Who is waited for, since when."""

    order_id: UUID
    party: str
    since: datetime


_LAYOUT = (
    "l.layout_id, l.order_id, l.revision, l.sha256, l.name, l.size_bytes, l.note, l.state, s.name AS by, l.at,"
    " l.answered_by, l.answered_at"
)


def _id(value: object) -> UUID:
    return UUID(int=value.int)  # type: ignore[attr-defined]


def _layout(row: asyncpg.Record) -> Layout:
    fields = dict(row)
    return Layout(**fields | {"layout_id": _id(row["layout_id"]), "order_id": _id(row["order_id"])})


async def lock_order(connection: Connection, order_id: UUID) -> None:
    """Layouts of one order change one after the other."""
    await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 7300))", str(order_id))


async def layouts(connection: Connection, order_id: UUID) -> list[Layout]:
    """By revision."""
    rows = await connection.fetch(
        f"SELECT {_LAYOUT} FROM layouts l JOIN staff s USING (staff_id) WHERE order_id = $1 ORDER BY revision", order_id
    )
    return [_layout(row) for row in rows]


async def layout(connection: Connection, layout_id: UUID) -> Layout | None:
    row = await connection.fetchrow(
        f"SELECT {_LAYOUT} FROM layouts l JOIN staff s USING (staff_id) WHERE layout_id = $1", layout_id
    )
    return None if row is None else _layout(row)


async def insert(
    connection: Connection, layout_id: UUID, order_id: UUID, model: ModelRef, note: str, staff_id: UUID, at: datetime
) -> None:
    """The next revision of an order that is locked; what was open before it is superseded."""
    await connection.execute(
        "UPDATE layouts SET state = 'superseded' WHERE order_id = $1 AND state IN ('draft', 'sent')", order_id
    )
    await connection.execute(
        "INSERT INTO layouts (layout_id, order_id, revision, sha256, name, size_bytes, note, staff_id, at)"
        " SELECT $1, $2, coalesce(max(revision), 0) + 1, $3, $4, $5, $6, $7, $8 FROM layouts WHERE order_id = $2",
        layout_id,
        order_id,
        model.sha256,
        model.name,
        model.size_bytes,
        note,
        staff_id,
        at,
    )


async def set_state(connection: Connection, layout_id: UUID, state: str) -> None:
    await connection.execute("UPDATE layouts SET state = $2 WHERE layout_id = $1", layout_id, state)


async def set_answer(connection: Connection, layout_id: UUID, state: str, by: str, at: datetime) -> None:
    await connection.execute(
        "UPDATE layouts SET state = $2, answered_by = $3, answered_at = $4 WHERE layout_id = $1",
        layout_id,
        state,
        by,
        at,
    )


async def remarks(connection: Connection, layout_ids: list[UUID]) -> list[Remark]:
    """The oldest first."""
    rows = await connection.fetch(
        "SELECT * FROM layout_remarks WHERE layout_id = ANY($1) ORDER BY remark_id LIMIT 1000", layout_ids
    )
    return [
        Remark(
            _id(r["remark_id"]),
            _id(r["layout_id"]),
            r["author"],
            r["staff_id"] is None,
            r["text"],
            None if r["x"] is None else (r["x"], r["y"], r["z"]),
            r["at"],
        )
        for r in rows
    ]


async def insert_remark(connection: Connection, remark: Remark, staff_id: UUID | None) -> None:
    x, y, z = remark.place or (None, None, None)
    await connection.execute(
        "INSERT INTO layout_remarks (remark_id, layout_id, staff_id, author, text, x, y, z, at)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        remark.remark_id,
        remark.layout_id,
        staff_id,
        remark.author,
        remark.text,
        x,
        y,
        z,
        remark.at,
    )


async def count_remarks(connection: Connection, layout_id: UUID) -> int:
    return int(await connection.fetchval("SELECT count(*) FROM layout_remarks WHERE layout_id = $1", layout_id))


async def revoke_links(connection: Connection, order_id: UUID, at: datetime) -> None:
    """Every link to layouts of an order that was not answered leads nowhere from now on."""
    await connection.execute(
        "UPDATE layout_links k SET revoked_at = $2 FROM layouts l WHERE l.layout_id = k.layout_id AND l.order_id = $1"
        " AND k.revoked_at IS NULL AND k.answered_at IS NULL",
        order_id,
        at,
    )


async def insert_link(connection: Connection, link: Link, digest: bytes, staff_id: UUID, at: datetime) -> None:
    await connection.execute(
        "INSERT INTO layout_links (link_id, digest, layout_id, staff_id, sent_at, expires_at)"
        " VALUES ($1, $2, $3, $4, $5, $6)",
        link.link_id,
        digest,
        link.layout_id,
        staff_id,
        at,
        link.expires_at,
    )


async def link(connection: Connection, digest: bytes, *, lock: bool = False) -> Link | None:
    row = await connection.fetchrow(
        "SELECT link_id, layout_id, expires_at, revoked_at, answered_at FROM layout_links WHERE digest = $1"
        + (" FOR UPDATE" if lock else ""),
        digest,
    )
    if row is None:
        return None
    return Link(_id(row["link_id"]), _id(row["layout_id"]), row["expires_at"], row["revoked_at"], row["answered_at"])


async def sender(connection: Connection, layout_id: UUID) -> UUID:
    """Which seller has made a layout."""
    return _id(await connection.fetchval("SELECT staff_id FROM layouts WHERE layout_id = $1", layout_id))


async def count_opening(connection: Connection, link_id: UUID) -> None:
    await connection.execute("UPDATE layout_links SET opened = opened + 1 WHERE link_id = $1", link_id)


async def set_link_answered(connection: Connection, link_id: UUID, at: datetime) -> None:
    await connection.execute("UPDATE layout_links SET answered_at = $2 WHERE link_id = $1", link_id, at)


async def openings(connection: Connection, order_id: UUID) -> dict[UUID, int]:
    """How often the links to each layout of an order were opened."""
    rows = await connection.fetch(
        "SELECT k.layout_id, sum(k.opened)::int AS opened FROM layout_links k JOIN layouts l USING (layout_id)"
        " WHERE l.order_id = $1 GROUP BY k.layout_id",
        order_id,
    )
    return {_id(r["layout_id"]): r["opened"] for r in rows}


async def wait_for(connection: Connection, order_id: UUID, party: str | None, at: datetime) -> None:
    """From now on this party is waited for (None: nobody, as about an order that is over). The clock of who is waited
    for already goes on."""
    # Held, so that the order is not over before this is seen, and waited for after that.
    if await connection.fetchval("SELECT status FROM orders WHERE order_id = $1 FOR SHARE", order_id) in OVER:
        party = None
    open_one = await connection.fetchrow(
        "SELECT party, since FROM layout_waits WHERE order_id = $1 AND ended_at IS NULL FOR UPDATE", order_id
    )
    if open_one is not None:
        if open_one["party"] == party:
            return
        await connection.execute(
            "UPDATE layout_waits SET ended_at = greatest($2, since) WHERE order_id = $1 AND ended_at IS NULL",
            order_id,
            at,
        )
    if party is not None:
        await connection.execute(
            "INSERT INTO layout_waits (order_id, party, since) VALUES ($1, $2, $3)"
            " ON CONFLICT (order_id, since) DO UPDATE SET party = excluded.party, ended_at = NULL",
            order_id,
            party,
            at,
        )


async def stop_waiting(connection: Connection, order_ids: Sequence[UUID], at: datetime) -> None:
    """Nobody is waited for any more about these orders."""
    await connection.execute(
        "UPDATE layout_waits SET ended_at = greatest($2, since) WHERE order_id = ANY($1) AND ended_at IS NULL",
        list(order_ids),
        at,
    )


async def waited(connection: Connection, order_id: UUID, now: datetime) -> dict[str, float]:
    """How long each party has been waited for in all, seconds."""
    rows = await connection.fetch(
        "SELECT party, sum(extract(epoch FROM coalesce(ended_at, $2) - since))::float8 AS seconds FROM layout_waits"
        " WHERE order_id = $1 GROUP BY party",
        order_id,
        now,
    )
    return {r["party"]: r["seconds"] for r in rows}


async def waiting_now(connection: Connection, order_id: UUID) -> Wait | None:
    row = await connection.fetchrow(
        "SELECT party, since FROM layout_waits WHERE order_id = $1 AND ended_at IS NULL", order_id
    )
    return None if row is None else Wait(order_id, row["party"], row["since"])


async def waits(connection: Connection, party: str, limit: int) -> list[Wait]:
    """Orders whose layout waits for a party, the longest first."""
    rows = await connection.fetch(
        "SELECT order_id, party, since FROM layout_waits WHERE party = $1 AND ended_at IS NULL ORDER BY since LIMIT $2",
        party,
        limit,
    )
    return [Wait(_id(r["order_id"]), r["party"], r["since"]) for r in rows]


async def templates(connection: Connection) -> list[tuple[str, str]]:
    rows = await connection.fetch("SELECT name, text FROM answer_templates ORDER BY name LIMIT 200")
    return [(r["name"], r["text"]) for r in rows]


async def put_template(
    connection: Connection, template_id: UUID, name: str, text: str, staff_id: UUID, at: datetime
) -> None:
    """A template of this name; what it said before is forgotten."""
    await connection.execute(
        "INSERT INTO answer_templates (template_id, name, text, staff_id, at) VALUES ($1, $2, $3, $4, $5)"
        " ON CONFLICT (name) DO UPDATE SET text = excluded.text, staff_id = excluded.staff_id, at = excluded.at",
        template_id,
        name,
        text,
        staff_id,
        at,
    )
