"""Use cases of what sellers and customers say to each other about an order, each one transaction. The customer reads
and answers at the door that the order came by; the clock of who is waited for follows."""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from lostwax.channel import conversation
from lostwax.contracts.conversation import MessageSent, Side
from lostwax.contracts.ids import derived_id, new_id, short_code
from lostwax.contracts.orders import Order
from lostwax.crm import handlers, layouts_store
from lostwax.crm.handlers import Office
from lostwax.crm.layouts_store import Layout
from lostwax.kit.auth import Member
from lostwax.kit.mail import Letter, write
from lostwax.kit.postgres import Connection
from lostwax.kit.problems import Problem

SPOKEN_IN = ("shop",)
"""Channels whose customers read here what sellers say."""

_QUIET = timedelta(minutes=30)
"""Sellers get one letter about an order in so long."""


def waited_for(layouts: Sequence[Layout], *, asks: bool) -> str | None:
    """Who is waited for after a seller has written. Pure."""
    if asks:
        return "customer"
    state = layouts[-1].state if layouts else "approved"
    return {"sent": "customer", "draft": "seller", "answered": "seller"}.get(state)


async def about(office: Office, order_id: UUID) -> list[MessageSent]:
    async with office.pool.acquire() as connection:
        return await conversation.about(connection, order_id)


async def say(
    office: Office, member: Member, order_id: UUID, text: str, *, asks: bool = False, key: str | None = None
) -> MessageSent:
    """A seller's word to the customer. The same `key` again is the same message. Raises the 404 Problem, and the 409
    Problem for an order whose customer reads nothing here."""
    order = await handlers.known_order(office, order_id)
    if order.channel not in SPOKEN_IN:
        raise Problem(
            409,
            "nobody-reads-it",
            "This order's customer reads no messages here",
            f"It came by {order.channel}; messages are read in: {', '.join(SPOKEN_IN)}.",
        )
    message_id = new_id() if key is None else derived_id("said", str(order_id), str(member.staff_id), key)
    sent = MessageSent(message_id, order_id, order.channel, Side.SELLER, member.name, text, office.now(), asks)
    async with office.pool.acquire() as connection, connection.transaction():
        await layouts_store.lock_order(connection, order_id)
        said = await conversation.say(connection, sent)
        if said is sent:
            party = waited_for(await layouts_store.layouts(connection, order_id), asks=asks)
            await layouts_store.wait_for(connection, order_id, party, sent.sent_at)
    return said


_TOLD = {
    "en": (
        "Revision {n} of the model is ready: please look at it and say whether it is right.",
        "Revision {n} is right so.",
        "Revision {n} is not right yet.",
    ),
    "ru": (
        "Макет, версия {n}, готов: посмотрите его, пожалуйста, и скажите, всё ли верно.",
        "Версия {n}: всё верно.",
        "Версия {n}: пока не так.",
    ),
}


async def tell_of_layout(connection: Connection, office: Office, order: Order, layout: Layout, member: Member) -> None:
    """That a revision waits to be looked at, to a customer who reads messages; in the transaction that sends it."""
    if order.channel not in SPOKEN_IN:
        return
    sent = MessageSent(
        # Each time that it is sent is another message.
        new_id(),
        order.order_id,
        order.channel,
        Side.SELLER,
        member.name,
        _TOLD[office.letters][0].format(n=layout.revision),
        await connection.fetchval("SELECT now()"),
        True,
        layout.layout_id,
        layout.revision,
    )
    await conversation.say(connection, sent)


async def tell_of_answer(
    connection: Connection, office: Office, order: Order, layout: Layout, *, approve: bool, text: str
) -> None:
    """What the customer has said of a revision by its link, so that it stands in the conversation, too."""
    if order.channel not in SPOKEN_IN:
        return
    said = _TOLD[office.letters][1 if approve else 2].format(n=layout.revision)
    sent = MessageSent(
        derived_id("answered", str(layout.layout_id)),
        order.order_id,
        order.channel,
        Side.CUSTOMER,
        "customer of the shop",
        f"{said} {text}".strip()[:2000],
        await connection.fetchval("SELECT now()"),
        not approve,
        layout.layout_id,
        layout.revision,
    )
    await conversation.say(connection, sent)


async def take(office: Office, messages: Sequence[MessageSent]) -> None:
    """Keep what customers say, once; from then on the seller is waited for, and gets a letter if an address is set."""
    async with office.pool.acquire() as connection:
        for sent in messages:
            async with connection.transaction():
                await layouts_store.lock_order(connection, sent.order_id)
                if not await conversation.keep(connection, sent) or sent.side is not Side.CUSTOMER:
                    continue
                await layouts_store.wait_for(connection, sent.order_id, "seller", sent.sent_at)
                await _tell_sellers(connection, office, sent)


async def _tell_sellers(connection: Connection, office: Office, sent: MessageSent) -> None:
    if not office.sellers_address:
        return
    now = office.now()
    lately = await connection.fetchval(
        "SELECT EXISTS (SELECT FROM mails WHERE order_id = $1 AND kind = 'message' AND created_at > $2)",
        sent.order_id,
        now - _QUIET,
    )
    if lately:
        return
    code = short_code(sent.order_id)
    subject, body = {
        "en": (f"A customer asks about order {code}", f"A customer has written about order {code}:\n\n{{link}}\n"),
        "ru": (f"Вопрос клиента о заказе {code}", f"Клиент написал о заказе {code}:\n\n{{link}}\n"),
    }[office.letters]
    about_it = Letter(
        derived_id("letter", str(sent.message_id)),
        office.sellers_address,
        subject,
        body,
        "message",
        f"/orders/{sent.order_id}#messages",
        sent.order_id,
    )
    await write(connection, [about_it], now)
