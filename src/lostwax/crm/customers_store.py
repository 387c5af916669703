"""SQL of customers. Every function takes a connection and works in its caller's transaction."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import asyncpg
import msgspec

from lostwax.crm import domain
from lostwax.kit.postgres import Connection


class Contact(msgspec.Struct, frozen=True):
    contact_id: UUID
    name: str
    position: str
    phone: str
    email: str


class CustomerLine(msgspec.Struct, frozen=True):
    """What a list shows of a customer. `phone` and `email`: of the first contact that has one."""

    customer_id: UUID
    kind: str
    name: str
    seller_id: UUID
    seller: str
    phone: str
    email: str
    created_at: datetime


class CustomerRow(msgspec.Struct, frozen=True):
    customer_id: UUID
    kind: str
    name: str
    seller_id: UUID
    seller: str
    consent_at: datetime | None
    consent_how: str | None
    version: int
    created_at: datetime
    merged_into: UUID | None


class Change(msgspec.Struct, frozen=True):
    """What was done to a customer, by whom."""

    version: int
    by: str
    at: datetime
    what: str


class Note(msgspec.Struct, frozen=True):
    note_id: UUID
    by: str
    text: str
    at: datetime


def _id(value: object) -> UUID:
    return UUID(int=value.int)  # type: ignore[attr-defined]


async def customer(connection: Connection, customer_id: UUID, *, lock: bool = False) -> CustomerRow | None:
    row = await connection.fetchrow(
        "SELECT c.*, s.name AS seller FROM customers c JOIN staff s ON s.staff_id = c.seller_id WHERE customer_id = $1"
        + (" FOR UPDATE OF c" if lock else ""),
        customer_id,
    )
    if row is None:
        return None
    return CustomerRow(
        _id(row["customer_id"]),
        row["kind"],
        row["name"],
        _id(row["seller_id"]),
        row["seller"],
        row["consent_at"],
        row["consent_how"],
        row["version"],
        row["created_at"],
        None if row["merged_into"] is None else _id(row["merged_into"]),
    )


async def contacts(connection: Connection, customer_id: UUID) -> list[Contact]:
    rows = await connection.fetch(
        "SELECT contact_id, name, position, phone, email FROM contacts WHERE customer_id = $1 ORDER BY contact_id",
        customer_id,
    )
    return [Contact(_id(r["contact_id"]), r["name"], r["position"], r["phone"], r["email"]) for r in rows]


async def insert(
    connection: Connection, customer_id: UUID, kind: str, name: str, seller_id: UUID, at: datetime
) -> None:
    await connection.execute(
        "INSERT INTO customers (customer_id, kind, name, seller_id, created_at, words) VALUES ($1, $2, $3, $4, $5, '')",
        customer_id,
        kind,
        name,
        seller_id,
        at,
    )


async def insert_contact(connection: Connection, customer_id: UUID, contact: Contact, at: datetime) -> None:
    await connection.execute(
        "INSERT INTO contacts (contact_id, customer_id, name, position, phone, phone_digits, email, created_at)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        contact.contact_id,
        customer_id,
        contact.name,
        contact.position,
        contact.phone,
        domain.digits(contact.phone)[-10:],
        contact.email,
        at,
    )


async def delete_contact(connection: Connection, customer_id: UUID, contact_id: UUID) -> bool:
    done = await connection.execute(
        "DELETE FROM contacts WHERE customer_id = $1 AND contact_id = $2", customer_id, contact_id
    )
    return done == "DELETE 1"


async def index_words(connection: Connection, customer_id: UUID) -> None:
    """Find the customer by what they are called and reached by now."""
    found = await customer(connection, customer_id)
    assert found is not None
    known = await contacts(connection, customer_id)
    texts = [found.name, *(text for c in known for text in (c.name, c.email))]
    words = domain.lexemes(texts, [c.phone for c in known])
    await connection.execute(
        "UPDATE customers SET words = array_to_tsvector($2::text[]) WHERE customer_id = $1", customer_id, words
    )


async def changed(connection: Connection, customer_id: UUID, staff_id: UUID, what: str, at: datetime) -> None:
    """Raise the version of a customer whose row is locked, and write down what was done."""
    await connection.execute(
        "WITH raised AS (UPDATE customers SET version = version + 1 WHERE customer_id = $1 RETURNING version)"
        " INSERT INTO customer_changes (customer_id, version, staff_id, at, what)"
        " SELECT $1, version, $2, $3, $4 FROM raised",
        customer_id,
        staff_id,
        at,
        what,
    )


async def first_change(connection: Connection, customer_id: UUID, staff_id: UUID, what: str, at: datetime) -> None:
    await connection.execute(
        "INSERT INTO customer_changes (customer_id, version, staff_id, at, what) VALUES ($1, 1, $2, $3, $4)",
        customer_id,
        staff_id,
        at,
        what,
    )


async def changes(connection: Connection, customer_id: UUID, limit: int) -> list[Change]:
    """The newest first."""
    rows = await connection.fetch(
        "SELECT h.version, s.name, h.at, h.what FROM customer_changes h JOIN staff s USING (staff_id)"
        " WHERE customer_id = $1 ORDER BY h.version DESC LIMIT $2",
        customer_id,
        limit,
    )
    return [Change(r["version"], r["name"], r["at"], r["what"]) for r in rows]


async def set_names(connection: Connection, customer_id: UUID, kind: str, name: str, seller_id: UUID) -> None:
    await connection.execute(
        "UPDATE customers SET kind = $2, name = $3, seller_id = $4 WHERE customer_id = $1",
        customer_id,
        kind,
        name,
        seller_id,
    )


async def set_consent(connection: Connection, customer_id: UUID, at: datetime | None, how: str | None) -> None:
    await connection.execute(
        "UPDATE customers SET consent_at = $2, consent_how = $3 WHERE customer_id = $1", customer_id, at, how
    )


async def insert_note(
    connection: Connection, note_id: UUID, customer_id: UUID, staff_id: UUID, text: str, at: datetime
) -> None:
    await connection.execute(
        "INSERT INTO customer_notes (note_id, customer_id, staff_id, text, at) VALUES ($1, $2, $3, $4, $5)",
        note_id,
        customer_id,
        staff_id,
        text,
        at,
    )


async def notes(connection: Connection, customer_id: UUID, limit: int) -> list[Note]:
    """The newest first."""
    rows = await connection.fetch(
        "SELECT n.note_id, s.name, n.text, n.at FROM customer_notes n JOIN staff s USING (staff_id)"
        " WHERE customer_id = $1 ORDER BY note_id DESC LIMIT $2",
        customer_id,
        limit,
    )
    return [Note(_id(r["note_id"]), r["name"], r["text"], r["at"]) for r in rows]


_NEWEST = 500

_LINE = (
    "c.customer_id, c.kind, c.name, c.seller_id, s.name AS seller, c.created_at,"
    " coalesce((SELECT phone FROM contacts k WHERE k.customer_id = c.customer_id AND phone <> ''"
    "           ORDER BY contact_id LIMIT 1), '') AS phone,"
    " coalesce((SELECT email FROM contacts k WHERE k.customer_id = c.customer_id AND email <> ''"
    "           ORDER BY contact_id LIMIT 1), '') AS email"
)


def _lines(rows: Sequence[asyncpg.Record]) -> list[CustomerLine]:
    return [
        CustomerLine(
            _id(r["customer_id"]),
            r["kind"],
            r["name"],
            _id(r["seller_id"]),
            r["seller"],
            r["phone"],
            r["email"],
            r["created_at"],
        )
        for r in rows
    ]


async def found(connection: Connection, query: str, before: UUID | None, limit: int) -> list[CustomerLine]:
    """Who is found by a tsquery, the newest first, from below `before`.

    What many customers are called by is found often enough among the newest; what few are, by the index of words.
    PostgreSQL cannot tell the two apart, for it takes every prefix to match one row in fifty.
    """
    newest = await connection.fetch(_found(f"ORDER BY customer_id DESC LIMIT {_NEWEST}"), query, before, limit)
    if len(newest) == limit:
        return _lines(newest)
    return _lines(await connection.fetch(_found("AND words @@ $1::tsquery OFFSET 0"), query, before, limit))


def _found(looked_through: str) -> str:
    return f"""
        SELECT {_LINE} FROM
        (SELECT * FROM (SELECT * FROM customers WHERE merged_into IS NULL AND ($2::uuid IS NULL OR customer_id < $2)
                        {looked_through}) l
         WHERE words @@ $1::tsquery ORDER BY customer_id DESC LIMIT $3) c
        JOIN staff s ON s.staff_id = c.seller_id ORDER BY c.customer_id DESC
        """


async def page(connection: Connection, seller_id: UUID | None, before: UUID | None, limit: int) -> list[CustomerLine]:
    """Customers, of all sellers or of one, the newest first, from below `before`."""
    of_one = "" if seller_id is None else " AND seller_id = $3"
    rows = await connection.fetch(
        f"""
        SELECT {_LINE} FROM
        (SELECT * FROM customers WHERE merged_into IS NULL AND ($1::uuid IS NULL OR customer_id < $1){of_one}
         ORDER BY customer_id DESC LIMIT $2) c
        JOIN staff s ON s.staff_id = c.seller_id ORDER BY c.customer_id DESC
        """,
        before,
        limit,
        *(() if seller_id is None else (seller_id,)),
    )
    return _lines(rows)


async def doubles(connection: Connection, customer_id: UUID) -> list[CustomerLine]:
    """Who shares a telephone number or a mail address with this customer."""
    rows = await connection.fetch(
        f"""
        WITH shared AS MATERIALIZED (
            SELECT o.customer_id FROM contacts m JOIN contacts o
                ON o.phone_digits = m.phone_digits AND o.phone_digits <> '' WHERE m.customer_id = $1
            UNION
            SELECT o.customer_id FROM contacts m JOIN contacts o
                ON lower(o.email) = lower(m.email) AND o.email <> '' WHERE m.customer_id = $1
            LIMIT 100)
        SELECT {_LINE} FROM shared JOIN customers c USING (customer_id) JOIN staff s ON s.staff_id = c.seller_id
        WHERE c.merged_into IS NULL AND c.customer_id <> $1
        ORDER BY c.customer_id LIMIT 20
        """,
        customer_id,
    )
    return _lines(rows)


async def merge(connection: Connection, from_id: UUID, into_id: UUID) -> None:
    """What was one's is the other's; both rows are locked."""
    for table in ("contacts", "customer_notes", "desk"):
        await connection.execute(f"UPDATE {table} SET customer_id = $2 WHERE customer_id = $1", from_id, into_id)
    await connection.execute("UPDATE customers SET merged_into = $2 WHERE merged_into = $1", from_id, into_id)
    await connection.execute("UPDATE customers SET merged_into = $2 WHERE customer_id = $1", from_id, into_id)
