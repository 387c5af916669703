"""Use cases of customers, each one transaction. Every change names the version that was seen; whoever saw an older one
is told what has changed since, and who changed it."""

from datetime import datetime
from uuid import UUID

import msgspec

from lostwax.contracts.ids import new_id
from lostwax.crm import customers_store, desk_store
from lostwax.crm.customers_store import Change, Contact, CustomerLine, CustomerRow, Note
from lostwax.crm.handlers import Office
from lostwax.kit.auth import Member
from lostwax.kit.postgres import Connection
from lostwax.kit.problems import Problem

_SHOWN = 50


class CustomerView(msgspec.Struct, frozen=True):
    """A customer. `consent_at`: since when they may be written to; null: they may not. `doubles` share a telephone
    number or a mail address. `merged_into`: this one went into that one."""

    customer_id: UUID
    kind: str
    name: str
    seller_id: UUID
    seller: str
    version: int
    created_at: datetime
    consent_at: datetime | None
    consent_how: str | None
    merged_into: UUID | None
    contacts: list[Contact]
    notes: list[Note]
    changes: list[Change]
    doubles: list[CustomerLine]


async def view(office: Office, customer_id: UUID) -> CustomerView:
    """Raises the 404 Problem."""
    async with office.pool.acquire() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        return await _view(connection, await _known(connection, customer_id))


async def _view(connection: Connection, row: CustomerRow) -> CustomerView:
    customer_id = row.customer_id
    return CustomerView(
        customer_id,
        row.kind,
        row.name,
        row.seller_id,
        row.seller,
        row.version,
        row.created_at,
        row.consent_at,
        row.consent_how,
        row.merged_into,
        await customers_store.contacts(connection, customer_id),
        await customers_store.notes(connection, customer_id, _SHOWN),
        await customers_store.changes(connection, customer_id, _SHOWN),
        await customers_store.doubles(connection, customer_id),
    )


async def _known(connection: Connection, customer_id: UUID, *, lock: bool = False) -> CustomerRow:
    row = await customers_store.customer(connection, customer_id, lock=lock)
    if row is None:
        raise Problem(404, "not-found", "No such customer", "See GET /v1/customers.")
    return row


async def _seen(connection: Connection, customer_id: UUID, version: int) -> CustomerRow:
    """The customer, locked, if nobody has changed it since. Raises the 404 and 409 Problems."""
    row = await _known(connection, customer_id, lock=True)
    if row.merged_into is not None:
        raise Problem(
            409, "merged", "This customer was merged into another", "Go on there.", merged_into=str(row.merged_into)
        )
    if row.version != version:
        last = (await customers_store.changes(connection, customer_id, 1))[0]
        raise Problem(
            409,
            "stale",
            "The customer has changed since you looked",
            f"{last.by} at {last.at:%Y-%m-%d %H:%M:%S} UTC: {last.what}. Look again.",
            version_now=row.version,
            changed={"by": last.by, "at": last.at, "what": last.what},
        )
    return row


async def add(
    office: Office, member: Member, kind: str, name: str, phone: str, email: str, consent_how: str | None
) -> CustomerView:
    """A new customer of the member's own, with how they are reached. Doubles are told, not refused: families share a
    telephone."""
    async with office.pool.acquire() as connection, connection.transaction():
        customer_id = await insert(connection, member, kind, name, phone, email, consent_how, office.now())
        return await _view(connection, await _known(connection, customer_id))


async def insert(
    connection: Connection,
    member: Member,
    kind: str,
    name: str,
    phone: str,
    email: str,
    consent_how: str | None,
    now: datetime,
) -> UUID:
    """As `add`, in the caller's transaction; the new customer's id."""
    customer_id = new_id()
    await customers_store.insert(connection, customer_id, kind, name, member.staff_id, now)
    if phone or email:
        contact = Contact(new_id(), name, "", phone, email)
        await customers_store.insert_contact(connection, customer_id, contact, now)
    if consent_how:
        await customers_store.set_consent(connection, customer_id, now, consent_how)
    await customers_store.index_words(connection, customer_id)
    await customers_store.first_change(connection, customer_id, member.staff_id, "added", now)
    return customer_id


async def rename(
    office: Office, member: Member, customer_id: UUID, kind: str, name: str, seller_id: UUID | None, version: int
) -> CustomerView:
    """`seller_id` None: whose it is stays."""
    async with office.pool.acquire() as connection, connection.transaction():
        row = await _seen(connection, customer_id, version)
        seller = row.seller_id if seller_id is None else seller_id
        names = dict(await desk_store.sellers(connection))
        if seller != row.seller_id and seller not in names:
            raise Problem(422, "no-such-seller", "Nobody sells under this id", "See GET /v1/sellers.")
        await customers_store.set_names(connection, customer_id, kind, name, seller)
        what = [f"name: {row.name} -> {name}"] if row.name != name else []
        what += [f"{row.kind} -> {kind}"] if row.kind != kind else []
        what += [f"seller: {row.seller} -> {names[seller]}"] if seller != row.seller_id else []
        return await _done(office, connection, member, customer_id, "; ".join(what) or "nothing")


async def add_contact(
    office: Office, member: Member, customer_id: UUID, contact: Contact, version: int
) -> CustomerView:
    async with office.pool.acquire() as connection, connection.transaction():
        await _seen(connection, customer_id, version)
        await customers_store.insert_contact(connection, customer_id, contact, office.now())
        return await _done(office, connection, member, customer_id, f"contact {contact.name} added")


async def remove_contact(
    office: Office, member: Member, customer_id: UUID, contact_id: UUID, version: int
) -> CustomerView:
    async with office.pool.acquire() as connection, connection.transaction():
        await _seen(connection, customer_id, version)
        if not await customers_store.delete_contact(connection, customer_id, contact_id):
            raise Problem(404, "not-found", "No such contact", "The customer has no such contact.")
        return await _done(office, connection, member, customer_id, "a contact removed")


async def set_consent(office: Office, member: Member, customer_id: UUID, how: str | None, version: int) -> CustomerView:
    """`how` the customer allowed to be written to; None: they take it back."""
    async with office.pool.acquire() as connection, connection.transaction():
        await _seen(connection, customer_id, version)
        now = office.now()
        await customers_store.set_consent(connection, customer_id, None if how is None else now, how)
        what = "consent taken back" if how is None else f"consent given: {how}"
        return await _done(office, connection, member, customer_id, what)


async def add_note(office: Office, member: Member, customer_id: UUID, text: str) -> CustomerView:
    """Notes are added, never changed: two sellers who write at once are both heard."""
    async with office.pool.acquire() as connection, connection.transaction():
        await _known(connection, customer_id)
        await customers_store.insert_note(connection, new_id(), customer_id, member.staff_id, text, office.now())
        return await _view(connection, await _known(connection, customer_id))


async def merge(office: Office, member: Member, customer_id: UUID, into_id: UUID, version: int) -> CustomerView:
    """The customer was the same as another: contacts, notes and orders go over, and the id leads there. Consent stays
    that of the one that remains: nobody is written to because of somebody's merge. Returns the one that remains."""
    if customer_id == into_id:
        raise Problem(422, "same-customer", "This is the same customer", "into: another customer's id.")
    async with office.pool.acquire() as connection, connection.transaction():
        for one in sorted((customer_id, into_id)):  # in one order, so that two who merge do not wait for each other
            await _known(connection, one, lock=True)
        row = await _seen(connection, customer_id, version)
        into = await _known(connection, into_id)
        if into.merged_into is not None:
            raise Problem(
                409,
                "merged",
                "The other customer was merged itself",
                "Merge into that one.",
                merged_into=str(into.merged_into),
            )
        await customers_store.merge(connection, customer_id, into_id)
        now = office.now()
        await customers_store.changed(connection, customer_id, member.staff_id, f"merged into {into.name}", now)
        return await _done(office, connection, member, into_id, f"{row.name} merged into it")


async def _done(office: Office, connection: Connection, member: Member, customer_id: UUID, what: str) -> CustomerView:
    await customers_store.index_words(connection, customer_id)
    await customers_store.changed(connection, customer_id, member.staff_id, what[:1000], office.now())
    return await _view(connection, await _known(connection, customer_id))


async def link_order(office: Office, member: Member, order_id: UUID, customer_id: UUID) -> None:
    """Keep for whom an order is. Raises the 404 Problem for an order or customer that is not known."""
    async with office.pool.acquire() as connection, connection.transaction():
        row = await _known(connection, customer_id, lock=True)
        if row.merged_into is not None:
            raise Problem(409, "merged", "This customer was merged into another", "Link to that one.")
        await desk_store.set_customer(connection, order_id, customer_id, row.seller_id)
