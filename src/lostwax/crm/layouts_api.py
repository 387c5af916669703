"""HTTP of layouts, for sellers. Customers have pages only (`layout_pages.py`)."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from lostwax.crm import handlers, layouts
from lostwax.crm.api import LOOKERS, SELLERS
from lostwax.crm.handlers import Office
from lostwax.crm.layouts import LayoutsView, Sent
from lostwax.crm.layouts_store import Layout, Remark, Wait
from lostwax.kit.http import Operation, Parameter, answer, path_uuid, query
from lostwax.kit.paging import rows_wanted
from lostwax.kit.staff import STAFF_AUTH, StaffDoor

Coordinate = Annotated[float, Meta(ge=-10_000, le=10_000)]
Place = tuple[Coordinate, Coordinate, Coordinate]


class AddLayout(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The order's present model becomes its next revision."""

    note: Annotated[str, Meta(max_length=1000)] = ""


class AddRemark(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`place`: where on the model, mm as it is drawn."""

    text: Annotated[str, Meta(min_length=1, max_length=2000, pattern=r"\S")]
    place: Place | None = None


class Waits(msgspec.Struct, frozen=True):
    waits: list[Wait]


def operations(office: Office, door: StaffDoor) -> list[Operation]:
    async def get_layouts(request: Request) -> Response:
        await door.enter(request, *LOOKERS)
        order_id = path_uuid(request, "order_id", "order")
        await handlers.known_order(office, order_id)
        return answer(await layouts.view(office, order_id))

    async def add_layout(request: Request, body: AddLayout) -> Response:
        member = await door.enter(request, *SELLERS)
        return answer(await layouts.add(office, member, path_uuid(request, "order_id", "order"), body.note), 201)

    async def send_layout(request: Request) -> Response:
        member = await door.enter(request, *SELLERS)
        sent = await layouts.send(office, member, path_uuid(request, "layout_id", "layout"))
        return answer(sent, headers={"Cache-Control": "no-store"})

    async def add_remark(request: Request, body: AddRemark) -> Response:
        member = await door.enter(request, *SELLERS)
        layout_id = path_uuid(request, "layout_id", "layout")
        return answer(await layouts.remark(office, member, layout_id, body.text, body.place), 201)

    async def list_waits(request: Request) -> Response:
        await door.enter(request, *LOOKERS)
        party = query(request, "party", Literal["seller", "customer"], "seller")
        return answer(Waits(list(await layouts.waits(office, party, rows_wanted(request)))))

    look = {403: "for sellers, supervisors and administrators"}
    write = {403: "for sellers and administrators", 404: "there is none"}
    return [
        Operation(
            "GET",
            "/v1/orders/{order_id}/layouts",
            get_layouts,
            "Revisions of an order's model, with remarks and the clock of who is waited for",
            {200: LayoutsView},
            look | {404: "no such order"},
            auth=STAFF_AUTH,
        ),
        Operation(
            "POST",
            "/v1/orders/{order_id}/layouts",
            add_layout,
            "Take the order's present model as its next revision",
            {201: Layout},
            write | {409: "this model is a revision already"},
            body=AddLayout,
            auth=STAFF_AUTH,
        ),
        Operation(
            "POST",
            "/v1/layouts/{layout_id}/send",
            send_layout,
            "A fresh link for the customer, shown this once; links sent before end",
            {200: Sent},
            write | {409: "the layout is settled"},
            auth=STAFF_AUTH,
        ),
        Operation(
            "POST",
            "/v1/layouts/{layout_id}/remarks",
            add_remark,
            "Remark on a place of the model, or on the whole",
            {201: Remark},
            write | {409: "too many remarks"},
            body=AddRemark,
            auth=STAFF_AUTH,
        ),
        Operation(
            "GET",
            "/v1/layouts/waiting",
            list_waits,
            "Orders whose layout waits for a party, the longest first",
            {200: Waits},
            look | {400: "a parameter is wrong"},
            parameters=(
                Parameter("party", "query", {"type": "string", "enum": ["seller", "customer"]}, "who is waited for"),
                Parameter("limit", "query", {"type": "integer", "minimum": 1, "maximum": 200}, "rows"),
            ),
            auth=STAFF_AUTH,
        ),
    ]
