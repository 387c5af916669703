"""The shop's pages: the storefront, and what a link shows of an order. In the house of all pages."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import msgspec
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from lostwax.channel.handlers import Door
from lostwax.channel.offer_api import offer
from lostwax.channel.piece import PIECE, PIECE_FILES, piece_context, policy_of
from lostwax.contracts.ids import new_id
from lostwax.kit.house import House, body_of, form_of, language_of
from lostwax.kit.http import path_uuid
from lostwax.kit.neighbours import Neighbour
from lostwax.kit.problems import Problem
from lostwax.kit.staff import refuse_cross_site
from lostwax.shop import conversation, handlers
from lostwax.shop.api import AskForPassword, Password, shared_order
from lostwax.shop.callers import COOKIE, Callers
from lostwax.shop.conversation_api import Say
from lostwax.shop.handlers import Entrance

NO_TRACE = {"X-Robots-Tag": "noindex", "Referrer-Policy": "same-origin"}

WEB = Path(__file__).parent / "web"
FILES = ("page.css", "shop.js")


class NewPassword(msgspec.Struct, frozen=True):
    password: Password


def routes(
    entrance: Entrance,
    callers: Callers,
    door: Door,
    crm: Neighbour,
    storage: str,
    largest_model_bytes: int,
    now: Callable[[], datetime],
) -> list[Route]:
    """`storage`: where browsers put files."""
    house = House("Lostwax", WEB, (*FILES, *PIECE_FILES), policy=policy_of(storage), beside=(PIECE,))
    offered = offer()

    async def home(request: Request) -> Response:
        return house.page(
            request,
            "page.html",
            known=COOKIE in request.cookies,
            **piece_context(house, request, largest_model_bytes),
        )

    async def linked(request: Request, trouble: Problem | None = None) -> Response:
        await callers.take_entry(request)
        token = request.path_params["token"]
        order = await shared_order(entrance, door, token)
        client, link = await handlers.linked_order(entrance, token)
        # Only a link that came by a letter shows what was said, for it went to who ordered.
        said = await conversation.about(entrance, client, link.order_id) if link.mailed else None
        language = language_of(request)

        def called(kind: str, code: str) -> str:
            found = next((o for o in getattr(offered, kind) if o.code == code), None)
            return code if found is None else str(getattr(found, language))

        return house.page(
            request,
            "linked.html",
            200 if trouble is None else trouble.status,
            headers=NO_TRACE,
            order=order,
            said=said,
            token=token,
            key=new_id().hex,
            trouble=trouble,
            alloy=called("alloys", order.alloy),
            finish=called("finishes", order.finish),
            late=order.promised_at is not None and order.promised_at < now(),
        )

    async def linked_answer(request: Request) -> Response:
        await let_in(request)
        token = request.path_params["token"]
        client, link = await handlers.linked_order(entrance, token)
        conversation.may_answer(link)
        form = await form_of(request)
        try:
            text = body_of(form, Say).text
            await conversation.say(entrance, client, link.order_id, text, form.get("key", "")[:100] or None)
        except Problem as problem:
            if problem.status not in (409, 422):
                raise
            return await linked(request, problem)
        return RedirectResponse(f"/o/{token}#messages", 303)

    async def linked_layout(request: Request) -> Response:
        await callers.take_entry(request)
        client, link = await handlers.linked_order(entrance, request.path_params["token"])
        conversation.may_answer(link)
        layout_id = path_uuid(request, "layout_id", "layout")
        url = await conversation.layout_url(entrance, crm, client, link.order_id, layout_id)
        return RedirectResponse(url, 303, headers=dict(NO_TRACE))

    def by_letter(request: Request, step: str, trouble: Problem | None = None) -> Response:
        status = 200 if trouble is None else trouble.status
        return house.page(request, "letter.html", status, NO_TRACE, step=step, trouble=trouble)

    async def let_in(request: Request) -> None:
        refuse_cross_site(request)
        await callers.take_entry(request)

    async def show_confirm(request: Request) -> Response:
        await callers.take_entry(request)
        await handlers.opened_letter(entrance, "confirm", request.path_params["token"])
        return by_letter(request, "confirm")

    async def do_confirm(request: Request) -> Response:
        await let_in(request)
        await handlers.confirm(entrance, request.path_params["token"])
        callers.forget()
        return by_letter(request, "confirmed")

    async def show_password(request: Request) -> Response:
        await callers.take_entry(request)
        await handlers.opened_letter(entrance, "password", request.path_params["token"])
        return by_letter(request, "password")

    async def do_password(request: Request) -> Response:
        await let_in(request)
        try:
            chosen = body_of(await form_of(request), NewPassword).password
        except Problem as problem:
            if problem.status != 422:
                raise
            return by_letter(request, "password", problem)
        await handlers.set_lost_password(entrance, request.path_params["token"], chosen)
        callers.forget()
        return by_letter(request, "changed")

    async def show_lost(request: Request) -> Response:
        return by_letter(request, "sent" if "sent" in request.query_params else "lost")

    async def do_lost(request: Request) -> Response:
        await let_in(request)
        try:
            email = body_of(await form_of(request), AskForPassword).email
        except Problem as problem:
            if problem.status != 422:
                raise
            return by_letter(request, "lost", problem)
        await handlers.ask_for_password(entrance, email, language_of(request))
        return RedirectResponse("/lost-password?sent", 303)

    return [
        house.route("/", home),
        house.route("/o/{token}", linked, secret=True),
        house.route("/o/{token}", linked_answer, ("POST",), secret=True),
        house.route("/o/{token}/layouts/{layout_id}", linked_layout, secret=True),
        house.route("/confirm/{token}", show_confirm, secret=True),
        house.route("/confirm/{token}", do_confirm, ("POST",), secret=True),
        house.route("/password/{token}", show_password, secret=True),
        house.route("/password/{token}", do_password, ("POST",), secret=True),
        house.route("/lost-password", show_lost),
        house.route("/lost-password", do_lost, ("POST",)),
        house.files(),
    ]
