"""HTTP of the MES, for the operators' page and the workshop's programs."""

from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from lostwax.contracts.orders import Order, Shipment
from lostwax.contracts.staff import Role
from lostwax.kit.http import Operation, answer, path_uuid, query
from lostwax.kit.neighbours import Neighbour
from lostwax.kit.paging import page_parameters, rows_wanted
from lostwax.kit.problems import Problem, not_found
from lostwax.kit.staff import STAFF_AUTH, StaffDoor
from lostwax.mes import domain, handlers, neighbours, store
from lostwax.mes.domain import OVERSEERS, WORKSHOP, Card, ListName
from lostwax.mes.handlers import Workshop
from lostwax.mes.store import ClaimRow, StepRow


class CardsPage(msgspec.Struct, frozen=True):
    """By due date. Ask for the next page with `after=<next>`; no `next`: that was all. `source` is `redis`, or
    `database` while Redis is being rebuilt: then it is slower, and just as true."""

    cards: list[Card]
    source: str
    next: str | None = None


class ClaimView(msgspec.Struct, frozen=True):
    """`state`: pending (being confirmed by Orders) or confirmed; ended as done, released, reworked or cancelled; or
    voided: Orders refused the start, for `reason`. `ended_by`: who ended it, when that was not its holder."""

    claim_id: UUID
    order_id: UUID
    operator: str
    state: str
    claimed_at: datetime
    reason: str | None = None
    ended_by: str | None = None


class StepView(msgspec.Struct, frozen=True):
    """A step asked of Orders. `state`: pending, accepted, or refused with `code` and `detail`."""

    step_id: UUID
    order_id: UUID
    action: str
    state: str
    code: str | None = None
    detail: str | None = None


class OrderView(msgspec.Struct, frozen=True):
    """One order, with whoever has it in hand."""

    order: Order
    card: Card
    claim: ClaimView | None = None


class Work(msgspec.Struct, frozen=True):
    claim: ClaimView
    card: Card


class MyWork(msgspec.Struct, frozen=True):
    """What you have in hand, newest first, and claims that were taken from you in the last quarter of an hour."""

    work: list[Work]


class InHand(msgspec.Struct, frozen=True):
    """What anybody has in hand, the oldest claim first. Ask for the next page with `after=<next>`; no `next`: that was
    all."""

    work: list[Work]
    next: UUID | None = None


class Me(msgspec.Struct, frozen=True):
    operator_id: UUID
    name: str
    role: Role


class Release(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    reason: Annotated[str, Meta(min_length=1, max_length=200)]


class Rework(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    reason: Annotated[str, Meta(min_length=1, max_length=200)]


class ShipOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    carrier: Annotated[str, Meta(min_length=1, max_length=60)]
    tracking_number: Annotated[str, Meta(min_length=1, max_length=80)]


def operations(workshop: Workshop, door: StaffDoor, orders: Neighbour) -> list[Operation]:
    async def get_me(request: Request) -> Response:
        operator = await door.enter(request)
        return answer(Me(operator.staff_id, operator.name, operator.role))

    async def get_list(request: Request) -> Response:
        await door.enter(request)
        limit = rows_wanted(request)
        try:
            list_name = ListName(request.path_params["list"])
        except ValueError:
            raise Problem(404, "not-found", "No such list", f"Lists: {', '.join(ListName)}.") from None
        after = _cursor(request.query_params.get("after"))
        cards, source = await handlers.list_page(workshop, list_name, after, limit)
        return answer(CardsPage(cards, source, _cursor_of(cards[-1]) if len(cards) == limit else None))

    async def get_work(request: Request) -> Response:
        operator = await door.enter(request, *WORKSHOP)
        async with workshop.pool.acquire() as connection:
            pairs = await store.work_of(connection, operator.staff_id)
        return answer(MyWork([Work(_claim_view(claim), domain.card(order)) for claim, order in pairs]))

    async def get_in_hand(request: Request) -> Response:
        await door.enter(request, *OVERSEERS)
        limit = rows_wanted(request)
        after = query(request, "after", UUID, None)
        async with workshop.pool.acquire() as connection:
            pairs = await store.in_hand(connection, after, limit + 1)
        work = [Work(_claim_view(claim), domain.card(order)) for claim, order in pairs[:limit]]
        return answer(InHand(work, work[-1].claim.claim_id if len(pairs) > limit else None))

    async def get_order(request: Request) -> Response:
        await door.enter(request)
        order_id = path_uuid(request, "order_id", "order")
        async with workshop.pool.acquire() as connection:
            order = await store.order(connection, order_id)
            claim = await store.active_claim(connection, order_id)
        if order is None:
            raise not_found("order")
        return answer(OrderView(order, domain.card(order), None if claim is None else _claim_view(claim)))

    async def get_model(request: Request) -> Response:
        await door.enter(request, *WORKSHOP)
        async with workshop.pool.acquire() as connection:
            order = await store.order(connection, path_uuid(request, "order_id", "order"))
        if order is None:
            raise not_found("order")
        model = order.specification.model
        return RedirectResponse(await neighbours.model_link(orders, model.sha256, model.name), status_code=302)

    async def claim_order(request: Request) -> Response:
        operator = await door.enter(request, Role.OPERATOR)
        return answer(
            _claim_view(await handlers.claim_order(workshop, operator, path_uuid(request, "order_id", "order")))
        )

    async def release_order(request: Request, body: Release) -> Response:
        operator = await door.enter(request, *WORKSHOP)
        order_id = path_uuid(request, "order_id", "order")
        return answer(_step_view(await handlers.release_order(workshop, operator, order_id, body.reason)), 202)

    async def complete_order(request: Request) -> Response:
        operator = await door.enter(request, Role.OPERATOR)
        order_id = path_uuid(request, "order_id", "order")
        return answer(_step_view(await handlers.complete_order(workshop, operator, order_id)), 202)

    async def rework_order(request: Request, body: Rework) -> Response:
        operator = await door.enter(request, *WORKSHOP)
        order_id = path_uuid(request, "order_id", "order")
        return answer(_step_view(await handlers.rework_order(workshop, operator, order_id, body.reason)), 202)

    async def pack_order(request: Request) -> Response:
        operator = await door.enter(request, Role.OPERATOR)
        order_id = path_uuid(request, "order_id", "order")
        return answer(_step_view(await handlers.pack_order(workshop, operator, order_id)), 202)

    async def ship_order(request: Request, body: ShipOrder) -> Response:
        operator = await door.enter(request, Role.OPERATOR)
        order_id = path_uuid(request, "order_id", "order")
        shipment = Shipment(body.carrier, body.tracking_number)
        return answer(_step_view(await handlers.ship_order(workshop, operator, order_id, shipment)), 202)

    async def get_step(request: Request) -> Response:
        await door.enter(request, *WORKSHOP)
        async with workshop.pool.acquire() as connection:
            step = await store.step(connection, path_uuid(request, "step_id", "step"))
        if step is None:
            raise not_found("step")
        return answer(_step_view(step))

    page = page_parameters({"type": "string"})
    absent = {404: "no such order"}
    workers = {403: "your role may not"}
    step_problems = absent | workers | {409: "the step does not fit the order now, or it is not yours"}

    def step(path: str, endpoint: object, summary: str, body: type[msgspec.Struct] | None = None) -> Operation:
        return Operation("POST", path, endpoint, summary, {202: StepView}, step_problems, body=body, auth=STAFF_AUTH)  # type: ignore[arg-type]

    return [
        Operation("GET", "/v1/me", get_me, "Who you are", {200: Me}, auth=STAFF_AUTH),
        Operation(
            "GET",
            "/v1/lists/{list}",
            get_list,
            "A page of the queue, of what is to be packed, or of what is to be shipped",
            {200: CardsPage},
            {400: "a parameter is wrong", 404: "no such list"},
            parameters=page,
            auth=STAFF_AUTH,
        ),
        Operation("GET", "/v1/work", get_work, "What you have in hand", {200: MyWork}, workers, auth=STAFF_AUTH),
        Operation(
            "GET",
            "/v1/in-hand",
            get_in_hand,
            "What anybody has in hand, for supervisors",
            {200: InHand},
            {400: "a parameter is wrong", 403: "for supervisors and administrators"},
            parameters=page,
            auth=STAFF_AUTH,
        ),
        Operation("GET", "/v1/orders/{order_id}", get_order, "One order", {200: OrderView}, absent, auth=STAFF_AUTH),
        Operation(
            "GET",
            "/v1/orders/{order_id}/model",
            get_model,
            "The order's 3D model, by a redirect to the file storage",
            {302: None},
            absent | workers,
            auth=STAFF_AUTH,
        ),
        Operation(
            "POST",
            "/v1/orders/{order_id}/claim",
            claim_order,
            "Take an order from the queue",
            {200: ClaimView},
            absent | workers | {409: "somebody else has it, or it is not in the queue"},
            auth=STAFF_AUTH,
        ),
        step("/v1/orders/{order_id}/release", release_order, "Give an order back to the queue", Release),
        step("/v1/orders/{order_id}/complete", complete_order, "The piece is made"),
        step("/v1/orders/{order_id}/rework", rework_order, "The quality check failed: back into the queue", Rework),
        step("/v1/orders/{order_id}/pack", pack_order, "The piece is being packed"),
        step("/v1/orders/{order_id}/ship", ship_order, "The parcel is with the carrier", ShipOrder),
        Operation(
            "GET",
            "/v1/steps/{step_id}",
            get_step,
            "What became of a step",
            {200: StepView},
            workers | {404: "no such step"},
            auth=STAFF_AUTH,
        ),
    ]


def _cursor_of(card: Card) -> str:
    return f"{round(card.due_at.timestamp() * 1000)}_{card.order_id}"


def _cursor(text: str | None) -> tuple[datetime, UUID] | None:
    if text is None:
        return None
    due, _, order_id = text.partition("_")
    try:
        seconds, milliseconds = divmod(int(due), 1000)
        return datetime.fromtimestamp(seconds, UTC).replace(microsecond=milliseconds * 1000), UUID(order_id)
    except (ValueError, OverflowError, OSError):
        raise Problem(400, "bad-parameter", "A query parameter is wrong", "after: send `next` as it came.") from None


def _claim_view(row: ClaimRow) -> ClaimView:
    return ClaimView(row.claim_id, row.order_id, row.operator, row.state, row.claimed_at, row.reason, row.ended_by)


def _step_view(row: StepRow) -> StepView:
    return StepView(row.command_id, row.order_id, row.action, row.state, row.code, row.detail)
