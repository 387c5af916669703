"""HTTP of customers: coming in, their sessions, their orders as they happen, and links that show one order."""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from lostwax.channel import handlers as channel
from lostwax.channel.callers import calling_client
from lostwax.channel.domain import Client, Scope
from lostwax.channel.handlers import Door
from lostwax.channel.views import OrderView
from lostwax.contracts.orders import PriceFailure, Shipment, Status
from lostwax.kit.house import language_of
from lostwax.kit.http import Events, Operation, answer, header, path_uuid
from lostwax.kit.postgres import UNREACHABLE
from lostwax.kit.problems import Problem, try_later
from lostwax.shop import handlers
from lostwax.shop.callers import AUTH, COOKIE, Callers, caller
from lostwax.shop.domain import Customer, Session
from lostwax.shop.handlers import Entrance
from lostwax.shop.payment import Due, Payment

_LOOK_EVERY_S = 1.0
_STREAM_S = 300.0
_SAY_SOMETHING_S = 15.0
_MOST_STREAMS = 500

Name = Annotated[str, Meta(min_length=1, max_length=100)]
Email = Annotated[str, Meta(min_length=3, max_length=254)]
Password = Annotated[str, Meta(min_length=10, max_length=200)]


class EnterAsGuest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`cookie`: for a browser, which gets its session as a cookie that no script can read, and no token."""

    cookie: bool = False


class SignUp(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An account. Who is in as a guest keeps what they have. Passwords are of 10 characters or more."""

    email: Email
    name: Name
    password: Password
    cookie: bool = False


class SignIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    email: Annotated[str, Meta(max_length=254)]
    password: Annotated[str, Meta(max_length=200)]
    cookie: bool = False


class AskForPassword(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A letter to this address, if it has an account, by which a new password can be chosen."""

    email: Email


class SetPassword(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`token`: the end of the link in the letter. All sessions end."""

    token: Annotated[str, Meta(max_length=200)]
    password: Password


class ConfirmAddress(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`token`: the end of the link in the letter."""

    token: Annotated[str, Meta(max_length=200)]


class Entered(msgspec.Struct, frozen=True):
    """Send the token: Authorization: Bearer <token>. It is told this once."""

    customer_id: UUID
    guest: bool
    session_id: UUID
    expires_at: datetime
    token: str | None = None


class Me(msgspec.Struct, frozen=True):
    """`confirmed`: that the address is yours is known by a letter."""

    customer_id: UUID
    guest: bool
    session_id: UUID
    expires_at: datetime
    email: str | None = None
    name: str | None = None
    confirmed: bool = False


class Contact(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where you are reached, and what you are called."""

    email: Email
    name: Name


class ChangePassword(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    password: Annotated[str, Meta(max_length=200)]
    new_password: Password


class SessionView(msgspec.Struct, frozen=True):
    """A browser or program that is signed in; `agent` is what it calls itself."""

    session_id: UUID
    agent: str
    created_at: datetime
    expires_at: datetime
    current: bool


class Sessions(msgspec.Struct, frozen=True):
    sessions: list[SessionView]


class LinkMade(msgspec.Struct, frozen=True):
    """Shows the order to whoever has it, at `path`, until it ends or is withdrawn. It is told this once."""

    token: str
    path: str
    expires_at: datetime


class SharedOrder(msgspec.Struct, frozen=True):
    """An order as a link shows it: nothing of who ordered, of the model or of what it costs."""

    code: str
    status: Status
    alloy: str
    finish: str
    quantity: int
    accepted_at: datetime
    updated_at: datetime
    promised_at: datetime | None = None
    held_because: str | None = None
    failure: PriceFailure | None = None
    shipment: Shipment | None = None


_view = msgspec.json.Decoder(OrderView)


def set_cookie(response: Response, request: Request, token: str, session: Session) -> None:
    """The session as a cookie. Lax, not strict: whoever follows a link to their order is still signed in."""
    response.set_cookie(
        COOKIE,
        token,
        max_age=int((session.expires_at - session.created_at).total_seconds()),
        path="/",
        httponly=True,
        samesite="lax",
        secure=request.url.scheme == "https",
    )


def _agent(request: Request) -> str:
    sent = header(request, b"user-agent") or ""
    return "".join(c for c in sent if c.isprintable())[:200]


def _entered(
    request: Request, customer: Customer, session: Session, token: str, *, cookie: bool, status: int
) -> Response:
    told = Entered(
        customer.customer_id, customer.guest, session.session_id, session.expires_at, None if cookie else token
    )
    response = answer(told, status, {"Cache-Control": "no-store"})
    if cookie:
        set_cookie(response, request, token, session)
    return response


def operations(entrance: Entrance, callers: Callers, door: Door, payment: Payment) -> list[Operation]:
    streams: set[object] = set()

    async def enter_as_guest(request: Request, body: EnterAsGuest) -> Response:
        made = await handlers.enter_as_guest(entrance, _agent(request), language_of(request))
        return _entered(request, *made, cookie=body.cookie, status=201)

    async def sign_up(request: Request, body: SignUp) -> Response:
        try:
            session, customer = await callers.holder(request)
        except Problem:
            guest = None
        else:
            guest = (session, customer) if customer.guest else None
        language = language_of(request)
        made = await handlers.sign_up(entrance, body.email, body.name, body.password, _agent(request), language, guest)
        callers.forget()
        return _entered(request, *made, cookie=body.cookie, status=201)

    async def sign_in(request: Request, body: SignIn) -> Response:
        made = await handlers.sign_in(entrance, body.email, body.password, _agent(request))
        return _entered(request, *made, cookie=body.cookie, status=200)

    async def sign_out(request: Request) -> Response:
        session, customer = caller(request)
        await handlers.revoke_session(entrance, customer.customer_id, session.session_id)
        callers.forget()
        response = Response(status_code=204)
        response.delete_cookie(COOKIE, path="/", httponly=True, samesite="lax")
        return response

    async def get_me(request: Request) -> Response:
        session, customer = caller(request)
        return answer(_me(session, customer))

    async def put_me(request: Request, body: Contact) -> Response:
        session, customer = caller(request)
        language = language_of(request)
        return answer(_me(session, await handlers.set_contact(entrance, customer, body.email, body.name, language)))

    async def ask_to_confirm(request: Request) -> Response:
        await handlers.ask_again_to_confirm(entrance, caller(request)[1])
        return Response(status_code=202)

    async def confirm_address(request: Request, body: ConfirmAddress) -> Response:
        await handlers.confirm(entrance, body.token)
        return Response(status_code=204)

    async def ask_for_password(request: Request, body: AskForPassword) -> Response:
        await handlers.ask_for_password(entrance, body.email, language_of(request))
        return Response(status_code=202)

    async def set_password(request: Request, body: SetPassword) -> Response:
        await handlers.set_lost_password(entrance, body.token, body.password)
        callers.forget()
        return Response(status_code=204)

    async def put_password(request: Request, body: ChangePassword) -> Response:
        session, customer = caller(request)
        await handlers.change_password(entrance, customer, session, body.password, body.new_password)
        callers.forget()
        return Response(status_code=204)

    async def list_sessions(request: Request) -> Response:
        own, customer = caller(request)
        rows = await handlers.sessions(entrance, customer)
        views = [
            SessionView(s.session_id, s.agent, s.created_at, s.expires_at, s.session_id == own.session_id) for s in rows
        ]
        return answer(Sessions(views))

    async def revoke_session(request: Request) -> Response:
        _, customer = caller(request)
        await handlers.revoke_session(entrance, customer.customer_id, path_uuid(request, "session_id", "session"))
        callers.forget()
        return Response(status_code=204)

    async def get_payment(request: Request) -> Response:
        order_id = path_uuid(request, "order_id", "order")
        order = _view.decode(await channel.own_order(door, calling_client(request), order_id))
        return answer(await payment.due(order))

    async def make_link(request: Request) -> Response:
        order_id = path_uuid(request, "order_id", "order")
        token, expires_at = await handlers.make_link(entrance, calling_client(request), order_id)
        return answer(LinkMade(token, f"/o/{token}", expires_at), 201, {"Cache-Control": "no-store"})

    async def revoke_links(request: Request) -> Response:
        await handlers.revoke_links(entrance, calling_client(request), path_uuid(request, "order_id", "order"))
        return Response(status_code=204)

    async def get_shared(request: Request) -> Response:
        return answer(
            await shared_order(entrance, door, request.path_params["token"]), headers={"Cache-Control": "no-store"}
        )

    async def watch_order(request: Request) -> Response:
        client, order_id = calling_client(request), path_uuid(request, "order_id", "order")
        if len(streams) >= _MOST_STREAMS:
            raise try_later("Too many watch already; look at the order instead.", after_s=30)
        first = await channel.own_order(door, client, order_id)
        mark = object()
        streams.add(mark)

        async def events() -> AsyncIterator[bytes]:
            try:
                async for event in _events(door, client, order_id, first):
                    yield event
            finally:
                streams.discard(mark)

        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(events(), headers=headers, media_type="text/event-stream")

    absent = {404: "no such order"}
    return [
        Operation(
            "POST",
            "/v1/guests",
            enter_as_guest,
            "Come in as a guest: a session of 90 days",
            {201: Entered},
            {403: "from another page", 429: "too many from one address"},
            body=EnterAsGuest,
        ),
        Operation(
            "POST",
            "/v1/customers",
            sign_up,
            "Sign up; a guest keeps what they have. A letter asks to confirm the address",
            {201: Entered},
            {403: "from another page", 409: "you have an account", 429: "too many from one address"},
            body=SignUp,
        ),
        Operation(
            "POST",
            "/v1/sign-in",
            sign_in,
            "Sign in by address and password: a session of 30 days",
            {200: Entered},
            {
                401: "they do not belong together",
                403: "from another page",
                429: "too many from one address",
            },
            body=SignIn,
        ),
        Operation(
            "POST",
            "/v1/password-letters",
            ask_for_password,
            "Ask for a letter by which a new password can be chosen; whether the address is known is told to nobody",
            {202: None},
            {403: "from another page", 429: "too many from one address"},
            body=AskForPassword,
        ),
        Operation(
            "POST",
            "/v1/passwords",
            set_password,
            "Choose a new password by the link of a letter; all sessions end",
            {204: None},
            _BY_LETTER,
            body=SetPassword,
        ),
        Operation(
            "POST",
            "/v1/confirmations",
            confirm_address,
            "Confirm an account's address by the link of a letter",
            {204: None},
            _BY_LETTER,
            body=ConfirmAddress,
        ),
        Operation(
            "POST",
            "/v1/me/confirmation",
            ask_to_confirm,
            "Ask for another letter that confirms your address",
            {202: None},
            {409: "a guest has no account", **_FOREIGN},
            auth=AUTH,
        ),
        Operation("POST", "/v1/sign-out", sign_out, "End this session", {204: None}, _FOREIGN, auth=AUTH),
        Operation("GET", "/v1/me", get_me, "Who you are here", {200: Me}, _LIMITED, auth=AUTH),
        Operation(
            "PUT",
            "/v1/me",
            put_me,
            "Say where you are reached and what you are called",
            {200: Me},
            {409: "the address of an account stays", **_FOREIGN},
            body=Contact,
            auth=AUTH,
        ),
        Operation(
            "PUT",
            "/v1/me/password",
            put_password,
            "Change your password; all your other sessions end",
            {204: None},
            {409: "a guest has none", **_FOREIGN, 403: "not your password, or from another page"},
            body=ChangePassword,
            auth=AUTH,
        ),
        Operation(
            "GET", "/v1/sessions", list_sessions, "Where you are signed in", {200: Sessions}, _LIMITED, auth=AUTH
        ),
        Operation(
            "DELETE",
            "/v1/sessions/{session_id}",
            revoke_session,
            "End one of your sessions",
            {204: None},
            {404: "no such session", **_FOREIGN},
            auth=AUTH,
        ),
        Operation(
            "GET",
            "/v1/orders/{order_id}/events",
            watch_order,
            "One of your orders as it changes, as server-sent events; each is an order",
            {200: Events},
            absent,
            auth=AUTH,
            scope=Scope.ORDERS_READ,
        ),
        Operation(
            "GET",
            "/v1/orders/{order_id}/payment",
            get_payment,
            "What is to be paid for one of your orders, and when",
            {200: Due},
            absent,
            auth=AUTH,
            scope=Scope.ORDERS_READ,
        ),
        Operation(
            "POST",
            "/v1/orders/{order_id}/links",
            make_link,
            "Make a link that shows this order, for 90 days",
            {201: LinkMade},
            absent,
            auth=AUTH,
            scope=Scope.ORDERS_WRITE,
        ),
        Operation(
            "DELETE",
            "/v1/orders/{order_id}/links",
            revoke_links,
            "Withdraw all links that show this order",
            {204: None},
            absent,
            auth=AUTH,
            scope=Scope.ORDERS_WRITE,
        ),
        Operation(
            "GET",
            "/v1/shared/{token}",
            get_shared,
            "What a link shows of an order",
            {200: SharedOrder},
            {404: "no such link", 410: "it has ended", 429: "too many from one address"},
        ),
    ]


_BY_LETTER = {
    403: "from another page",
    404: "no such link",
    409: "the address is another account's",
    410: "it is used or over",
    429: "too many from one address",
}
_LIMITED = {429: "too many requests; see Retry-After"}
_FOREIGN = {403: "from another page", **_LIMITED}


def _me(session: Session, customer: Customer) -> Me:
    return Me(
        customer.customer_id,
        customer.guest,
        session.session_id,
        session.expires_at,
        customer.email,
        customer.name,
        customer.confirmed_at is not None,
    )


async def shared_order(entrance: Entrance, door: Door, token: str) -> SharedOrder:
    """Raises the 404 or 410 Problem."""
    client, link = await handlers.linked_order(entrance, token)
    view = _view.decode(await channel.own_order(door, client, link.order_id))
    return SharedOrder(
        code=view.code,
        status=view.status,
        alloy=view.specification.alloy,
        finish=view.specification.finish,
        quantity=view.specification.quantity,
        accepted_at=view.accepted_at,
        updated_at=view.updated_at,
        promised_at=view.promised_at,
        held_because=view.held_because,
        failure=view.failure,
        shipment=view.shipment,
    )


async def _events(door: Door, client: Client, order_id: UUID, first: msgspec.Raw) -> AsyncIterator[bytes]:
    """Looks once a second, in Redis where the change is shown first, whichever process took it from Kafka. Ends after
    five minutes: a browser then asks again by itself."""
    shown, began, spoke = first, time.monotonic(), time.monotonic()
    yield b"retry: 1000\n\ndata: " + bytes(first) + b"\n\n"
    while (now := time.monotonic()) - began < _STREAM_S:
        await asyncio.sleep(_LOOK_EVERY_S)
        try:
            body = await channel.own_order(door, client, order_id)
        except UNREACHABLE:
            yield b'event: trouble\ndata: "away"\n\n'
            continue
        if body != shown:
            shown, spoke = body, now
            yield b"data: " + bytes(body) + b"\n\n"
        elif now - spoke > _SAY_SOMETHING_S:
            spoke = now
            yield b": nothing new\n\n"
