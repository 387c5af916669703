"""Use cases of layouts, each one transaction: revisions of the model that an order is made from, agreed with the
customer by a link that needs no account.

A link is random, 256 bits, and known by its digest; it shows one layout, ends after its time, with the next revision,
or when another is sent, and takes one answer. Whoever has it may answer, as with a letter; how often it was opened is
kept.
"""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from lostwax.contracts.ids import new_id
from lostwax.contracts.orders import ModelRef
from lostwax.crm import conversation, handlers, layouts_store, store
from lostwax.crm.handlers import Office
from lostwax.crm.layouts_store import Layout, Link, Remark, Wait
from lostwax.kit.auth import Member, digest_of_key, new_api_key
from lostwax.kit.commands import CommandView
from lostwax.kit.postgres import Connection
from lostwax.kit.problems import Problem

LINK_FOR = timedelta(days=14)
MOST_REMARKS = 200
"""Of one layout: a link that got into the wrong hands fills no disk."""

Place = tuple[float, float, float]


class LayoutsView(msgspec.Struct, frozen=True):
    """The layouts of an order by revision. `waiting`: who is waited for now; `waited_s`: how long each party was, in
    all. `opened`: how often the links of a layout were opened."""

    layouts: list[Layout]
    remarks: list[Remark]
    waiting: Wait | None
    waited_s: dict[str, float]
    opened: dict[str, int]


class Sent(msgspec.Struct, frozen=True):
    """`token`: the end of the link's address, shown this once."""

    layout: Layout
    token: str
    expires_at: datetime


async def view(office: Office, order_id: UUID) -> LayoutsView:
    async with office.pool.acquire() as connection:
        found = await layouts_store.layouts(connection, order_id)
        remarks = await layouts_store.remarks(connection, [one.layout_id for one in found])
        opened = await layouts_store.openings(connection, order_id)
        return LayoutsView(
            found,
            remarks,
            await layouts_store.waiting_now(connection, order_id),
            await layouts_store.waited(connection, order_id, office.now()),
            {str(layout_id): count for layout_id, count in opened.items()},
        )


async def add(office: Office, member: Member, order_id: UUID, note: str, proposed: ModelRef | None = None) -> Layout:
    """The order's present model, or the one that is `proposed` and in the model store, as its next revision; links to
    earlier ones end. Raises the 404 Problem, and the 409 Problem when this model is a revision already."""
    order = await handlers.known_order(office, order_id)
    model, layout_id, now = proposed or order.specification.model, new_id(), office.now()
    async with office.pool.acquire() as connection, connection.transaction():
        await layouts_store.lock_order(connection, order_id)
        for one in await layouts_store.layouts(connection, order_id):
            if one.sha256 == model.sha256:
                raise Problem(
                    409,
                    "same-model",
                    "This model is a revision already",
                    f"It is revision {one.revision}, by {one.by}. Change the order's model first.",
                    layout_id=str(one.layout_id),
                )
        await layouts_store.insert(connection, layout_id, order_id, model, note, member.staff_id, now)
        await layouts_store.revoke_links(connection, order_id, now)
        await layouts_store.wait_for(connection, order_id, "seller", now)
        added = await layouts_store.layout(connection, layout_id)
    assert added is not None
    return added


async def known(office: Office, layout_id: UUID) -> Layout:
    """Raises the 404 Problem."""
    async with office.pool.acquire() as connection:
        return await _known(connection, layout_id)


async def _known(connection: Connection, layout_id: UUID) -> Layout:
    found = await layouts_store.layout(connection, layout_id)
    if found is None:
        raise Problem(404, "not-found", "No such layout", "See the layouts of the order.")
    return found


async def send(
    office: Office,
    member: Member,
    layout_id: UUID,
    *,
    beside: Callable[[Connection, Sent], Awaitable[None]] | None = None,
) -> Sent:
    """A fresh link to the newest revision, for the customer; links sent before end. `beside`: what belongs to the same
    transaction. Raises the 404 and 409 Problems."""
    now, token = office.now(), new_api_key("lwl")
    async with office.pool.acquire() as connection, connection.transaction():
        layout = await _known(connection, layout_id)
        await layouts_store.lock_order(connection, layout.order_id)
        layout = await _known(connection, layout_id)
        if layout.state not in ("draft", "sent"):
            raise _settled(layout)
        await layouts_store.revoke_links(connection, layout.order_id, now)
        link = Link(new_id(), layout_id, now + LINK_FOR, None, None)
        await layouts_store.insert_link(connection, link, digest_of_key(token), member.staff_id, now)
        await layouts_store.set_state(connection, layout_id, "sent")
        await layouts_store.wait_for(connection, layout.order_id, "customer", now)
        sent = Sent(await _known(connection, layout_id), token, link.expires_at)
        if (order := await store.order(connection, layout.order_id)) is not None:
            await conversation.tell_of_layout(connection, office, order, sent.layout, member)
        if beside is not None:
            await beside(connection, sent)
        return sent


def _settled(layout: Layout) -> Problem:
    who = f" by {layout.answered_by} at {layout.answered_at:%Y-%m-%d %H:%M} UTC" if layout.answered_at else ""
    return Problem(
        409,
        "layout-settled",
        "This layout is settled",
        f"Revision {layout.revision} is {layout.state}{who}.",
        state=layout.state,
    )


async def remark(office: Office, member: Member, layout_id: UUID, text: str, place: Place | None) -> Remark:
    """A seller's remark. Raises the 404 Problem."""
    async with office.pool.acquire() as connection, connection.transaction():
        await _known(connection, layout_id)
        return await _remark(connection, layout_id, member.name, member.staff_id, text, place, office.now())


async def _remark(
    connection: Connection,
    layout_id: UUID,
    author: str,
    staff_id: UUID | None,
    text: str,
    place: Place | None,
    at: datetime,
) -> Remark:
    if await layouts_store.count_remarks(connection, layout_id) >= MOST_REMARKS:
        raise Problem(409, "too-many-remarks", "There are too many remarks", f"At most {MOST_REMARKS} of a layout.")
    made = Remark(new_id(), layout_id, author, staff_id is None, text, place, at)
    await layouts_store.insert_remark(connection, made, staff_id)
    return made


async def keep_template(office: Office, member: Member, name: str, text: str) -> None:
    """An answer that is often given, by its name. Raises the 422 Problem."""
    name, text = name.strip(), text.strip()
    if not (0 < len(name) <= 100 and 0 < len(text) <= 2000):
        detail = "A name of at most 100 characters, and a text of at most 2000."
        raise Problem(422, "out-of-range", "A template has a name and a text", detail)
    async with office.pool.acquire() as connection:
        await layouts_store.put_template(connection, new_id(), name, text, member.staff_id, office.now())


async def waits(office: Office, party: str, limit: int) -> Sequence[Wait]:
    async with office.pool.acquire() as connection:
        return await layouts_store.waits(connection, party, limit)


async def make_it_so(office: Office, member: Member, layout_id: UUID) -> CommandView:
    """Ask Orders to price the order with this revision's model. Raises the 404 and 409 Problems."""
    layout = await known(office, layout_id)
    model = ModelRef(layout.sha256, layout.size_bytes, layout.name)
    return await handlers.resubmit_order(office, member, layout.order_id, {"model": model}, None)


# -- through the link -------------------------------------------------------------------------------------------------


class Guest(msgspec.Struct, frozen=True):
    """What a link shows: one layout with its remarks, and until when it may be answered (None: not any more)."""

    layout: Layout
    remarks: list[Remark]
    open_until: datetime | None


async def opened(office: Office, token: str, *, count: bool = False) -> Guest:
    """Raises the 404 Problem for a link that is unknown, and the 410 Problem for one that is over."""
    now = office.now()
    async with office.pool.acquire() as connection:
        link = await _link(connection, token, now)
        if count:
            await layouts_store.count_opening(connection, link.link_id)
        layout = await _known(connection, link.layout_id)
        remarks = await layouts_store.remarks(connection, [layout.layout_id])
    return Guest(layout, remarks, None if link.answered_at or layout.state != "sent" else link.expires_at)


async def _link(connection: Connection, token: str, now: datetime, *, lock: bool = False) -> Link:
    link = await layouts_store.link(connection, digest_of_key(token), lock=lock) if len(token) <= 100 else None
    if link is None:
        raise Problem(404, "not-found", "This link is not known", "Look whether it was copied whole.")
    if link.revoked_at is not None:
        raise Problem(
            410, "link-ended", "This link is over", "There is a newer one: look for the last message from us."
        )
    if link.expires_at < now and link.answered_at is None:
        raise Problem(410, "link-expired", "This link has expired", "Ask your seller for a fresh one.")
    return link


async def answer(
    office: Office, token: str, name: str, *, approve: bool, text: str = "", place: Place | None = None
) -> Guest:
    """The customer's one answer: it is right so, or what is to be otherwise. Raises the 404, 409 and 410 Problems."""
    now = office.now()
    async with office.pool.acquire() as connection, connection.transaction():
        layout_id = (await _link(connection, token, now)).layout_id
        await layouts_store.lock_order(connection, (await _known(connection, layout_id)).order_id)
        link = await _link(connection, token, now, lock=True)
        layout = await _known(connection, link.layout_id)
        if link.answered_at is not None or layout.state != "sent":
            raise _settled(layout)
        if text:
            await _remark(connection, layout.layout_id, name, None, text, place, now)
        await layouts_store.set_answer(connection, layout.layout_id, "approved" if approve else "answered", name, now)
        await layouts_store.set_link_answered(connection, link.link_id, now)
        await layouts_store.wait_for(connection, layout.order_id, None if approve else "seller", now)
        if (order := await store.order(connection, layout.order_id)) is not None:
            await conversation.tell_of_answer(connection, office, order, layout, approve=approve, text=text)
    return await opened(office, token)


async def open_for(office: Office, layout_id: UUID, order_id: UUID) -> str:
    """The token of one more link to a layout of this order, beside those that were sent, for a customer who has come in
    elsewhere. Raises the 404 Problem, and the 410 Problem when there is a newer revision."""
    now, token = office.now(), new_api_key("lwl")
    async with office.pool.acquire() as connection, connection.transaction():
        await layouts_store.lock_order(connection, order_id)
        layout = await layouts_store.layout(connection, layout_id)
        if layout is None or layout.order_id != order_id or layout.state == "draft":
            raise Problem(404, "not-found", "No such layout", "See the messages about the order.")
        if layout.state == "superseded":
            raise Problem(410, "link-ended", "This link is over", "There is a newer revision of the model.")
        link = Link(new_id(), layout_id, now + LINK_FOR, None, None)
        sender = await layouts_store.sender(connection, layout_id)
        await layouts_store.insert_link(connection, link, digest_of_key(token), sender, now)
    return token


async def guest_remark(office: Office, token: str, name: str, text: str, place: Place | None) -> Remark:
    """A remark by the link, while it is open; the answer is still to come."""
    async with office.pool.acquire() as connection, connection.transaction():
        link = await _link(connection, token, office.now(), lock=True)
        layout = await _known(connection, link.layout_id)
        if link.answered_at is not None or layout.state != "sent":
            raise _settled(layout)
        return await _remark(connection, layout.layout_id, name, None, text, place, office.now())
