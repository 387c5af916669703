"""Use cases of what customers and sellers say to each other about an order, each one transaction, and of the layouts
that customers are asked to look at, which the CRM shows."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from lostwax.channel import conversation
from lostwax.channel import store as requests
from lostwax.channel.domain import Client
from lostwax.contracts.conversation import MessageSent, Side
from lostwax.contracts.ids import derived_id, new_id
from lostwax.kit.mail import write
from lostwax.kit.neighbours import Neighbour
from lostwax.kit.postgres import Connection
from lostwax.kit.problems import Problem, not_found
from lostwax.shop import letters, store
from lostwax.shop.handlers import Entrance
from lostwax.shop.store import LinkRow

CHANNEL = "shop"


async def about(entrance: Entrance, client: Client, order_id: UUID) -> list[MessageSent]:
    """What was said about one of the customer's orders, the oldest first. Raises the 404 Problem."""
    async with entrance.pool.acquire() as connection:
        await _own(connection, client, order_id)
        return await conversation.about(connection, order_id)


async def _own(connection: Connection, client: Client, order_id: UUID) -> None:
    if await requests.request(connection, client.client_id, order_id) is None:
        raise not_found("order")


async def say(entrance: Entrance, client: Client, order_id: UUID, text: str, key: str | None = None) -> MessageSent:
    """A customer's word to the seller. The same `key` again is the same message. Raises the 404 and 409 Problems."""
    message_id = new_id() if key is None else derived_id("said", str(order_id), str(client.client_id), key)
    async with entrance.pool.acquire() as connection, connection.transaction():
        await _own(connection, client, order_id)
        # Who a customer is stays here: the seller is told what anybody is told.
        name = await store.called(connection, client.client_id)
        sent = MessageSent(message_id, order_id, CHANNEL, Side.CUSTOMER, name, text, entrance.now(), True)
        return await conversation.say(connection, sent)


async def layout_url(entrance: Entrance, crm: Neighbour, client: Client, order_id: UUID, layout_id: UUID) -> str:
    """Where the customer sees a layout of their order and answers. Raises the 404 and 410 Problems, and the 503 Problem
    when the CRM does not answer."""
    if not any(one.layout_id == layout_id for one in await about(entrance, client, order_id)):
        raise not_found("layout")
    answered = await crm.call(
        "POST",
        f"/v1/layouts/{layout_id}/links",
        expected=(201, 404, 410),
        missing="the layout cannot be shown now; nothing is lost, try again in a moment.",
        json={"order_id": str(order_id)},
    )
    if answered.status_code != 201:
        told = answered.json()
        raise Problem(answered.status_code, "link-ended", str(told.get("title")), told.get("detail"))
    return str(answered.json()["url"])


def may_answer(link: LinkRow) -> None:
    """Raises the 403 Problem for a link that was made to show the order around."""
    if not link.mailed:
        raise Problem(403, "only-shows", "This link only shows the order", "Answer by the link of our letter to you.")


async def take(entrance: Entrance, messages: Sequence[MessageSent]) -> None:
    """Keep what is said about orders of this shop, once, and write to the customer when it is the seller's."""
    async with entrance.pool.acquire() as connection:
        for sent in messages:
            if sent.channel != CHANNEL:
                continue
            async with connection.transaction():
                owner = await store.owner_of(connection, sent.order_id)
                if owner is None or not await conversation.keep(connection, sent) or sent.side is not Side.SELLER:
                    continue
                await _write(connection, owner, sent, entrance.now())


async def _write(connection: Connection, owner: UUID, sent: MessageSent, now: datetime) -> None:
    reader = (await store.readers(connection, [sent.order_id])).get(sent.order_id)
    if reader is None:
        return
    path = await letters.order_link(connection, sent.order_id, owner, now)
    values = {"seller": sent.name, "text": sent.text, "revision": str(sent.revision or "")}
    letter = letters.letter(
        "message" if sent.layout_id is None else "layout",
        derived_id("letter", str(sent.message_id)),
        reader,
        path,
        order_id=sent.order_id,
        values=values,
    )
    await write(connection, [letter], now)
