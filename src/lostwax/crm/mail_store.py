"""SQL of letters to customers. Every function takes a connection and works in its caller's transaction."""

from datetime import datetime
from uuid import UUID

import msgspec

from lostwax.kit.postgres import Connection


class MailLine(msgspec.Struct, frozen=True):
    """`state`: waiting, sent, failed or superseded; `seller`: who wrote it, if anybody did; `trouble`: what the mail
    server said last."""

    mail_id: UUID
    address: str
    subject: str
    order_id: UUID | None
    seller: str
    state: str
    attempts: int
    created_at: datetime
    sent_at: datetime | None
    trouble: str | None


def _id(value: object) -> UUID:
    return UUID(int=value.int)  # type: ignore[attr-defined]


async def set_writer(connection: Connection, mail_id: UUID, staff_id: UUID) -> None:
    """Who of the staff has written a letter."""
    await connection.execute("UPDATE mails SET staff_id = $2 WHERE mail_id = $1", mail_id, staff_id)


async def newest(connection: Connection, before: UUID | None, limit: int) -> list[MailLine]:
    rows = await connection.fetch(
        "SELECT m.mail_id, m.address, m.subject, m.order_id, coalesce(s.name, '') AS seller, m.state, m.attempts,"
        " m.created_at, m.sent_at, m.trouble FROM mails m LEFT JOIN staff s USING (staff_id)"
        " WHERE $1::uuid IS NULL OR m.mail_id < $1 ORDER BY m.mail_id DESC LIMIT $2",
        before,
        limit,
    )
    return [
        MailLine(
            **dict(r)
            | {"mail_id": _id(r["mail_id"]), "order_id": None if r["order_id"] is None else _id(r["order_id"])}
        )
        for r in rows
    ]


async def customers_address(connection: Connection, order_id: UUID) -> tuple[str, str] | None:
    """Name and mail address of who an order is for, if they may be written to and have an address."""
    row = await connection.fetchrow(
        "SELECT c.name, k.email FROM desk d JOIN customers c USING (customer_id)"
        " JOIN contacts k ON k.customer_id = c.customer_id AND k.email <> ''"
        " WHERE d.order_id = $1 AND c.consent_at IS NOT NULL ORDER BY k.contact_id LIMIT 1",
        order_id,
    )
    return None if row is None else (row["name"], row["email"])


async def to_remind(connection: Connection, before: datetime, most: int, limit: int) -> list[tuple[UUID, UUID]]:
    """Layouts, each with the seller who sent it, whose customer has not answered since `before`, was not written to
    since, and got at most `most` letters about the order."""
    rows = await connection.fetch(
        """
        SELECT l.layout_id, k.staff_id FROM layout_waits w
        JOIN layouts l ON l.order_id = w.order_id AND l.state = 'sent'
        JOIN layout_links k ON k.layout_id = l.layout_id AND k.revoked_at IS NULL
        WHERE w.party = 'customer' AND w.ended_at IS NULL AND w.since < $1
          AND (SELECT count(*) FROM mails m WHERE m.order_id = w.order_id AND m.kind = 'layout') BETWEEN 1 AND $2
          AND NOT EXISTS (SELECT FROM mails m
                          WHERE m.order_id = w.order_id AND m.kind = 'layout' AND m.created_at >= $1)
        ORDER BY w.since LIMIT $3
        """,
        before,
        most,
        limit,
    )
    return [(_id(r["layout_id"]), _id(r["staff_id"])) for r in rows]
