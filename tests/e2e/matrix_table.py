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
CUSTOMER, GUEST, SIGNED_OUT = "the owning customer", "a guest of the shop", "a customer who has signed out"
WITHDRAWN, EXPIRED = "a withdrawn administrator", "an administrator whose token has expired"
PARTNER_API, SHOP, ORDERS, PRICING, MES, CRM, CONSOLE = (
    "partner_api",
    "shop",
    "orders",
    "pricing",
    "mes",
    "crm",
    "console",
)
ELSEWHERE = "a service's token for another audience"

PARTNERS = (PARTNER, OTHER_PARTNER, WITHOUT_SCOPE, SUSPENDED)
CUSTOMERS = (CUSTOMER, GUEST, SIGNED_OUT)
STAFF = (OPERATOR, OTHER_OPERATOR, SUPERVISOR, SELLER, ADMINISTRATOR)
SERVICES = (PARTNER_API, SHOP, ORDERS, PRICING, MES, CRM, CONSOLE)
CALLERS = (NOBODY, *PARTNERS, *CUSTOMERS, *STAFF, WITHDRAWN, EXPIRED, *SERVICES, ELSEWHERE)

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


def _anybody(
    body: Any = None, *, but: Mapping[str, str] | None = None, page: bool = False, form: bool = False, **objects: str
) -> Row:
    if form:
        fields = dict(body)
        return _row(dict.fromkeys(CALLERS, IN), lambda _, __: {"data": fields}, page=page, **objects)
    return _row(dict.fromkeys(CALLERS, IN) | dict(but or {}), body, page=page, **objects)


def _partners(scope: str, body: Any = None, *, other: str = IN, **objects: str) -> Row:
    """The owner; `other`: what becomes of another partner, who asks for the same object."""
    becomes = dict.fromkeys(CALLERS, WHO)
    becomes |= {PARTNER: IN, OTHER_PARTNER: other, WITHOUT_SCOPE: MAY_NOT, SUSPENDED: MAY_NOT}
    return _row(becomes, body, scope=scope, **objects)


def _customers(body: Any = None, *, guest: str = IN, **objects: str) -> Row:
    """The owner; `guest`: what becomes of a guest, who asks for the same object."""
    return _row(dict.fromkeys(CALLERS, WHO) | {CUSTOMER: IN, GUEST: guest}, body, **objects)


def _staff(*roles: str, body: Any = None, other: str = "", **objects: str) -> Row:
    """`other`: what becomes of an operator who does not have the order in hand, where that matters."""
    becomes = dict.fromkeys(CALLERS, WHO) | dict.fromkeys(STAFF, MAY_NOT)
    becomes |= dict.fromkeys(roles, IN)
    if OPERATOR in roles:
        becomes[OTHER_OPERATOR] = other or IN
    return _row(becomes, body, **objects)


def _page(
    *roles: str, form: Mapping[str, str] | None = None, params: Mapping[str, str] | None = None, **objects: str
) -> Row:
    """A page that staff of these roles come to with the cookie; a bearer opens no page."""
    becomes = dict.fromkeys(CALLERS, WHO) | dict.fromkeys(STAFF, MAY_NOT) | dict.fromkeys(roles, IN)

    def ask(_: World, __: str) -> Mapping[str, Any]:
        return ({"data": dict(form)} if form else {}) | ({"params": dict(params)} if params else {})

    return _row(becomes, ask, page=True, **objects)


def _reports(*roles: str, body: Any = None, **objects: str) -> Row:
    """Staff of these roles, and the console."""
    becomes = dict.fromkeys(CALLERS, WHO) | dict.fromkeys((*STAFF, *SERVICES), MAY_NOT)
    return _row(becomes | dict.fromkeys((*roles, CONSOLE), IN), body, **objects)


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
READERS = (PARTNER_API, SHOP, MES, CRM, CONSOLE)
WHY = {"reason": "the matrix"}
NO_LIMIT = {"rate_per_s": None}
NO_BADGE = {NOBODY: WHO, WITHDRAWN: WHO}

SEEN_BY = dict.fromkeys(CALLERS, WHO) | dict.fromkeys((*STAFF, *SERVICES), MAY_NOT)
SEEN_BY |= dict.fromkeys((SUPERVISOR, ADMINISTRATOR, CONSOLE), IN)

TABLE: dict[str, Row] = {
    # -- telemetry, with OpenSearch away ------------------------------------------------------------------------------
    "telemetry GET /v1/logs": _row(SEEN_BY),
    "telemetry GET /v1/logs/tail": _row(SEEN_BY, lambda _, __: {"params": {"order": "nothing"}}),
    "telemetry GET /v1/metrics": _row(SEEN_BY),
    "telemetry GET /v1/metrics/{name}": _row(SEEN_BY, name="process.cpu.time"),
    "telemetry GET /v1/traces/{trace_id}": _row(SEEN_BY, trace_id="0" * 32),
    "telemetry GET /v1/orders/{order}/story": _row(SEEN_BY, order="order"),
    "telemetry GET /v1/services": _row(SEEN_BY),
    "telemetry GET /v1/alerts": _row(SEEN_BY),
    "telemetry GET /": _anybody(page=True),
    "telemetry GET /web/{name}": _anybody(page=True, name="page.css"),
    "telemetry POST /sign-in": _row(
        dict.fromkeys(CALLERS, MAY_NOT) | dict.fromkeys((SUPERVISOR, ADMINISTRATOR), IN) | NO_BADGE,
        lambda world, caller: {"data": {"badge": _badge(world, caller)}},
    ),
    "telemetry POST /sign-out": _anybody(page=True),
    "crm GET /v1/staff/me": _staff(*STAFF),
    # -- every service ------------------------------------------------------------------------------------------------
    **{
        f"{service} GET {path}": _anybody()
        for service in ("partner_api", "shop", "orders", "pricing", "mes", "crm", "telemetry", "reporting")
        for path in ("/health/live", "/health/ready", "/openapi.json", "/metrics")
    },
    "partner_api GET /v1/publishing/{topic}": _services(CONSOLE, topic="orders.requests"),
    "partner_api PUT /v1/publishing/{topic}": _services(CONSOLE, body=NO_LIMIT, topic="orders.requests"),
    "shop GET /v1/publishing/{topic}": _services(CONSOLE, topic="orders.requests"),
    "shop PUT /v1/publishing/{topic}": _services(CONSOLE, body=NO_LIMIT, topic="orders.requests"),
    "orders GET /v1/publishing/{topic}": _services(CONSOLE, topic="orders.changes"),
    "orders PUT /v1/publishing/{topic}": _services(CONSOLE, body=NO_LIMIT, topic="orders.changes"),
    "mes GET /v1/publishing/{topic}": _services(CONSOLE, topic="orders.commands"),
    "mes PUT /v1/publishing/{topic}": _services(CONSOLE, body=NO_LIMIT, topic="orders.commands"),
    "crm GET /v1/publishing/{topic}": _services(CONSOLE, topic="staff.changes"),
    "crm PUT /v1/publishing/{topic}": _services(CONSOLE, body=NO_LIMIT, topic="staff.changes"),
    **{
        f"{service} {method} /v1/rebuild": _services(CONSOLE)
        for service in ("partner_api", "shop", "orders", "mes", "crm", "reporting")
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
    # -- the shop -----------------------------------------------------------------------------------------------------
    "shop GET /v1/orders": _customers(),
    "shop GET /v1/orders/{order_id}": _customers(guest=ABSENT, order_id="bought"),
    "shop GET /v1/orders/{order_id}/price-job": _customers(guest=ABSENT, order_id="bought"),
    "shop GET /v1/orders/{order_id}/events": _customers(guest=ABSENT, order_id="bought"),
    "shop GET /v1/commands/{command_id}": _customers(guest=ABSENT, command_id="customer's cancellation"),
    "shop POST /v1/orders": _customers(_fresh(lambda world: order_body(world["customer's model"])), guest=NOT_THEIRS),
    "shop POST /v1/orders/{order_id}/accept": _customers(
        _json(lambda world: world["price in the shop"]), guest=ABSENT, order_id="bought"
    ),
    "shop POST /v1/orders/{order_id}/resubmit": _customers({}, guest=ABSENT, order_id="bought"),
    "shop POST /v1/orders/{order_id}/cancel": _customers(WHY, guest=ABSENT, order_id="bought"),
    "shop GET /v1/orders/{order_id}/messages": _customers(guest=ABSENT, order_id="bought"),
    "shop POST /v1/orders/{order_id}/messages": _customers({"text": "when?"}, guest=ABSENT, order_id="bought"),
    "shop POST /v1/orders/{order_id}/layouts/{layout_id}/link": _customers(
        guest=ABSENT, order_id="bought", layout_id="layout for the shop"
    ),
    "shop GET /v1/orders/{order_id}/payment": _customers(guest=ABSENT, order_id="bought"),
    "shop POST /v1/orders/{order_id}/links": _customers(guest=ABSENT, order_id="bought"),
    "shop DELETE /v1/orders/{order_id}/links": _customers(guest=ABSENT, order_id="bought"),
    "shop GET /v1/models": _customers(),
    "shop GET /v1/models/{sha256}": _customers(guest=ABSENT, sha256="customer's model"),
    "shop GET /v1/models/{sha256}/file": _customers(guest=ABSENT, sha256="customer's model"),
    "shop POST /v1/models": _customers(_json(_model)),
    "shop GET /v1/models/{sha256}/upload": _customers(guest=ABSENT, sha256="customer's parts"),
    "shop POST /v1/models/{sha256}/upload/links": _customers(
        {"parts": [{"number": 1}]}, guest=ABSENT, sha256="customer's parts"
    ),
    "shop POST /v1/models/{sha256}/upload/complete": _customers(guest=ABSENT, sha256="customer's parts"),
    "shop DELETE /v1/models/{sha256}/upload": _customers(guest=ABSENT, sha256="customer's parts"),
    "shop GET /v1/quotes": _customers(),
    "shop GET /v1/quotes/{quote_id}": _customers(guest=ABSENT, quote_id="customer's quote"),
    "shop POST /v1/quotes": _customers(
        _fresh(
            lambda world: {
                "model": world["customer's model"],
                "options": [{"alloy": "gold-14k", "finish": "polished"}],
            }
        ),
        guest=NOT_THEIRS,
    ),
    "shop GET /v1/shared/{token}": _anybody(token="order's link"),
    "shop GET /v1/offer": _anybody(),
    "shop GET /v1/catalogue/{piece}": _anybody(piece="star"),
    "shop POST /v1/catalogue/{piece}/take": _customers(piece="star"),
    "shop GET /": _anybody(page=True),
    "shop GET /web/{name}": _anybody(page=True, name="page.css"),
    "shop GET /o/{token}": _anybody(page=True, token="order's link"),
    "shop POST /o/{token}": _anybody({"text": "when?"}, form=True, page=True, token="mailed link"),
    "shop GET /o/{token}/layouts/{layout_id}": _anybody(
        page=True, token="mailed link", layout_id="layout for the shop"
    ),
    "shop GET /v1/me": _customers(),
    "shop PUT /v1/me": _customers({"email": "guest@example.org", "name": "G"}),
    "shop PUT /v1/me/password": _customers({"password": "correct horse", "new_password": "battery staple"}),
    "shop GET /v1/sessions": _customers(),
    "shop DELETE /v1/sessions/{session_id}": _customers(guest=ABSENT, session_id="spare session"),
    "shop POST /v1/requests/resend": _services(
        ORDERS, CONSOLE, body=_json(lambda world: {"order_ids": [world["bought"]]})
    ),
    "shop POST /v1/sign-in": _anybody(
        _json(lambda world: {"email": world["customer's address"], "password": world["password"]})
    ),
    "shop POST /v1/guests": _anybody({}),
    "shop POST /v1/password-letters": _anybody({"email": "nobody@example.org"}),
    "shop POST /v1/passwords": _anybody(
        _json(lambda world: {"token": world["password letter"], "password": "battery staple"})
    ),
    "shop POST /v1/confirmations": _anybody(_json(lambda world: {"token": world["confirmation"]})),
    "shop POST /v1/me/confirmation": _customers(),
    "shop GET /confirm/{token}": _anybody(page=True, token="confirmation"),
    "shop POST /confirm/{token}": _anybody(page=True, token="confirmation"),
    "shop GET /password/{token}": _anybody(page=True, token="password letter"),
    "shop POST /password/{token}": _anybody(
        {"password": "battery staple"}, form=True, page=True, token="password letter"
    ),
    "shop GET /lost-password": _anybody(page=True),
    "shop POST /lost-password": _anybody({"email": "nobody@example.org"}, form=True, page=True),
    "shop POST /v1/sign-out": _customers(),
    "shop POST /v1/customers": _anybody(
        _json(lambda _: {"email": f"{new_id().hex}@example.org", "name": "N", "password": "correct horse"})
    ),
    # -- Orders -------------------------------------------------------------------------------------------------------
    "orders GET /v1/orders/{order_id}": _services(*READERS, order_id="order"),
    "orders GET /v1/orders/{order_id}/history": _services(*READERS, order_id="order"),
    "orders GET /v1/orders/{order_id}/price-job": _services(*READERS, order_id="order"),
    "orders POST /v1/orders/{order_id}/republish": _services(CONSOLE, order_id="order"),
    "orders POST /v1/quotes/{quote_id}/republish": _services(CONSOLE, quote_id="quote"),
    "orders POST /v1/announcements": _services(PARTNER_API, SHOP, CRM, body=_json(_announcement)),
    "orders GET /v1/models/{sha256}": _services(*READERS, sha256="model"),
    "orders GET /v1/models/{sha256}/link": _services(*READERS, sha256="model"),
    "orders PUT /v1/models/{sha256}": _services(
        PARTNER_API, SHOP, CRM, CONSOLE, body=lambda world, _: {"content": world["file"]}, sha256="model"
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
    "crm POST /v1/orders": _staff(
        *DESK,
        body=_fresh(lambda world: order_body(world["desk's model"]) | {"customer_id": world["customer"]}),
    ),
    "crm POST /v1/orders/{order_id}/model/take": _staff(*DESK, order_id="at the desk"),
    "crm GET /v1/orders/{order_id}/price-job": _staff(*LOOKERS, order_id="taken"),
    "crm POST /v1/requests/resend": _services(
        ORDERS, CONSOLE, body=_json(lambda world: {"order_ids": [world["taken"]]})
    ),
    "crm GET /v1/models": _staff(*LOOKERS),
    "crm GET /v1/models/{sha256}": _staff(*LOOKERS, sha256="desk's model"),
    "crm GET /v1/models/{sha256}/file": _staff(*LOOKERS, sha256="desk's model"),
    "crm POST /v1/models": _staff(*DESK, body=_json(_model)),
    "crm GET /v1/models/{sha256}/upload": _staff(*DESK, sha256="desk's parts"),
    "crm POST /v1/models/{sha256}/upload/links": _staff(*DESK, body={"parts": [{"number": 1}]}, sha256="desk's parts"),
    "crm POST /v1/models/{sha256}/upload/complete": _staff(*DESK, sha256="desk's parts"),
    "crm DELETE /v1/models/{sha256}/upload": _staff(*DESK, sha256="desk's parts"),
    "crm GET /v1/quotes": _staff(*LOOKERS),
    "crm GET /v1/quotes/{quote_id}": _staff(*LOOKERS, quote_id="desk's quote"),
    "crm POST /v1/quotes": _staff(
        *DESK,
        body=_fresh(
            lambda world: {"model": world["desk's model"], "options": [{"alloy": "gold-14k", "finish": "polished"}]}
        ),
    ),
    "crm GET /v1/offer": _anybody(),
    "crm GET /v1/catalogue/{piece}": _anybody(piece="star"),
    "crm POST /v1/catalogue/{piece}/take": _staff(*DESK, piece="star"),
    "crm GET /v1/orders/{order_id}": _staff(*LOOKERS, order_id="at the desk"),
    "crm GET /v1/orders/{order_id}/time-line": _staff(*LOOKERS, order_id="at the desk"),
    "crm GET /v1/orders/{order_id}/messages": _staff(*LOOKERS, order_id="bought"),
    "crm POST /v1/orders/{order_id}/messages": _staff(*DESK, body={"text": "soon"}, order_id="bought"),
    "crm POST /v1/layouts/{layout_id}/links": _services(
        SHOP, body=_json(lambda world: {"order_id": world["bought"]}), layout_id="layout for the shop"
    ),
    "crm GET /v1/commands/{command_id}": _staff(*LOOKERS, command_id="hold"),
    "crm POST /v1/orders/{order_id}/approve": _staff(
        *DESK, body=_json(lambda world: world["price at the desk"]), order_id="at the desk"
    ),
    "crm POST /v1/orders/{order_id}/hold": _staff(*DESK, body=WHY, order_id="at the desk"),
    "crm POST /v1/orders/{order_id}/resume": _staff(*DESK, body={}, order_id="at the desk"),
    "crm POST /v1/orders/{order_id}/resubmit": _staff(*DESK, body={}, order_id="at the desk"),
    "crm POST /v1/orders/{order_id}/cancel": _staff(*DESK, body=WHY, order_id="at the desk"),
    "crm POST /v1/orders/{order_id}/close": _staff(*DESK, body={}, order_id="at the desk"),
    "crm GET /v1/board": _staff(*LOOKERS),
    "crm GET /v1/search": _staff(*LOOKERS),
    "crm GET /v1/sellers": _staff(*LOOKERS),
    "crm GET /v1/customers": _staff(*LOOKERS),
    "crm POST /v1/customers": _staff(*DESK, body={"name": "Petra"}),
    "crm GET /v1/customers/{customer_id}": _staff(*LOOKERS, customer_id="customer"),
    "crm PUT /v1/customers/{customer_id}": _staff(
        *DESK, body={"name": "Olga", "kind": "person", "version": 1}, customer_id="customer"
    ),
    "crm POST /v1/customers/{customer_id}/contacts": _staff(
        *DESK, body={"name": "Olga", "version": 1}, customer_id="customer"
    ),
    "crm POST /v1/customers/{customer_id}/contacts/{contact_id}/remove": _staff(
        *DESK, body={"version": 1}, customer_id="customer", contact_id="contact"
    ),
    "crm POST /v1/customers/{customer_id}/consent": _staff(
        *DESK, body={"how": "by telephone", "version": 1}, customer_id="customer"
    ),
    "crm POST /v1/customers/{customer_id}/notes": _staff(*DESK, body={"text": "likes red"}, customer_id="customer"),
    "crm POST /v1/orders/{order_id}/customer": _staff(
        *DESK, body=_json(lambda world: {"customer_id": world["customer"]}), order_id="at the desk"
    ),
    "crm POST /v1/customers/{customer_id}/merge": _staff(
        *DESK, body=_json(lambda world: {"into": world["customer"], "version": 1}), customer_id="double"
    ),
    "crm GET /v1/orders/{order_id}/layouts": _staff(*LOOKERS, order_id="at the desk"),
    "crm POST /v1/orders/{order_id}/layouts": _staff(*DESK, body={}, order_id="at the desk"),
    "crm POST /v1/layouts/{layout_id}/remarks": _staff(*DESK, body={"text": "thin"}, layout_id="layout"),
    "crm GET /v1/layouts/waiting": _staff(*LOOKERS),
    "crm GET /orders/{order_id}/layouts": _page(*LOOKERS, order_id="at the desk"),
    "crm POST /orders/{order_id}/layouts": _page(*DESK, form={"do": "add"}, order_id="at the desk"),
    "crm GET /layouts/{layout_id}/model": _page(*LOOKERS, layout_id="layout"),
    # Whoever has the link, and nobody by a link that is none; afterwards a seller sends another, which ends this one.
    "crm GET /l/{token}": _anybody(token="link"),
    "crm GET /l/{token}/model": _anybody(token="link"),
    "crm POST /l/{token}": _anybody({"do": "remark", "name": "Olga", "text": "x"}, form=True, token="link"),
    "crm POST /v1/layouts/{layout_id}/send": _staff(*DESK, layout_id="layout"),
    "crm GET /v1/tasks": _staff(*LOOKERS),
    "crm POST /v1/tasks": _staff(*DESK, body={"text": "call back", "due_on": "2030-01-01"}),
    "crm POST /v1/tasks/{task_id}/done": _staff(*DESK, task_id="task"),
    "crm GET /v1/workload": _staff(*LOOKERS),
    "crm POST /v1/hand-over": _row(
        _staff(ADMINISTRATOR).becomes | {SELLER: NOT_THEIRS},
        _json(lambda world: {"from_seller": world["member"], "to_seller": world["seller"]}),
    ),
    "crm POST /v1/layouts/{layout_id}/mail": _staff(*DESK, layout_id="layout"),
    "crm GET /v1/mails": _staff(*LOOKERS),
    "crm GET /tasks": _page(*LOOKERS),
    "crm POST /tasks": _page(*DESK, form={"text": "call back", "due_on": "2030-01-01"}),
    "crm POST /tasks/{task_id}": _page(*DESK, task_id="task"),
    "crm GET /workload": _page(*LOOKERS),
    "crm POST /workload": _page(*DESK, form={"from_seller": "x", "to_seller": "y"}),
    "crm GET /mails": _page(*LOOKERS),
    # Said without being sure: otherwise they would be signed out.
    "crm POST /sign-out-everywhere": _page(*LOOKERS, form={"sure": "no"}),
    # Its pages: who is not let in is asked for a badge, with the same status as at the API.
    "crm GET /": _anybody(page=True),
    "crm GET /web/{name}": _anybody(page=True, name="page.css"),
    "crm POST /sign-in": _row(
        dict.fromkeys(CALLERS, MAY_NOT) | dict.fromkeys((SUPERVISOR, SELLER, ADMINISTRATOR), IN) | NO_BADGE,
        lambda world, caller: {"data": {"badge": _badge(world, caller)}},
    ),
    "crm POST /sign-out": _anybody(page=True),
    "crm GET /board/columns": _page(*LOOKERS),
    "crm GET /board/events": _page(*LOOKERS, params={"seconds": "0"}),
    "crm GET /orders": _page(*LOOKERS),
    "crm GET /new-order": _page(*DESK),
    "crm GET /orders/{order_id}": _page(*LOOKERS, order_id="at the desk"),
    "crm POST /orders/{order_id}": _page(*DESK, form={"do": "hold", "reason": "the matrix"}, order_id="at the desk"),
    "crm GET /commands/{command_id}": _page(*LOOKERS, command_id="hold"),
    "crm GET /search": _page(*LOOKERS),
    "crm GET /customers": _page(*LOOKERS),
    "crm POST /customers": _page(*DESK, form={"name": "Petra"}),
    "crm GET /customers/{customer_id}": _page(*LOOKERS, customer_id="customer"),
    "crm POST /customers/{customer_id}": _page(*DESK, form={"do": "note", "text": "x"}, customer_id="customer"),
    "crm GET /v1/staff": _staff(ADMINISTRATOR),
    "crm POST /v1/staff": _staff(ADMINISTRATOR, body={"name": "Eva", "role": "operator"}),
    "crm POST /v1/staff/{staff_id}/role": _staff(ADMINISTRATOR, body={"role": "supervisor"}, staff_id="member"),
    "crm POST /v1/staff/{staff_id}/end-sessions": _staff(ADMINISTRATOR, staff_id="member"),
    "crm POST /v1/staff/{staff_id}/withdraw": _staff(ADMINISTRATOR, staff_id="member"),
    # -- Reporting: nothing is captured in this stack ------------------------------------------------------------------
    "reporting GET /": _anybody(page=True),
    "reporting GET /web/{name}": _anybody(page=True, name="page.css"),
    "reporting POST /sign-in": _anybody(
        lambda world, caller: {"data": {"badge": _badge(world, caller)}}, but=NO_BADGE, page=True
    ),
    "reporting POST /sign-out": _anybody(page=True),
    "reporting GET /v1/reports": _reports(SELLER, SUPERVISOR, ADMINISTRATOR),
    "reporting GET /v1/reports/{name}": _reports(SELLER, SUPERVISOR, ADMINISTRATOR, name="orders"),
    "reporting GET /v1/orders-known": _services(CONSOLE),
    "reporting GET /v1/sql": _reports(ADMINISTRATOR),
    "reporting POST /v1/sql": _reports(ADMINISTRATOR, body={"sql": "SELECT count(*) FROM orders"}),
    "reporting DELETE /v1/sql/{query_id}": _row(
        dict.fromkeys(CALLERS, WHO)
        | dict.fromkeys((*STAFF, *SERVICES), MAY_NOT)
        | dict.fromkeys((ADMINISTRATOR, CONSOLE), ABSENT),
        query_id="nothing",
    ),
}
"""`service METHOD path` -> row, walked in this order: what ends a thing stands below what needs it."""
