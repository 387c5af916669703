"""SQL of customers, their sessions and links. Every function takes a connection and works in its caller's
transaction."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from lostwax.kit.postgres import Connection
from lostwax.shop.domain import Customer, Reader, Session

CHANNEL = "callers"
"""Is notified of sessions' digests when what they permit changes."""

_CUSTOMER = "c.customer_id, c.created_at, c.email, c.name, c.signed_up_at, c.language, c.confirmed_at"
_SESSION = "s.session_id, s.customer_id, s.agent, s.created_at, s.expires_at"


class LinkRow(msgspec.Struct, frozen=True):
    """A link that shows one order. `mailed`: it came by a letter to who ordered."""

    order_id: UUID
    customer_id: UUID
    expires_at: datetime
    revoked_at: datetime | None
    mailed: bool


class MailLink(msgspec.Struct, frozen=True):
    """A link of a letter that confirms an address or sets a new password."""

    purpose: str
    customer_id: UUID
    email: str
    expires_at: datetime
    used_at: datetime | None


async def add_guest(connection: Connection, customer_id: UUID, language: str, now: datetime) -> Customer:
    await connection.execute(
        "INSERT INTO customers (customer_id, created_at, language) VALUES ($1, $2, $3)", customer_id, now, language
    )
    return Customer(customer_id, now, language=language)


async def sign_up(
    connection: Connection, customer_id: UUID, email: str, name: str, password: str, language: str, now: datetime
) -> Customer | None:
    """Make a guest, or somebody new, a customer with an account, whose address is to be confirmed. None when this
    customer has one already."""
    row = await connection.fetchrow(
        f"""
        INSERT INTO customers AS c (customer_id, created_at, email, name, password, signed_up_at, language)
        VALUES ($1, $5, $2, $3, $4, $5, $6)
        ON CONFLICT (customer_id) DO UPDATE
            SET email = excluded.email, name = excluded.name, password = excluded.password, signed_up_at = $5,
                language = excluded.language
            WHERE c.signed_up_at IS NULL
        RETURNING {_CUSTOMER}
        """,
        customer_id,
        email,
        name,
        password,
        now,
        language,
    )
    return None if row is None else Customer(**row)


async def account_of(connection: Connection, email: str) -> UUID | None:
    """Whose address this is, by a letter."""
    found = await connection.fetchval(
        "SELECT customer_id FROM customers WHERE lower(email) = lower($1) AND confirmed_at IS NOT NULL", email
    )
    return None if found is None else UUID(int=found.int)


async def newest_unconfirmed(connection: Connection, email: str) -> UUID | None:
    """Who was the last to sign up by an address and has not confirmed it."""
    found = await connection.fetchval(
        "SELECT customer_id FROM customers WHERE lower(email) = lower($1) AND password IS NOT NULL"
        " AND confirmed_at IS NULL ORDER BY customer_id DESC LIMIT 1",
        email,
    )
    return None if found is None else UUID(int=found.int)


async def password_of(connection: Connection, customer_id: UUID) -> str | None:
    """What is stored of an account's password."""
    found: str | None = await connection.fetchval("SELECT password FROM customers WHERE customer_id = $1", customer_id)
    return found


async def set_confirmed(connection: Connection, customer_id: UUID, email: str, now: datetime) -> bool:
    """False: the account has another address by now. Raises UniqueViolationError when the address is another
    account's."""
    row = await connection.fetchrow(
        "UPDATE customers SET confirmed_at = coalesce(confirmed_at, $3) WHERE customer_id = $1"
        " AND lower(email) = lower($2) AND password IS NOT NULL RETURNING 1",
        customer_id,
        email,
        now,
    )
    return row is not None


async def asked_for(connection: Connection, digest: bytes, now: datetime, since: datetime) -> int:
    """Note that a letter to an address was asked for; how often it was `since`, with this time."""
    await connection.execute("INSERT INTO asked_for (digest, at) VALUES ($1, $2)", digest, now)
    return int(
        await connection.fetchval("SELECT count(*) FROM asked_for WHERE digest = $1 AND at >= $2", digest, since)
    )


async def add_mail_link(
    connection: Connection,
    digest: bytes,
    purpose: str,
    customer_id: UUID,
    email: str,
    now: datetime,
    expires_at: datetime,
) -> None:
    """Links of this purpose that were sent before end with this one."""
    await connection.execute(
        "UPDATE mail_links SET used_at = $3 WHERE customer_id = $1 AND purpose = $2 AND used_at IS NULL",
        customer_id,
        purpose,
        now,
    )
    await connection.execute(
        "INSERT INTO mail_links (digest, purpose, customer_id, email, created_at, expires_at)"
        " VALUES ($1, $2, $3, $4, $5, $6)",
        digest,
        purpose,
        customer_id,
        email,
        now,
        expires_at,
    )


async def mail_link(connection: Connection, digest: bytes, *, lock: bool = False) -> MailLink | None:
    row = await connection.fetchrow(
        "SELECT purpose, customer_id, email, expires_at, used_at FROM mail_links WHERE digest = $1"
        + (" FOR UPDATE" if lock else ""),
        digest,
    )
    return None if row is None else MailLink(**dict(row) | {"customer_id": UUID(int=row["customer_id"].int)})


async def use_mail_link(connection: Connection, digest: bytes, now: datetime) -> None:
    await connection.execute("UPDATE mail_links SET used_at = $2 WHERE digest = $1", digest, now)


async def known_letters(connection: Connection, mail_ids: Sequence[UUID]) -> set[UUID]:
    """Which of these letters were written before."""
    rows = await connection.fetch("SELECT mail_id FROM mails WHERE mail_id = ANY($1)", list(mail_ids))
    return {UUID(int=r["mail_id"].int) for r in rows}


async def owner_of(connection: Connection, order_id: UUID) -> UUID | None:
    """Whose order this is."""
    found = await connection.fetchval("SELECT client_id FROM requests WHERE order_id = $1", order_id)
    return None if found is None else UUID(int=found.int)


async def called(connection: Connection, customer_id: UUID) -> str:
    """What others are told of a customer: nothing that says who they are."""
    found = await customer(connection, customer_id)
    return "guest of the shop" if found is None or found.guest else "customer of the shop"


async def readers(connection: Connection, order_ids: Sequence[UUID]) -> dict[UUID, Reader]:
    """Who gets letters about these orders, but for those who have left no address."""
    rows = await connection.fetch(
        "SELECT r.order_id, c.email, coalesce(c.name, '') AS name, c.language, c.confirmed_at IS NOT NULL AS confirmed"
        " FROM requests r JOIN customers c ON c.customer_id = r.client_id"
        " WHERE r.order_id = ANY($1) AND c.email IS NOT NULL",
        list(order_ids),
    )
    return {UUID(int=r["order_id"].int): Reader(r["email"], r["name"], r["language"], r["confirmed"]) for r in rows}


async def customer(connection: Connection, customer_id: UUID) -> Customer | None:
    row = await connection.fetchrow(f"SELECT {_CUSTOMER} FROM customers c WHERE customer_id = $1", customer_id)
    return None if row is None else Customer(**row)


async def set_contact(connection: Connection, customer_id: UUID, email: str | None, name: str, language: str) -> None:
    """`email` None: as it is."""
    await connection.execute(
        "UPDATE customers SET email = coalesce($2, email), name = $3, language = $4 WHERE customer_id = $1",
        customer_id,
        email,
        name,
        language,
    )


async def set_password(connection: Connection, customer_id: UUID, password: str) -> None:
    await connection.execute("UPDATE customers SET password = $2 WHERE customer_id = $1", customer_id, password)


async def add_session(connection: Connection, digest: bytes, session: Session) -> None:
    await connection.execute(
        "INSERT INTO sessions (digest, session_id, customer_id, agent, created_at, expires_at)"
        " VALUES ($1, $2, $3, $4, $5, $6)",
        digest,
        session.session_id,
        session.customer_id,
        session.agent,
        session.created_at,
        session.expires_at,
    )


async def holder_of(connection: Connection, digest: bytes) -> tuple[Session, Customer] | None:
    """Whose session this is, if it was not revoked."""
    row = await connection.fetchrow(
        f"""
        SELECT {_SESSION}, c.created_at AS since, c.email, c.name, c.signed_up_at, c.language, c.confirmed_at
        FROM sessions s JOIN customers c USING (customer_id)
        WHERE s.digest = $1 AND s.revoked_at IS NULL
        """,
        digest,
    )
    if row is None:
        return None
    customer_id = UUID(int=row["customer_id"].int)
    session = Session(row["session_id"], customer_id, row["agent"], row["created_at"], row["expires_at"])
    about = (row["email"], row["name"], row["signed_up_at"], row["language"], row["confirmed_at"])
    return session, Customer(customer_id, row["since"], *about)


async def sessions_of(connection: Connection, customer_id: UUID, now: datetime) -> list[Session]:
    """Those that still let somebody in, newest first, a hundred at most."""
    rows = await connection.fetch(
        f"SELECT {_SESSION} FROM sessions s WHERE customer_id = $1 AND revoked_at IS NULL AND expires_at > $2"
        " ORDER BY session_id DESC LIMIT 100",
        customer_id,
        now,
    )
    return [Session(**r) for r in rows]


async def revoke_session(connection: Connection, customer_id: UUID, session_id: UUID) -> bool:
    """False: the customer has no such session."""
    row = await connection.fetchrow(
        "UPDATE sessions SET revoked_at = coalesce(revoked_at, now()) WHERE customer_id = $1 AND session_id = $2"
        " RETURNING 1",
        customer_id,
        session_id,
    )
    return row is not None


async def revoke_other_sessions(connection: Connection, customer_id: UUID, but: UUID | None) -> None:
    """All but one, or all."""
    await connection.execute(
        "UPDATE sessions SET revoked_at = now()"
        " WHERE customer_id = $1 AND session_id IS DISTINCT FROM $2 AND revoked_at IS NULL",
        customer_id,
        but,
    )


async def sweep(connection: Connection, before: datetime, at_most: int) -> int:
    """Forget sessions and links that ended before, and whoever left nothing behind and whose address nobody confirmed;
    returns how many sessions."""
    await connection.execute("DELETE FROM asked_for WHERE at < $1", before)
    await connection.execute("DELETE FROM mail_links WHERE expires_at < $1", before)
    await connection.execute(
        "DELETE FROM order_links WHERE digest IN (SELECT digest FROM order_links WHERE expires_at < $1 LIMIT $2)",
        before,
        at_most,
    )
    async with connection.transaction():
        ended = await connection.fetch(
            "DELETE FROM sessions WHERE digest IN (SELECT digest FROM sessions WHERE expires_at < $1 LIMIT $2)"
            " RETURNING customer_id",
            before,
            at_most,
        )
        # Locked first, so that a session that begins meanwhile is seen, or its customer passed over.
        idle = await connection.fetch(
            "SELECT customer_id FROM customers WHERE customer_id = ANY($1) AND confirmed_at IS NULL"
            " FOR UPDATE SKIP LOCKED",
            [row["customer_id"] for row in ended],
        )
        await connection.execute(
            "DELETE FROM customers c WHERE customer_id = ANY($1)"
            " AND NOT EXISTS (SELECT FROM sessions s WHERE s.customer_id = c.customer_id)"
            " AND NOT EXISTS (SELECT FROM requests r WHERE r.client_id = c.customer_id)"
            " AND NOT EXISTS (SELECT FROM quotes q WHERE q.client_id = c.customer_id)"
            " AND NOT EXISTS (SELECT FROM models m WHERE m.client_id = c.customer_id)",
            [row["customer_id"] for row in idle],
        )
    return len(ended)


async def add_link(
    connection: Connection,
    digest: bytes,
    order_id: UUID,
    customer_id: UUID,
    now: datetime,
    expires_at: datetime,
    *,
    mailed: bool = False,
) -> None:
    await connection.execute(
        "INSERT INTO order_links (digest, order_id, customer_id, created_at, expires_at, mailed)"
        " VALUES ($1, $2, $3, $4, $5, $6)",
        digest,
        order_id,
        customer_id,
        now,
        expires_at,
        mailed,
    )


async def link(connection: Connection, digest: bytes) -> LinkRow | None:
    row = await connection.fetchrow(
        "SELECT order_id, customer_id, expires_at, revoked_at, mailed FROM order_links WHERE digest = $1", digest
    )
    if row is None:
        return None
    return LinkRow(
        UUID(int=row["order_id"].int),
        UUID(int=row["customer_id"].int),
        row["expires_at"],
        row["revoked_at"],
        row["mailed"],
    )


async def revoke_links(connection: Connection, customer_id: UUID, order_id: UUID) -> None:
    await connection.execute(
        "UPDATE order_links SET revoked_at = now() WHERE customer_id = $1 AND order_id = $2 AND revoked_at IS NULL",
        customer_id,
        order_id,
    )


async def customers_with_older(connection: Connection, lowest: UUID) -> Sequence[UUID]:
    """Customers who have orders below this id."""
    rows = await connection.fetch("SELECT DISTINCT client_id FROM requests WHERE order_id < $1", lowest)
    return [UUID(int=r["client_id"].int) for r in rows]
