"""HTTP of what customers and sellers say to each other about an order."""

from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from lostwax.channel.callers import calling_client
from lostwax.channel.domain import Scope
from lostwax.contracts.conversation import MOST_CHARACTERS, MessageSent
from lostwax.kit.http import Operation, answer, header, path_uuid
from lostwax.kit.neighbours import Neighbour
from lostwax.shop import conversation
from lostwax.shop.callers import AUTH
from lostwax.shop.handlers import Entrance


class Say(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the seller should know or answer."""

    text: Annotated[str, Meta(min_length=1, max_length=MOST_CHARACTERS, pattern=r"\S")]


class Conversation(msgspec.Struct, frozen=True):
    """The oldest first."""

    messages: list[MessageSent]


class LayoutOpened(msgspec.Struct, frozen=True):
    """`url`: shows the layout to whoever has it, and takes one answer."""

    url: str


def operations(entrance: Entrance, crm: Neighbour) -> list[Operation]:
    def order_of(request: Request) -> UUID:
        return path_uuid(request, "order_id", "order")

    async def get_messages(request: Request) -> Response:
        return answer(Conversation(await conversation.about(entrance, calling_client(request), order_of(request))))

    async def post_message(request: Request, body: Say) -> Response:
        client, key = calling_client(request), header(request, b"idempotency-key")
        return answer(await conversation.say(entrance, client, order_of(request), body.text, key), 201)

    async def open_layout(request: Request) -> Response:
        client, layout_id = calling_client(request), path_uuid(request, "layout_id", "layout")
        url = await conversation.layout_url(entrance, crm, client, order_of(request), layout_id)
        return answer(LayoutOpened(url), 201, {"Cache-Control": "no-store"})

    return [
        Operation(
            "GET",
            "/v1/orders/{order_id}/messages",
            get_messages,
            "What was said about one of your orders, the oldest first",
            {200: Conversation},
            {404: "no such order"},
            auth=AUTH,
            scope=Scope.ORDERS_READ,
        ),
        Operation(
            "POST",
            "/v1/orders/{order_id}/messages",
            post_message,
            "Write to the seller about one of your orders; under an Idempotency-Key, once",
            {201: MessageSent},
            {404: "no such order", 409: "too many messages"},
            body=Say,
            auth=AUTH,
            scope=Scope.ORDERS_WRITE,
        ),
        Operation(
            "POST",
            "/v1/orders/{order_id}/layouts/{layout_id}/link",
            open_layout,
            "Where to look at a layout of your order, and to answer",
            {201: LayoutOpened},
            {404: "no such layout", 410: "there is a newer one", 503: "the seller's desk is away"},
            auth=AUTH,
            scope=Scope.ORDERS_WRITE,
        ),
    ]
