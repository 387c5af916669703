"""The sellers' desk in a browser: the board, orders, customers, the search; in the house of all pages. What is done
here is done by the same use cases as by the API, and a refusal is told on the page that it concerns."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode
from uuid import UUID

from msgspec import Meta
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from lostwax.channel.piece import PIECE, PIECE_FILES, piece_context, policy_of
from lostwax.contracts.ids import new_id, short_code
from lostwax.contracts.orders import Action, Approve, Cancel, Hold, Resume, Status
from lostwax.crm import (
    clients,
    conversation,
    customers,
    customers_api,
    desk_store,
    domain,
    handlers,
    layout_pages,
    layouts_store,
    selling,
    task_pages,
)
from lostwax.crm.api import (
    LOOKERS,
    SELLERS,
    ApproveOrder,
    CancelOrder,
    CloseOrder,
    HoldOrder,
    ResumeOrder,
    Step,
    filters_of,
    step_of,
)
from lostwax.crm.conversation_api import Say
from lostwax.crm.customers_store import Contact
from lostwax.crm.domain import line
from lostwax.crm.handlers import Office
from lostwax.crm.staff_api import Entrance
from lostwax.kit.auth import Member
from lostwax.kit.house import House, body_of, form_of, language_of
from lostwax.kit.http import path_uuid, query
from lostwax.kit.neighbours import Neighbour
from lostwax.kit.paging import rows_wanted
from lostwax.kit.postgres import UNREACHABLE
from lostwax.kit.problems import Problem
from lostwax.kit.staff import StaffDoor, admitted
from lostwax.kit.staff_pages import StaffHouse

WEB = Path(__file__).parent / "web"
_LOOK_EVERY_S = 1.0
_PATIENCE_S = 0.8
"""A page waits no longer for the time line: what the CRM knows of an order is shown without it."""

_LISTENED_S = 300.0
"""A stream of events ends after so long; browsers open another by themselves."""

HOLD_REASONS = ("The customer thinks it over", "A question about the model", "Payment is awaited")
CANCEL_REASONS = (
    "The customer does not want it any more",
    "Rejected: it cannot be made",
    "Rejected: the price was refused",
)


class Ticker:
    """Tells when the board has changed: one look a second for all who watch, and none while nobody does."""

    def __init__(self, office: Office) -> None:
        self._office = office
        self._looked = 0.0
        self._version = -1
        self._lock = asyncio.Lock()

    async def version(self) -> int:
        async with self._lock:
            if time.monotonic() - self._looked > _LOOK_EVERY_S:
                async with self._office.pool.acquire() as connection:
                    self._version = await desk_store.board_version(connection)
                self._looked = time.monotonic()
        return self._version

    async def events(self, seconds: float) -> AsyncIterator[bytes]:
        """An event whenever the board has changed since the last, and a comment meanwhile so that no proxy gives up."""
        until, seen, quiet = time.monotonic() + seconds, await self.version(), 0
        while time.monotonic() < until:
            await asyncio.sleep(_LOOK_EVERY_S)
            try:
                now = await self.version()
            except UNREACHABLE:
                now = seen
            if now != seen:
                seen, quiet = now, 0
                yield f"event: board\ndata: {now}\n\n".encode()
            elif (quiet := quiet + 1) % 15 == 0:
                yield b": still here\n\n"


def routes(
    office: Office,
    door: StaffDoor,
    orders: Neighbour,
    enter: Entrance,
    storage: str,
    largest_model_bytes: int,
) -> list[Route]:
    """The pages, their files, sign-in and sign-out. `storage`: where browsers put files."""
    house = House(
        "Sellers' desk",
        WEB,
        ("page.css", "viewer.js", "new_order.js", *PIECE_FILES),
        policy=policy_of(storage),
        beside=(PIECE,),
    )
    ticker = Ticker(office)

    async def entrance(badge: str, address: str) -> str:
        return (await enter(badge[:200], address)).token

    async def member(token: str) -> Member:
        return admitted(await door.member(token), *LOOKERS)

    staff = StaffHouse(house, entrance, member)

    def page(request: Request, template: str, member: Member, status: int = 200, **context: Any) -> Response:
        now = office.now()
        may = member.role in SELLERS
        context = {"trouble": None, "q": "", **context}

        def age(at: datetime) -> str:
            unit, n = _age(now, at)
            return house.say(language_of(request), unit, n=n)

        return house.page(request, template, status, member=member, may=may, now=now, age=age, **context)

    async def home(request: Request, member: Member) -> Response:
        return await board_page(request, member, "board.html")

    async def columns(request: Request, member: Member) -> Response:
        return await board_page(request, member, "columns.html")

    async def board_page(request: Request, member: Member, template: str) -> Response:
        seller = query(request, "seller", UUID, None)
        shown, source = await selling.board(office, seller, rows_wanted(request, most=50, usual=8))
        async with office.pool.acquire() as connection:
            sellers = await desk_store.sellers(connection)
        return page(request, template, member, columns=shown, source=source, sellers=sellers, seller=seller)

    async def events(request: Request, member: Member) -> Response:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        seconds = query(request, "seconds", Annotated[float, Meta(ge=0, le=_LISTENED_S)], _LISTENED_S)
        return StreamingResponse(ticker.events(seconds), headers=headers, media_type="text/event-stream")

    async def list_orders(request: Request, member: Member) -> Response:
        limit = rows_wanted(request)
        filters = filters_of(_without_empty(request))
        async with office.pool.acquire() as connection:
            found = await desk_store.orders_page(connection, filters, query(request, "after", UUID, None), limit + 1)
            sellers = await desk_store.sellers(connection)
            accepted = [] if request.query_params else await desk_store.just_accepted(connection, 20)
        lines = [line(placed) for placed in found[:limit]]
        following = None
        if len(found) > limit:
            given = {k: v for k, v in request.query_params.items() if v and k != "lang"}
            following = "?" + urlencode({**given, "after": str(lines[-1].order_id)})
        return page(
            request,
            "orders.html",
            member,
            orders=lines,
            accepted=[line(placed) for placed in accepted],
            filters=filters,
            statuses=list(Status),
            sellers=sellers,
            following=following,
        )

    async def show_order(request: Request, member: Member, trouble: Problem | None = None) -> Response:
        order_id = path_uuid(request, "order_id", "order")
        async with office.pool.acquire() as connection:
            found = await desk_store.placed(connection, [order_id])
            if not found and (just := await desk_store.accepted(connection, order_id)) is not None:
                found = [just]
            found = found or await desk_store.placed(connection, [order_id])  # told of between the two looks
            delivery = await desk_store.delivery(connection, order_id)
            remarks = await desk_store.remarks(connection, order_id)
            waiting = await layouts_store.waiting_now(connection, order_id)
        said = await conversation.about(office, order_id)
        if not found:
            raise Problem(404, "not-found", "No such order", "Orders has not told of it (yet).")
        steps, away = await _time_line(orders, order_id)
        return page(
            request,
            "order.html",
            member,
            trouble.status if trouble is not None else 200,
            placed=found[0],
            order=found[0].order,
            code=short_code(order_id),
            happened=sorted(
                [*((s.at, "step", s) for s in steps), *((m.sent_at, "said", m) for m in said)],
                key=lambda one: one[0],
                reverse=True,
            ),
            said=said,
            waiting=waiting,
            spoken_in=conversation.SPOKEN_IN,
            key=new_id().hex,
            away=away,
            delivery=delivery,
            remarks=remarks,
            desk=domain.DESK,
            command=await _command(office, request),
            trouble=trouble,
            hold_reasons=HOLD_REASONS,
            cancel_reasons=CANCEL_REASONS,
            can=[
                a.__name__.lower()
                for a, statuses in domain.FROM.items()
                if found[0].order.version and found[0].order.status in statuses
            ],
        )

    async def act(request: Request, member: Member) -> Response:
        """What the forms of an order ask for; `do` names it."""
        admitted(member, *SELLERS)
        order_id = path_uuid(request, "order_id", "order")
        form = await form_of(request)
        try:
            sent = await _do(office, member, order_id, form)
        except Problem as problem:
            if problem.status not in (409, 422):
                raise
            return await show_order(request, member, problem)
        return RedirectResponse(f"/orders/{order_id}" + ("" if sent is None else f"?command={sent}"), 303)

    async def show_command(request: Request, member: Member) -> Response:
        """A part of the order's page, until Orders has decided; then the whole page is shown anew."""
        found = await handlers.find_command(office, path_uuid(request, "command_id", "command"))
        headers = (
            {} if found.state == "pending" else {"HX-Redirect": f"/orders/{found.order_id}?command={found.command_id}"}
        )
        return house.page(request, "command.html", headers=headers, member=member, command=found)

    async def new_order(request: Request, member: Member) -> Response:
        """`customer`: whom it is for; `order`: whose model is ordered again."""
        admitted(member, *SELLERS)
        customer_id = query(request, "customer", UUID, None)
        return page(
            request,
            "new_order.html",
            member,
            **piece_context(house, request, largest_model_bytes),
            customer=None if customer_id is None else await customers.view(office, customer_id),
            order_id=query(request, "order", UUID, None),
        )

    async def search(request: Request, member: Member) -> Response:
        text = request.query_params.get("q", "")[:200]
        found = await selling.search(office, text)
        if len(found.orders) == 1 and not found.customers:
            return RedirectResponse(f"/orders/{found.orders[0].order_id}", 303)
        return page(request, "search.html", member, q=text, found=found)

    async def list_customers(request: Request, member: Member, trouble: Problem | None = None) -> Response:
        text = request.query_params.get("q", "")[:200]
        seller = query(_without_empty(request), "seller", UUID, None)
        before = query(request, "after", UUID, None)
        shown = await customers_api.customers_page(office, text, seller, before, rows_wanted(request))
        status = 200 if trouble is None else trouble.status
        return page(request, "customers.html", member, status, shown=shown, q=text, trouble=trouble)

    async def add_customer(request: Request, member: Member) -> Response:
        admitted(member, *SELLERS)
        form = await form_of(request)
        try:
            body = body_of(form, customers_api.AddCustomer)
            added = await customers.add(office, member, body.kind, body.name, body.phone, body.email, body.consent)
        except Problem as problem:
            return await list_customers(request, member, problem)
        return RedirectResponse(f"/customers/{added.customer_id}", 303)

    async def show_customer(request: Request, member: Member, trouble: Problem | None = None) -> Response:
        customer_id = path_uuid(request, "customer_id", "customer")
        view = await customers.view(office, customer_id)
        filters = desk_store.Filters(customer_id=customer_id)
        async with office.pool.acquire() as connection:
            found = await desk_store.orders_page(connection, filters, None, 50)
            sellers = await desk_store.sellers(connection)
        return page(
            request,
            "customer.html",
            member,
            200 if trouble is None else trouble.status,
            customer=view,
            orders=[line(placed) for placed in found],
            sellers=sellers,
            trouble=trouble,
        )

    async def change_customer(request: Request, member: Member) -> Response:
        """What the forms of a customer ask for; `do` names it."""
        admitted(member, *SELLERS)
        customer_id = path_uuid(request, "customer_id", "customer")
        form = await form_of(request)
        try:
            customer_id = await _change(office, member, customer_id, form)
        except Problem as problem:
            if problem.status not in (409, 422):
                raise
            return await show_customer(request, member, problem)
        return RedirectResponse(f"/customers/{customer_id}", 303)

    async def sign_out_everywhere(request: Request, member: Member) -> Response:
        if (await form_of(request)).get("sure") != "yes":
            raise Problem(422, "not-sure", "Say that you mean it", "Use the button of the page.")
        async with office.pool.acquire() as connection:
            await handlers.end_sessions(connection, member.staff_id)
        return RedirectResponse("/", 303)

    def shown(path: str, endpoint: Callable[[Request, Member], Awaitable[Response]], method: str = "GET") -> Route:
        return house.route(path, staff.signed_in(endpoint), (method,))

    return [
        shown("/", home),
        shown("/board/columns", columns),
        shown("/board/events", events),
        shown("/orders", list_orders),
        shown("/new-order", new_order),
        shown("/orders/{order_id}", show_order),
        shown("/orders/{order_id}", act, "POST"),
        shown("/commands/{command_id}", show_command),
        shown("/search", search),
        shown("/customers", list_customers),
        shown("/customers", add_customer, "POST"),
        shown("/customers/{customer_id}", show_customer),
        shown("/customers/{customer_id}", change_customer, "POST"),
        shown("/sign-out-everywhere", sign_out_everywhere, "POST"),
        *layout_pages.routes(office, orders, house, page, shown),
        *task_pages.routes(office, page, shown),
        *staff.routes(),
    ]


def _age(now: datetime, at: datetime) -> tuple[str, int]:
    """How long something has been so, in its largest unit: 5 min, 3 h, 12 d."""
    minutes = max(0, int((now - at).total_seconds() // 60))
    if minutes < 60:
        return "{n} min", minutes
    return ("{n} h", minutes // 60) if minutes < 48 * 60 else ("{n} d", minutes // 1440)


def _without_empty(request: Request) -> Request:
    """The same request, but a filter that was left empty in the form is none."""
    kept = [(k, v) for k, v in request.query_params.multi_items() if v]
    return Request({**request.scope, "query_string": urlencode(kept).encode()})


async def _time_line(orders: Neighbour, order_id: UUID) -> tuple[list[Step], str | None]:
    """Every version of an order, the newest first, or why it cannot be had now."""
    steps: list[Step] = []
    try:
        while len(steps) < 1000:
            versions = await clients.history(orders, order_id, len(steps), patience_s=_PATIENCE_S)
            steps += [step_of(version) for version in versions]
            if len(versions) < 100:
                break
    except Problem as problem:
        return [], problem.detail
    return steps[::-1], None


async def _command(office: Office, request: Request) -> Any:
    """The command that the address names; None for none, and for one that is not known."""
    try:
        return await handlers.find_command(office, UUID(request.query_params.get("command", "")))
    except (ValueError, Problem):
        return None


async def _do(office: Office, member: Member, order_id: UUID, form: dict[str, str]) -> UUID | None:
    """Do what a form of an order asks for; the id of the command that was sent, if one was. Raises the 422 Problem."""

    async def send(action: str, wish: Action, version: int | None) -> UUID:
        return (await handlers.command(office, member, order_id, action, wish, version)).command_id

    match form.get("do"):
        case "approve":
            approve = body_of(form, ApproveOrder)
            return await send("approve", Approve(approve.quote_id, approve.amount), approve.version)
        case "hold":
            hold = body_of(form, HoldOrder)
            return await send("hold", Hold(hold.reason), hold.version)
        case "resume":
            return await send("resume", Resume(), body_of(form, ResumeOrder).version)
        case "cancel":
            cancel = body_of(form, CancelOrder)
            return await send("cancel", Cancel(cancel.reason), cancel.version)
        case "close":
            close = body_of(form, CloseOrder)
            sent = await selling.close_order(
                office, member, order_id, close.delivered_on, close.received_by, close.version
            )
            return sent.command_id
        case "resubmit":
            return (await handlers.resubmit_order(office, member, order_id, {}, _version(form))).command_id
        case "say":
            said = body_of({"text": form.get("text", "")}, Say)
            key = form.get("key", "")[:100] or None
            await conversation.say(office, member, order_id, said.text, asks=form.get("asks") == "yes", key=key)
            return None
        case "customer":
            await customers.link_order(office, member, order_id, await _customer_named(office, form))
            return None
    raise Problem(422, "unknown-action", "This is not known here", "Use the buttons of the page.")


def _version(form: dict[str, str]) -> int | None:
    return int(form["version"]) if form.get("version", "").isdigit() else None


async def _customer_named(office: Office, form: dict[str, str]) -> UUID:
    """The customer that a search finds alone. Raises the 422 Problem."""
    text = form.get("customer", "").strip()
    try:
        return UUID(text)
    except ValueError:
        pass
    found = (await customers_api.customers_page(office, text, None, None, 2)).customers if text else []
    if len(found) != 1:
        title = "No customer is found by this" if not found else "More than one customer is found by this"
        raise Problem(422, "customer-unclear", title, "Give more of the name, or the telephone number.")
    return found[0].customer_id


async def _change(office: Office, member: Member, customer_id: UUID, form: dict[str, str]) -> UUID:
    """Do what a form of a customer asks for; the id of the customer to show then. Raises the 404, 409 and 422
    Problems."""
    match form.get("do"):
        case "rename":
            named = body_of(form, customers_api.ChangeCustomer)
            await customers.rename(office, member, customer_id, named.kind, named.name, named.seller_id, named.version)
        case "contact":
            new = body_of(form, customers_api.AddContact)
            contact = Contact(new_id(), new.name, new.position, new.phone, new.email)
            await customers.add_contact(office, member, customer_id, contact, new.version)
        case "remove-contact":
            version = body_of(form, customers_api.RemoveContact).version
            contact_id = _uuid(form.get("contact_id", ""))
            await customers.remove_contact(office, member, customer_id, contact_id, version)
        case "consent":
            given = body_of({**form, "how": form.get("how", "")}, customers_api.Consent)
            await customers.set_consent(office, member, customer_id, given.how, given.version)
        case "withdraw-consent":
            version = body_of(form, customers_api.RemoveContact).version
            await customers.set_consent(office, member, customer_id, None, version)
        case "note":
            await customers.add_note(office, member, customer_id, body_of(form, customers_api.AddNote).text)
        case "merge":
            merge = body_of(form, customers_api.Merge)
            return (await customers.merge(office, member, customer_id, merge.into, merge.version)).customer_id
        case _:
            raise Problem(422, "unknown-action", "This is not known here", "Use the buttons of the page.")
    return customer_id


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise Problem(422, "out-of-range", "This is no id", text[:60]) from None
