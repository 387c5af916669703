"""Who may do what, route by route: written by hand from the papers, beside the code that it is held against.

Each row says what becomes of every kind of caller who sends a request that is right in all else: `in` (done, or refused
for how the object stands), 401, 403, 404, or `not theirs` (they may do such things, with what is their own).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.builders import a_digest, order_body

from lostwax.contracts.announcements import digest_of
from lostwax.contracts.ids import UUID, new_id

IN, WHO, MAY_NOT, ABSENT, NOT_THEIRS = "in", "401", "403", "404", "not theirs"

NOBODY = "nobody"
PARTNER, OTHER_PARTNER = "the owning partner", "another partner"
WITHOUT_SCOPE, SUSPENDED = "a key of the owner without the scope", "a suspended partner"
OPERATOR, OTHER_OPERATOR = "the operator who has it in hand", "another operator"
SUPERVISOR, SELLER, ADMINISTRATOR = "a supervisor", "a seller", "an administrator"
WITHDRAWN, EXPIRED = "a withdrawn administrator", "an administrator whose token has expired"
PARTNER_API, ORDERS, PRICING, MES, CRM, CONSOLE = "partner_api", "orders", "pricing", "mes", "crm", "console"
ELSEWHERE = "a service's token for another audience"

PARTNERS = (PARTNER, OTHER_PARTNER, WITHOUT_SCOPE, SUSPENDED)
STAFF = (OPERATOR, OTHER_OPERATOR, SUPERVISOR, SELLER, ADMINISTRATOR)
SERVICES = (PARTNER_API, ORDERS, PRICING, MES, CRM, CONSOLE)
CALLERS = (NOBODY, *PARTNERS, *STAFF, WITHDRAWN, EXPIRED, *SERVICES, ELSEWHERE)

World = Mapping[str, Any]
"""What there is to ask about, by the names that `objects` use."""


@dataclass(frozen=True)
class Row:
    """`becomes`: of each caller. `objects`: what in the world stands for a path parameter. `ask`: the rest of a request
    by a caller, as httpx wants it. `scope`: what WITHOUT_SCOPE's key lacks. `page`: staff come with the page's cookie.
    """

    becomes: Mapping[str, str]
    objects: Mapping[str, str] = field(default_factory=dict)
    ask: Callable[[World, str], Mapping[str, Any]] = lambda _, __: {}
    scope: str = "orders:read"
    page: bool = False


def _row(becomes: Mapping[str, str], body: Any = None, *, page: bool = False, scope: str = "", **objects: str) -> Row:
    def ask(world: World, caller: str) -> Mapping[str, Any]:
        if not callable(body):
            return {} if body is None else {"json": body}
        asked: Mapping[str, Any] = body(world, caller)
        return asked

    return Row(becomes, objects, ask, scope or "orders:read", page)


def _anybody(body: Any = None, *, but: Mapping[str, str] | None = None, page: bool = False, **objects: str) -> Row:
    return _row(dict.fromkeys(CALLERS, IN) | dict(but or {}), body, page=page, **objects)


def _partners(scope: str, body: Any = None, *, other: str = IN, **objects: str) -> Row:
    """The owner; `other`: what becomes of another partner, who asks for the same object."""
    becomes = dict.fromkeys(CALLERS, WHO)
    becomes |= {PARTNER: IN, OTHER_PARTNER: other, WITHOUT_SCOPE: MAY_NOT, SUSPENDED: MAY_NOT}
    return _row(becomes, body, scope=scope, **objects)


def _staff(*roles: str, body: Any = None, other: str = "", **objects: str) -> Row:
    """`other`: what becomes of an operator who does not have the order in hand, where that matters."""
    becomes = dict.fromkeys(CALLERS, WHO) | dict.fromkeys(STAFF, MAY_NOT)
    becomes |= dict.fromkeys(roles, IN)
    if OPERATOR in roles:
        becomes[OTHER_OPERATOR] = other or IN
    return _row(becomes, body, **objects)


def _services(*services: str, body: Any = None, **objects: str) -> Row:
    becomes = dict.fromkeys(CALLERS, WHO) | dict.fromkeys(SERVICES, MAY_NOT)
    return _row(becomes | dict.fromkeys(services, IN), body, **objects)


def _fresh(body: Callable[[World], Any]) -> Callable[[World, str], Mapping[str, Any]]:
    return lambda world, _: {"json": body(world), "headers": {"Idempotency-Key": new_id().hex}}


def _json(body: Callable[[World], Any]) -> Callable[[World, str], Mapping[str, Any]]:
    return lambda world, _: {"json": body(world)}


def _badge(world: World, caller: str) -> str:
    """Everybody who has one uses their own, somebody else's badge lets in anybody who found it; nobody has none."""
    return str(world["badges"].get(caller, world["badges"][OPERATOR]))


def _announcement(world: World) -> dict[str, Any]:
    order_ids = [UUID(world["order"])]
    return {"order_ids": [str(i) for i in order_ids], "count": 1, "digest": digest_of(order_ids)}


def _model(_: World) -> dict[str, Any]:
    return {"name": "ring.stl", "size_bytes": 100_000, "sha256": a_digest()}


WORKSHOP = (OPERATOR, SUPERVISOR, ADMINISTRATOR)
DESK = (SELLER, ADMINISTRATOR)
LOOKERS = (*DESK, SUPERVISOR)
READERS = (PARTNER_API, MES, CRM, CONSOLE)
WHY = {"reason": "the matrix"}
NO_LIMIT = {"rate_per_s": None}
NO_BADGE = {NOBODY: WHO, WITHDRAWN: WHO}

TABLE: dict[str, Row] = {
    # -- every service ------------------------------------------------------------------------------------------------
    **{
        f"{service} GET {path}": _anybody()
        for service in ("partner_api", "orders", "pricing", "mes", "crm")
        for path in ("/health/live", "/health/ready", "/openapi.json", "/metrics")
    },
    "partner_api GET /v1/publishing/{topic}": _services(CONSOLE, topic="orders.requests"),
    "partner_api PUT /v1/publishing/{topic}": _services(CONSOLE, body=NO_LIMIT, topic="orders.requests"),
    "orders GET /v1/publishing/{topic}": _services(CONSOLE, topic="orders.changes"),
    "orders PUT /v1/publishing/{topic}": _services(CONSOLE, body=NO_LIMIT, topic="orders.changes"),
    "mes GET /v1/publishing/{topic}": _services(CONSOLE, topic="orders.commands"),
    "mes PUT /v1/publishing/{topic}": _services(CONSOLE, body=NO_LIMIT, topic="orders.commands"),
    "crm GET /v1/publishing/{topic}": _services(CONSOLE, topic="staff.changes"),
    "crm PUT /v1/publishing/{topic}": _services(CONSOLE, body=NO_LIMIT, topic="staff.changes"),
    **{
        f"{service} {method} /v1/rebuild": _services(CONSOLE)
        for service in ("partner_api", "orders", "mes")
        for method in ("GET", "POST")
    },
    # -- the partner API ----------------------------------------------------------------------------------------------
    "partner_api GET /v1/orders": _partners("orders:read"),
    "partner_api GET /v1/orders/{order_id}": _partners("orders:read", other=ABSENT, order_id="order"),
    "partner_api GET /v1/orders/{order_id}/price-job": _partners("orders:read", other=ABSENT, order_id="order"),
    "partner_api GET /v1/commands/{command_id}": _partners("orders:read", other=ABSENT, command_id="cancellation"),
    "partner_api POST /v1/orders": _partners(
        "orders:write", _fresh(lambda world: order_body(world["model"])), other=NOT_THEIRS
    ),
    "partner_api POST /v1/orders/{order_id}/accept": _partners(
        "orders:write", _json(lambda world: world["price"]), other=ABSENT, order_id="order"
    ),
    "partner_api POST /v1/orders/{order_id}/resubmit": _partners("orders:write", {}, other=ABSENT, order_id="order"),
    "partner_api POST /v1/orders/{order_id}/cancel": _partners("orders:write", WHY, other=ABSENT, order_id="order"),
    "partner_api GET /v1/models": _partners("models:read"),
    "partner_api GET /v1/models/{sha256}": _partners("models:read", other=ABSENT, sha256="model"),
    "partner_api GET /v1/models/{sha256}/file": _partners("models:read", other=ABSENT, sha256="model"),
    "partner_api POST /v1/models": _partners("models:write", _json(_model)),
    "partner_api GET /v1/models/{sha256}/upload": _partners("models:write", other=ABSENT, sha256="parts"),
    "partner_api POST /v1/models/{sha256}/upload/links": _partners(
        "models:write", {"parts": [{"number": 1}]}, other=ABSENT, sha256="parts"
    ),
    "partner_api POST /v1/models/{sha256}/upload/complete": _partners("models:write", other=ABSENT, sha256="parts"),
    "partner_api DELETE /v1/models/{sha256}/upload": _partners("models:write", other=ABSENT, sha256="parts"),
    "partner_api GET /v1/quotes": _partners("quotes:read"),
    "partner_api GET /v1/quotes/{quote_id}": _partners("quotes:read", other=ABSENT, quote_id="quote"),
    "partner_api POST /v1/quotes": _partners(
        "quotes:write",
        _fresh(lambda world: {"model": world["model"], "options": [{"alloy": "gold-14k", "finish": "polished"}]}),
        other=NOT_THEIRS,
    ),
    "partner_api GET /v1/hooks": _partners("hooks:manage"),
    "partner_api POST /v1/hooks": _partners(
        "hooks:manage", _json(lambda _: {"url": f"https://127.0.0.1:9/{new_id().hex}"})
    ),
    "partner_api GET /v1/hooks/{hook_id}": _partners("hooks:manage", other=ABSENT, hook_id="hook"),
    "partner_api GET /v1/hooks/{hook_id}/deliveries": _partners("hooks:manage", other=ABSENT, hook_id="hook"),
    "partner_api POST /v1/hooks/{hook_id}/deliveries/{webhook_id}/redeliver": _partners(
        "hooks:manage", other=ABSENT, hook_id="hook", webhook_id="delivery"
    ),
    "partner_api POST /v1/hooks/{hook_id}/enable": _partners("hooks:manage", other=ABSENT, hook_id="hook"),
    "partner_api POST /v1/hooks/{hook_id}/test": _partners("hooks:manage", other=ABSENT, hook_id="hook"),
    "partner_api POST /v1/hooks/{hook_id}/rotate-secret": _partners("hooks:manage", {}, other=ABSENT, hook_id="hook"),
    "partner_api DELETE /v1/hooks/{hook_id}": _partners("hooks:manage", other=ABSENT, hook_id="hook"),
    "partner_api GET /v1/keys": _partners("keys:manage"),
    "partner_api POST /v1/keys": _partners("keys:manage", {"name": "one more"}),
    "partner_api POST /v1/keys/{key_id}/rotate": _partners("keys:manage", {}, other=ABSENT, key_id="key"),
    "partner_api DELETE /v1/keys/{key_id}": _partners("keys:manage", other=ABSENT, key_id="key"),
    "partner_api POST /v1/requests/resend": _services(
        ORDERS, CONSOLE, body=_json(lambda world: {"order_ids": [world["order"]]})
    ),
    # -- Orders -------------------------------------------------------------------------------------------------------
    "orders GET /v1/orders/{order_id}": _services(*READERS, order_id="order"),
    "orders GET /v1/orders/{order_id}/history": _services(*READERS, order_id="order"),
    "orders GET /v1/orders/{order_id}/price-job": _services(*READERS, order_id="order"),
    "orders POST /v1/orders/{order_id}/republish": _services(CONSOLE, order_id="order"),
    "orders POST /v1/announcements": _services(PARTNER_API, body=_json(_announcement)),
    "orders GET /v1/models/{sha256}": _services(*READERS, sha256="model"),
    "orders GET /v1/models/{sha256}/link": _services(*READERS, sha256="model"),
    "orders PUT /v1/models/{sha256}": _services(
        PARTNER_API, CONSOLE, body=lambda world, _: {"content": world["file"]}, sha256="model"
    ),
    # -- the MES ------------------------------------------------------------------------------------------------------
    "mes GET /": _anybody(page=True),
    "mes GET /web/{name}": _anybody(page=True, name="page.css"),
    "mes POST /sign-in": _anybody(
        lambda world, caller: {"data": {"badge": _badge(world, caller)}}, but=NO_BADGE, page=True
    ),
    "mes POST /sign-out": _anybody(page=True),
    "mes GET /v1/me": _staff(*STAFF),
    "mes GET /v1/lists/{list}": _staff(*STAFF, list="queue"),
    "mes GET /v1/work": _staff(*WORKSHOP),
    "mes GET /v1/in-hand": _staff(SUPERVISOR, ADMINISTRATOR),
    "mes GET /v1/orders/{order_id}": _staff(*STAFF, order_id="order"),
    "mes GET /v1/orders/{order_id}/model": _staff(*WORKSHOP, order_id="order"),
    "mes GET /v1/steps/{step_id}": _staff(*WORKSHOP, step_id="step"),
    "mes POST /v1/orders/{order_id}/claim": _staff(OPERATOR, order_id="approved"),
    "mes POST /v1/orders/{order_id}/rework": _staff(*WORKSHOP, body=WHY, other=NOT_THEIRS, order_id="in hand"),
    "mes POST /v1/orders/{order_id}/release": _staff(*WORKSHOP, body=WHY, other=NOT_THEIRS, order_id="in hand"),
    "mes POST /v1/orders/{order_id}/complete": _staff(OPERATOR, other=NOT_THEIRS, order_id="in hand"),
    "mes POST /v1/orders/{order_id}/pack": _staff(OPERATOR, order_id="in hand"),
    "mes POST /v1/orders/{order_id}/ship": _staff(
        OPERATOR, body={"carrier": "DHL", "tracking_number": "42"}, order_id="in hand"
    ),
    # -- the CRM ------------------------------------------------------------------------------------------------------
    "crm POST /v1/sign-in": _anybody(lambda world, caller: {"json": {"badge": _badge(world, caller)}}, but=NO_BADGE),
    "crm GET /v1/orders": _staff(*LOOKERS),
    "crm GET /v1/orders/{order_id}": _staff(*LOOKERS, order_id="at the desk"),
    "crm GET /v1/orders/{order_id}/time-line": _staff(*LOOKERS, order_id="at the desk"),
    "crm GET /v1/commands/{command_id}": _staff(*LOOKERS, command_id="hold"),
    "crm POST /v1/orders/{order_id}/approve": _staff(
        *DESK, body=_json(lambda world: world["price at the desk"]), order_id="at the desk"
    ),
    "crm POST /v1/orders/{order_id}/hold": _staff(*DESK, body=WHY, order_id="at the desk"),
    "crm POST /v1/orders/{order_id}/resume": _staff(*DESK, body={}, order_id="at the desk"),
    "crm POST /v1/orders/{order_id}/resubmit": _staff(*DESK, body={}, order_id="at the desk"),
    "crm POST /v1/orders/{order_id}/cancel": _staff(*DESK, body=WHY, order_id="at the desk"),
    "crm POST /v1/orders/{order_id}/close": _staff(*DESK, body={}, order_id="at the desk"),
    "crm GET /v1/staff": _staff(ADMINISTRATOR),
    "crm POST /v1/staff": _staff(ADMINISTRATOR, body={"name": "Eva", "role": "operator"}),
    "crm POST /v1/staff/{staff_id}/role": _staff(ADMINISTRATOR, body={"role": "supervisor"}, staff_id="member"),
    "crm POST /v1/staff/{staff_id}/withdraw": _staff(ADMINISTRATOR, staff_id="member"),
}
"""`service METHOD path` -> row, walked in this order: what ends a thing stands below what needs it."""
