"""HTTP of the web hooks, for partners' programs, and the bodies that are sent to theirs."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from lostwax.channel.callers import calling_client
from lostwax.channel.views import OrderView, of_order
from lostwax.contracts.orders import Order, Status
from lostwax.kit.http import Operation, Parameter, answer, path_uuid, query
from lostwax.kit.paging import page_parameters, rows_wanted
from lostwax.kit.postgres import Pool
from lostwax.partner_api import hooks
from lostwax.partner_api.callers import AUTH
from lostwax.partner_api.domain import LONGEST_GRACE, Scope
from lostwax.partner_api.hooks_sender import Sender
from lostwax.partner_api.hooks_store import DeliveryRow, Due, Hook

_order = msgspec.json.Decoder(Order)
_encode = msgspec.json.Encoder().encode


class RegisterHook(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    url: Annotated[str, Meta(min_length=1, max_length=1000, description="https, without user name or fragment")]


class HookView(msgspec.Struct, frozen=True):
    """Where you are told of your orders. Disabled: nothing is sent, but all is kept for 30 days; enable it again."""

    hook_id: UUID
    url: str
    created_at: datetime
    disabled_at: datetime | None = None
    disabled_why: str | None = None


class NewHook(msgspec.Struct, frozen=True):
    """`secret` signs what is sent (Standard Webhooks) and is shown this once."""

    hook_id: UUID
    url: str
    created_at: datetime
    secret: str


class RotateSecret(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """For `grace_s` seconds (a day unless you say otherwise) what is sent bears a signature by each secret."""

    grace_s: Annotated[int, Meta(ge=0, le=int(LONGEST_GRACE.total_seconds()))] = 86_400


class NewSecret(msgspec.Struct, frozen=True):
    """`secret` is shown this once. Until `old_until` the one of before signs too; one before that no more."""

    hook_id: UUID
    secret: str
    old_until: datetime


class HooksView(msgspec.Struct, frozen=True):
    """Oldest first."""

    hooks: list[HookView]


class DeliveryView(msgspec.Struct, frozen=True):
    """A message to a hook. `state`: waiting (for the order's earlier versions), due, delivered, given_up.

    `webhook_id` is the header that came with it. No `order_id`: a test. What was answered last: `response_status` and
    the beginning of `response_body`, or the `error`. `next_attempt_at` is set while it is due.
    """

    webhook_id: UUID
    order_id: UUID | None
    version: int | None
    state: str
    attempts: int
    created_at: datetime
    last_attempt_at: datetime | None
    next_attempt_at: datetime | None
    duration_ms: int | None
    response_status: int | None
    response_body: str | None
    error: str | None


class DeliveriesPage(msgspec.Struct, frozen=True):
    """Newest first. Ask for the next page with `after=<next>`; no `next`: that was all."""

    deliveries: list[DeliveryView]
    next: int | None = None


class OrderTransition(msgspec.Struct, frozen=True, rename={"source": "from", "target": "to"}):
    """The step that led to this version. `from` is null for an order's first version."""

    source: Status | None
    target: Status
    at: datetime
    reason: str | None


class OrderChangedHook(msgspec.Struct, frozen=True):
    """`data` is the order as GET /v1/orders/{order_id} showed it at that version."""

    type: str
    timestamp: datetime
    data: OrderView
    transition: OrderTransition


class TestHook(msgspec.Struct, frozen=True):
    """What POST /v1/hooks/{hook_id}/test sends."""

    type: str
    timestamp: datetime
    data: dict[str, UUID]


def render(due: Due) -> bytes:
    """The body of a delivery. Who in the workshop did a step stays in the workshop."""
    if due.order_body is None:
        return _encode(TestHook("hook.test", due.created_at, {"hook_id": due.hook_id}))
    order = _order.decode(due.order_body)
    step = order.transition
    view = of_order(order, due.accepted_at or order.submitted_at)
    transition = OrderTransition(source=step.source, target=step.target, at=step.at, reason=step.reason)
    return _encode(OrderChangedHook("order.changed", step.at, view, transition))


def operations(pool: Pool, sender: Sender) -> list[Operation]:
    def wanted(request: Request) -> tuple[UUID, UUID]:
        return calling_client(request).client_id, path_uuid(request, "hook_id", "hook")

    async def register_hook(request: Request, body: RegisterHook) -> Response:
        client_id = calling_client(request).client_id
        hook, secret = await hooks.register_hook(pool, sender, client_id, body.url)
        view = NewHook(hook.hook_id, hook.url, hook.created_at, secret)
        return answer(view, 201, {"Location": f"/v1/hooks/{hook.hook_id}"})

    async def list_hooks(request: Request) -> Response:
        return answer(HooksView([_hook_view(h) for h in await hooks.hooks_of(pool, calling_client(request).client_id)]))

    async def get_hook(request: Request) -> Response:
        return answer(_hook_view(await hooks.own_hook(pool, *wanted(request))))

    async def remove_hook(request: Request) -> Response:
        await hooks.remove_hook(pool, *wanted(request))
        return Response(status_code=204)

    async def enable_hook(request: Request) -> Response:
        return answer(_hook_view(await hooks.enable_hook(pool, *wanted(request))))

    async def test_hook(request: Request) -> Response:
        return answer(_delivery_view(await hooks.send_test(pool, *wanted(request))), 202)

    async def rotate_secret(request: Request, body: RotateSecret) -> Response:
        hook, secret, until = await hooks.change_secret(pool, *wanted(request), body.grace_s)
        return answer(NewSecret(hook.hook_id, secret, until), 201)

    async def redeliver(request: Request) -> Response:
        row = await hooks.send_again(pool, *wanted(request), path_uuid(request, "webhook_id", "delivery"))
        return answer(_delivery_view(row), 202)

    async def list_deliveries(request: Request) -> Response:
        client_id, hook_id = wanted(request)
        limit = rows_wanted(request)
        before = query(request, "after", Annotated[int, Meta(ge=0, le=2**63 - 1)], None)
        order_id = query(request, "order_id", UUID, None)
        rows = await hooks.deliveries(pool, client_id, hook_id, before, order_id, limit + 1)
        shown = rows[:limit]
        return answer(
            DeliveriesPage([_delivery_view(row) for row in shown], shown[-1].number if len(rows) > limit else None)
        )

    no_hook = {404: "no such hook"}
    return [
        Operation(
            "POST",
            "/v1/hooks",
            register_hook,
            "Be told of every change of your orders from now on, at this URL",
            {201: NewHook},
            {409: "you have this one already, or too many", 422: "no https URL, or not a public host"},
            body=RegisterHook,
            auth=AUTH,
            scope=Scope.HOOKS_MANAGE,
        ),
        Operation("GET", "/v1/hooks", list_hooks, "Your hooks", {200: HooksView}, auth=AUTH, scope=Scope.HOOKS_MANAGE),
        Operation(
            "GET",
            "/v1/hooks/{hook_id}",
            get_hook,
            "One of your hooks",
            {200: HookView},
            no_hook,
            auth=AUTH,
            scope=Scope.HOOKS_MANAGE,
        ),
        Operation(
            "DELETE",
            "/v1/hooks/{hook_id}",
            remove_hook,
            "Be told no more there",
            {204: None},
            no_hook,
            auth=AUTH,
            scope=Scope.HOOKS_MANAGE,
        ),
        Operation(
            "POST",
            "/v1/hooks/{hook_id}/enable",
            enable_hook,
            "Begin again with a hook that was disabled; what waits is sent at once",
            {200: HookView},
            no_hook,
            auth=AUTH,
            scope=Scope.HOOKS_MANAGE,
        ),
        Operation(
            "POST",
            "/v1/hooks/{hook_id}/test",
            test_hook,
            "Have a message sent that tells of no order, once",
            {202: DeliveryView},
            {**no_hook, 409: "the hook is disabled, or a test is under way"},
            auth=AUTH,
            scope=Scope.HOOKS_MANAGE,
        ),
        Operation(
            "POST",
            "/v1/hooks/{hook_id}/rotate-secret",
            rotate_secret,
            "A new secret; for a while what is sent is signed with both",
            {201: NewSecret},
            no_hook,
            body=RotateSecret,
            auth=AUTH,
            scope=Scope.HOOKS_MANAGE,
        ),
        Operation(
            "POST",
            "/v1/hooks/{hook_id}/deliveries/{webhook_id}/redeliver",
            redeliver,
            "Have a delivery sent once more, under the same webhook-id",
            {202: DeliveryView},
            {404: "no such hook or delivery", 409: "the hook is disabled, or it will be sent anyhow"},
            auth=AUTH,
            scope=Scope.HOOKS_MANAGE,
        ),
        Operation(
            "GET",
            "/v1/hooks/{hook_id}/deliveries",
            list_deliveries,
            "What was sent to a hook in the last 30 days, newest first",
            {200: DeliveriesPage},
            {**no_hook, 400: "a parameter is wrong"},
            parameters=(
                *page_parameters({"type": "integer"}),
                Parameter("order_id", "query", {"type": "string", "format": "uuid"}, "only of this order"),
            ),
            auth=AUTH,
            scope=Scope.HOOKS_MANAGE,
        ),
    ]


def _hook_view(hook: Hook) -> HookView:
    return HookView(hook.hook_id, hook.url, hook.created_at, hook.disabled_at, hook.disabled_why)


def _delivery_view(row: DeliveryRow) -> DeliveryView:
    return DeliveryView(
        webhook_id=row.delivery_id,
        order_id=row.order_id,
        version=row.version,
        state=row.state,
        attempts=row.attempts,
        created_at=row.created_at,
        last_attempt_at=row.last_attempt_at,
        next_attempt_at=row.next_at if row.state == "due" else None,
        duration_ms=row.duration_ms,
        response_status=row.response_status,
        response_body=row.response_body,
        error=row.error,
    )
