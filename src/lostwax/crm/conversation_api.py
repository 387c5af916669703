"""HTTP of what sellers and customers say to each other about an order, and of layouts for customers of other doors."""

from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from lostwax.contracts.conversation import MOST_CHARACTERS, MessageSent
from lostwax.crm import conversation, handlers, layouts
from lostwax.crm.api import LOOKERS, SELLERS
from lostwax.crm.handlers import Office
from lostwax.kit.auth import ServiceVerifier
from lostwax.kit.http import Operation, answer, header, path_uuid
from lostwax.kit.service_calls import SERVICE_AUTH, for_services
from lostwax.kit.staff import STAFF_AUTH, StaffDoor

Text = Annotated[str, Meta(min_length=1, max_length=MOST_CHARACTERS, pattern=r"\S")]


class Say(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`asks`: the customer's answer is waited for."""

    text: Text
    asks: bool = False


class Conversation(msgspec.Struct, frozen=True):
    """The oldest first."""

    messages: list[MessageSent]


class OpenLayout(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    order_id: UUID


class LayoutOpened(msgspec.Struct, frozen=True):
    """`url`: shows the layout to whoever has it, and takes one answer."""

    url: str


def operations(office: Office, door: StaffDoor, verifier: ServiceVerifier, public_url: str) -> list[Operation]:
    """`public_url`: where customers reach the CRM's links."""

    async def get_messages(request: Request) -> Response:
        await door.enter(request, *LOOKERS)
        order_id = path_uuid(request, "order_id", "order")
        await handlers.known_order(office, order_id)
        return answer(Conversation(await conversation.about(office, order_id)))

    async def post_message(request: Request, body: Say) -> Response:
        member = await door.enter(request, *SELLERS)
        order_id, key = path_uuid(request, "order_id", "order"), header(request, b"idempotency-key")
        return answer(await conversation.say(office, member, order_id, body.text, asks=body.asks, key=key), 201)

    async def open_layout(request: Request, body: OpenLayout) -> Response:
        layout_id = path_uuid(request, "layout_id", "layout")
        token = await layouts.open_for(office, layout_id, body.order_id)
        return answer(LayoutOpened(f"{public_url.rstrip('/')}/l/{token}"), 201, {"Cache-Control": "no-store"})

    return [
        Operation(
            "GET",
            "/v1/orders/{order_id}/messages",
            get_messages,
            "What was said about an order, the oldest first",
            {200: Conversation},
            {403: "for sellers, supervisors and administrators", 404: "no such order"},
            auth=STAFF_AUTH,
        ),
        Operation(
            "POST",
            "/v1/orders/{order_id}/messages",
            post_message,
            "Write to the customer of an order; under an Idempotency-Key, once",
            {201: MessageSent},
            {403: "for sellers and administrators", 404: "no such order", 409: "the customer reads nothing here"},
            body=Say,
            auth=STAFF_AUTH,
        ),
        *for_services(
            [
                Operation(
                    "POST",
                    "/v1/layouts/{layout_id}/links",
                    open_layout,
                    "A link to a layout for the customer of its order, whom the calling service knows",
                    {201: LayoutOpened},
                    {404: "no such layout of this order", 410: "there is a newer one"},
                    body=OpenLayout,
                    auth=SERVICE_AUTH,
                    callers=("shop",),
                )
            ],
            verifier,
        ),
    ]
