"""Pages of layouts: for sellers, revisions side by side; for customers, one layout by a link that needs no account."""

from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any, Protocol
from uuid import UUID

import httpx
import msgspec
from msgspec import Meta
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from lostwax.contracts.ids import short_code
from lostwax.contracts.orders import ModelRef
from lostwax.crm import clients, handlers, layouts, layouts_api, layouts_store, mail
from lostwax.crm.api import SELLERS
from lostwax.crm.handlers import Office
from lostwax.crm.layouts_store import Layout
from lostwax.kit.auth import Member
from lostwax.kit.house import House, body_of, form_of
from lostwax.kit.http import path_uuid, query
from lostwax.kit.neighbours import Neighbour
from lostwax.kit.problems import Problem, try_later
from lostwax.kit.staff import admitted, refuse_cross_site
from lostwax.kit.staff_pages import Shown

LARGEST = 64_000_000
"""Largest model that comes through a form, bytes: what Orders takes by a call."""

FORMATS = (".stl", ".obj", ".3mf")

Name = Annotated[str, Meta(min_length=1, max_length=100, pattern=r"\S")]


class GuestAnswer(msgspec.Struct, frozen=True):
    """A customer's answer or remark, as the form gives it."""

    name: Name
    text: Annotated[str, Meta(max_length=2000)] = ""


class Paged(Protocol):
    """Shows a page of the desk."""

    def __call__(
        self, request: Request, template: str, member: Member, status: int = 200, **context: Any
    ) -> Response: ...


def routes(
    office: Office, orders: Neighbour, house: House, page: Paged, shown: Callable[[str, Shown, str], Route]
) -> list[Route]:
    fetch = httpx.AsyncClient(timeout=httpx.Timeout(10, read=30))

    async def show_layouts(
        request: Request, member: Member, trouble: Problem | None = None, token: str | None = None
    ) -> Response:
        order_id = path_uuid(request, "order_id", "order")
        order = await handlers.known_order(office, order_id)
        view = await layouts.view(office, order_id)
        async with office.pool.acquire() as connection:
            templates = await layouts_store.templates(connection)
        by_revision = {one.revision: one for one in view.layouts}
        right = by_revision.get(query(request, "right", int, 0)) or (view.layouts[-1] if view.layouts else None)
        left = by_revision.get(query(request, "left", int, 0)) or (view.layouts[-2] if len(view.layouts) > 1 else None)
        return page(
            request,
            "layouts.html",
            member,
            200 if trouble is None else trouble.status,
            order=order,
            code=short_code(order_id),
            view=view,
            pair=[one for one in (left, right) if one is not None],
            fresh=all(one.sha256 != order.specification.model.sha256 for one in view.layouts),
            templates=templates,
            link=None if token is None else f"{_origin(request)}/l/{token}",
            trouble=trouble,
        )

    async def change_layouts(request: Request, member: Member) -> Response:
        """What the forms ask for; `do` names it."""
        admitted(member, *SELLERS)
        order_id = path_uuid(request, "order_id", "order")
        try:
            if request.headers.get("content-type", "").startswith("multipart/form-data"):
                await propose(request, member, order_id)
                return RedirectResponse(f"/orders/{order_id}/layouts", 303)
            form = await form_of(request)
            match form.get("do"):
                case "add":
                    await layouts.add(office, member, order_id, body_of(form, layouts_api.AddLayout).note)
                case "send":
                    sent = await layouts.send(office, member, _id(form))
                    return await show_layouts(request, member, token=sent.token)
                case "mail":
                    await mail.send_layout(office, member, _id(form))
                case "remark":
                    text = body_of({"text": form.get("text", "")}, layouts_api.AddRemark).text
                    await layouts.remark(office, member, _id(form), text, place_of(form))
                case "make":
                    sent_off = await layouts.make_it_so(office, member, _id(form))
                    return RedirectResponse(f"/orders/{order_id}?command={sent_off.command_id}", 303)
                case "template":
                    await layouts.keep_template(office, member, form.get("name", ""), form.get("text", ""))
                case _:
                    raise Problem(422, "unknown-action", "This is not known here", "Use the buttons of the page.")
        except Problem as problem:
            if problem.status not in (409, 413, 422):
                raise
            return await show_layouts(request, member, problem)
        return RedirectResponse(f"/orders/{order_id}/layouts", 303)

    async def propose(request: Request, member: Member, order_id: UUID) -> None:
        """A file as the next revision."""
        await handlers.known_order(office, order_id)
        content, name, note = await uploaded(request)
        model = await clients.keep_model(orders, content, name)
        await layouts.add(office, member, order_id, note, model)

    async def model(request: Request, member: Member) -> Response:
        return await file_of(await layouts.known(office, path_uuid(request, "layout_id", "layout")))

    async def file_of(layout: Layout) -> Response:
        """The file itself, through here: a page may fetch from its own address only, and a guest gets no other link."""
        reference = ModelRef(layout.sha256, layout.size_bytes, layout.name)
        url = await clients.model_link(orders, reference)
        try:
            answered = await fetch.send(fetch.build_request("GET", url), stream=True)
        except httpx.TransportError:
            raise try_later("The file storage does not answer.", after_s=5, code="storage-away") from None
        if answered.status_code != 200:
            await answered.aclose()
            raise try_later("The file storage does not give the model.", after_s=5, code="storage-away")

        async def parts() -> AsyncIterator[bytes]:
            try:
                async for part in answered.aiter_bytes(256 * 1024):
                    yield part
            finally:
                await answered.aclose()

        headers = {
            "Cache-Control": "private, max-age=3600",
            "X-Content-Type-Options": "nosniff",
            "Content-Security-Policy": "sandbox",
            "Content-Disposition": "attachment",
            "Content-Length": str(layout.size_bytes),
        }
        return StreamingResponse(parts(), headers=headers, media_type="application/octet-stream")

    async def guest_page(request: Request, trouble: Problem | None = None) -> Response:
        token = request.path_params["token"]
        guest = await layouts.opened(office, token, count=request.method == "GET")
        status = 200 if trouble is None else trouble.status
        return house.page(request, "guest.html", status, guest=guest, layout=guest.layout, token=token, trouble=trouble)

    async def guest_answers(request: Request) -> Response:
        refuse_cross_site(request)
        token = request.path_params["token"]
        form = await form_of(request)
        try:
            said = body_of(form, GuestAnswer)
            text, place = said.text.strip(), place_of(form)
            match form.get("do"):
                case "approve":
                    await layouts.answer(office, token, said.name, approve=True, text=text)
                case "answer" if text:
                    await layouts.answer(office, token, said.name, approve=False, text=text, place=place)
                case "remark" if text:
                    await layouts.guest_remark(office, token, said.name, text, place)
                case _:
                    raise Problem(422, "text-missing", "Say what is to be otherwise", "The text is empty.")
        except Problem as problem:
            if problem.status not in (409, 422):
                raise
            return await guest_page(request, problem)
        return RedirectResponse(f"/l/{token}", 303)

    async def guest_model(request: Request) -> Response:
        return await file_of((await layouts.opened(office, request.path_params["token"])).layout)

    return [
        shown("/orders/{order_id}/layouts", show_layouts, "GET"),
        shown("/orders/{order_id}/layouts", change_layouts, "POST"),
        shown("/layouts/{layout_id}/model", model, "GET"),
        house.route("/l/{token}", guest_page, secret=True),
        house.route("/l/{token}", guest_answers, ("POST",), secret=True),
        house.route("/l/{token}/model", guest_model, secret=True),
    ]


async def uploaded(request: Request) -> tuple[bytes, str, str]:
    """The file of a form with its name, and the note. Raises the 413 and 422 Problems."""
    declared = request.headers.get("content-length", "")
    if not declared.isdigit() or int(declared) > LARGEST:
        raise Problem(413, "body-too-large", "The file is too large", f"At most {LARGEST // 1_000_000} MB.")
    try:
        async with request.form(max_files=1, max_fields=5) as form:
            file, note = form.get("file"), form.get("note")
            content = await file.read() if isinstance(file, UploadFile) else b""
            name = (file.filename or "") if isinstance(file, UploadFile) else ""
    except HTTPException as error:
        raise Problem(422, "not-a-form", "The form cannot be read", str(error.detail)) from None
    name = name.replace("\\", "/").rsplit("/", 1)[-1].strip()[:200]
    if not content or not name.lower().endswith(FORMATS):
        raise Problem(422, "no-model", "There is no model in the form", f"A file that ends in {', '.join(FORMATS)}.")
    return content, name.replace("\0", ""), note.replace("\0", "")[:1000] if isinstance(note, str) else ""


def _origin(request: Request) -> str:
    return f"{request.url.scheme}://{request.headers.get('host', request.url.netloc)}"


def _id(form: dict[str, str]) -> UUID:
    try:
        return UUID(form.get("layout_id", ""))
    except ValueError:
        raise Problem(422, "out-of-range", "No layout is named", "layout_id: a UUID.") from None


def place_of(form: dict[str, str]) -> layouts.Place | None:
    """Where a remark is pinned; None: nowhere. Raises the 422 Problem."""
    raw = form.get("place", "").strip()
    if not raw:
        return None
    try:
        place: layouts.Place = msgspec.convert([float(part) for part in raw.split(",")], layouts_api.Place)
    except (ValueError, msgspec.ValidationError):
        raise Problem(422, "out-of-range", "The place is no place", "place: x,y,z in mm.") from None
    return place
